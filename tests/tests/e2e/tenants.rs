// SPDX-License-Identifier: Apache-2.0
//! The chart for tenants: what its limits and quotas refuse on a real cluster, with which sentence, and what passes.

use crate::{
    admission::try_to_create,
    arena::{Arena, checked},
    pods,
};
use dra_cluster::ClusterError;
use dra_demo::{refusals, text};
use dra_tests::source::root_dir;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs};

crate::case::cases![
    limits_of_a_namespace_refuse_with_a_sentence_and_nothing_else,
    a_refused_claim_of_a_template_and_a_refused_pod_of_a_deployment_are_events,
    a_quota_counts_claims_and_pods_together,
    pools_select_gpus_by_what_they_are,
];

const RELEASE: &str = "gpu-tenants";
/// A class that `team-a` may name, of a strategy that it may not use.
const MPS: &str = "mps.gpu.nvidia.com";
/// A class that it may not name.
const SMALL: &str = "mig-1g.10gb.nvidia.com";

/// The chart, installed; it is removed with the namespaces that it created, also after a failure.
pub(crate) struct Tenants<'a> {
    arena: &'a Arena,
}

impl<'a> Tenants<'a> {
    pub(crate) fn with_values(arena: &'a Arena, values: &Value) -> Self {
        let path = arena.cluster.dir().join("tenants.json");
        fs::write(&path, values.to_string()).unwrap();
        Self::with_files(arena, &[&path.display().to_string()])
    }

    /// The chart with examples of it, the later ones on top.
    pub(crate) fn with_examples(arena: &'a Arena, names: &[&str]) -> Self {
        let path = |name: &&str| root_dir().join("deploy/tenants-chart/examples").join(name).display().to_string();
        let paths: Vec<_> = names.iter().map(path).collect();
        Self::with_files(arena, &paths.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn with_files(arena: &'a Arena, paths: &[&str]) -> Self {
        let tenants = Self { arena };
        let chart = root_dir().join("deploy/tenants-chart").display().to_string();
        let mut args = vec!["install", RELEASE, &chart, "--namespace", RELEASE, "--create-namespace"];
        args.extend(paths.iter().flat_map(|path| ["--values", path]));
        checked(arena.cluster.helm(&args));
        tenants
    }

    /// Waits until the API server applies the limits, by a claim that they refuse.
    pub(crate) fn until_active(&self, refused: &Value) {
        let is_refused = || matches!(try_to_create(self.arena, std::slice::from_ref(refused)), Err(ClusterError::Failed { message, .. }) if !refusals(&message).is_empty());
        self.arena.until("the policies of tenants", || is_refused().then_some(()));
    }
}

impl Drop for Tenants<'_> {
    fn drop(&mut self) {
        let label = format!("app.kubernetes.io/instance={RELEASE}");
        self.arena.cluster.kubectl(&["delete", "namespaces", "-l", &label, "--timeout=60s"]).ok();
        self.arena.cluster.helm(&["uninstall", RELEASE, "--namespace", RELEASE, "--wait"]).ok();
        self.arena.cluster.kubectl(&["delete", "namespace", RELEASE, "--timeout=60s"]).ok();
    }
}

/// The namespace `team-a` with every limit, `team-b` with no class, and a limit for all others.
fn two_teams() -> Value {
    let of_a = json!({
        "devicesPerClaim": 4, "classes": ["gpu.nvidia.com", "mig.nvidia.com", MPS, "timeslicing.gpu.nvidia.com"],
        "strategies": ["TimeSlicing"], "toleratedTaints": ["gpu.nvidia.com/reset-advised"],
    });
    let of_b = json!({"classes": [], "toleratedTaints": ["*"]});
    json!({
        "tenants": {
            "team-a": {"createNamespace": true, "limits": of_a}, "team-b": {"createNamespace": true, "limits": of_b},
        },
        "otherNamespaces": {"limits": {"devicesPerClaim": 1}},
    })
}

fn install_two_teams(arena: &Arena) -> Tenants<'_> {
    let tenants = Tenants::with_values(arena, &two_teams());
    for (namespace, request) in [("team-a", gpus(5)), ("team-b", gpus(1)), ("default", gpus(2))] {
        tenants.until_active(&claim("probe", namespace, &one(&request)));
    }
    let tolerant = json!({"deviceClassName": "gpu.nvidia.com", "tolerations": [{"operator": "Exists"}]});
    tenants.until_active(&claim("probe", "team-a", &one(&tolerant)));
    let shared = pods::shared_by(one(&gpus(1)), &json!({"strategy": "MPS"}));
    tenants.until_active(&claim("probe", "team-a", &shared));
    tenants
}

fn gpus(count: u32) -> Value {
    json!({"deviceClassName": "gpu.nvidia.com", "count": count})
}

fn of_class(class: &str) -> Value {
    json!({ "deviceClassName": class })
}

/// Devices with one request.
fn one(request: &Value) -> Value {
    json!({"requests": [{"name": "gpu", "exactly": request}]})
}

fn object(kind: &str, name: &str, namespace: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "resource.k8s.io/v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    })
}

pub(crate) fn claim(name: &str, namespace: &str, devices: &Value) -> Value {
    object("ResourceClaim", name, namespace, &json!({ "devices": devices }))
}

pub(crate) fn template(name: &str, namespace: &str, devices: &Value) -> Value {
    object("ResourceClaimTemplate", name, namespace, &json!({"spec": {"devices": devices}}))
}

/// A pod with an init container and containers that ask for extended resources.
fn pod(name: &str, namespace: &str, init: &Value, containers: &[Value]) -> Value {
    let container = |name: String, limits: &Value| json!({"name": name, "image": "localhost/gpu-demo:latest", "imagePullPolicy": "IfNotPresent", "resources": {"limits": limits}});
    let containers: Vec<_> =
        containers.iter().enumerate().map(|(at, limits)| container(format!("main-{at}"), limits)).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace},
        "spec": {"initContainers": [container("init".to_owned(), init)], "containers": containers},
    })
}

/// Has the API server judge objects in a dry run, and compares the sentences that those with one are refused with.
fn check(arena: &Arena, given: &[Judged]) {
    let name = |object: &Value| text(object, "/metadata/name").to_owned();
    let expect: BTreeMap<_, _> =
        given.iter().filter_map(|(object, sentence)| Some((name(object), sentence.clone()?))).collect();
    let objects: Vec<_> = given.iter().map(|(object, _)| object.clone()).collect();
    match try_to_create(arena, &objects) {
        Err(ClusterError::Failed { message, .. }) => {
            assert_eq!(message.lines().count(), expect.len(), "{message}");
            assert_eq!(refusals(&message), expect);
        }
        answer => panic!("some of these should be refused: {answer:?}"),
    }
}

fn limits_of_a_namespace_refuse_with_a_sentence_and_nothing_else(arena: &Arena) {
    let _tenants = install_two_teams(arena);
    check_types(arena);
    check(arena, &[claims_by_count(), claims_by_class(), claims_by_strategy(), claims_by_toleration()].concat());
    check(arena, &pods_with_extended_resources());
    check(arena, &in_other_namespaces());
    // The API server has judged; the driver serves a claim that passes.
    pods::start_as(arena, ("team-a", 0), "served", "node-2", &one(&gpus(1)));
    checked(arena.stage().saw_in("team-a", "served", "main"));
}

fn check_types(arena: &Arena) {
    let label = format!("app.kubernetes.io/instance={RELEASE}");
    let policies = || {
        let policies = arena.list(&["validatingadmissionpolicies", "-l", &label]);
        policies.iter().all(|policy| policy["status"]["typeChecking"].is_object()).then_some(policies)
    };
    let policies = arena.until("the type checking of the policies", policies);
    assert_eq!(policies.len(), 4);
    for policy in policies {
        assert_eq!(policy["status"]["typeChecking"], json!({}), "{policy}");
    }
}

fn too_many(path: &str, count: &str, may: u32, namespace: &str) -> String {
    format!(
        "{path} is refused: it asks for {count}; a claim or pod of namespace {namespace} may have at most {may}; divide it among several claims, or ask an administrator to raise limits.devicesPerClaim of the namespace"
    )
}

const CLASSES_OF_A: &str = "; use gpu.nvidia.com or mig.nvidia.com or mps.gpu.nvidia.com or timeslicing.gpu.nvidia.com, or ask an administrator to extend limits.classes of the namespace";
const STRATEGIES_OF_A: &str = " is not for namespace team-a; use TimeSlicing, ask for a whole GPU or a MIG device without sharing, or ask an administrator to extend limits.strategies of the namespace";

/// An object with the sentence that it is refused with, or without one.
type Judged = (Value, Option<String>);

fn of_a(name: &str, devices: &Value) -> Value {
    claim(name, "team-a", devices)
}

/// A request with two alternatives.
fn either(first: Value, second: Value) -> Value {
    let named = |name: &str, mut one: Value| {
        one["name"] = json!(name);
        one
    };
    json!({"name": "either", "firstAvailable": [named("first", first), named("second", second)]})
}

fn claims_by_count() -> Vec<Judged> {
    let and_three = |other: Value| json!({"requests": [other, {"name": "gpu", "exactly": gpus(3)}]});
    let all = json!({"deviceClassName": "gpu.nvidia.com", "allocationMode": "All"});
    let refused = |count: &str| Some(too_many("spec.devices.requests", count, 4, "team-a"));
    let in_template = too_many("spec.spec.devices.requests", "5 devices", 4, "team-a");
    vec![
        (of_a("four", &one(&gpus(4))), None),
        (of_a("five", &one(&gpus(5))), refused("5 devices")),
        (template("five-each", "team-a", &one(&gpus(5))), Some(in_template)),
        (of_a("all", &one(&all)), refused("32 devices (allocationMode All counts as 32)")),
        (of_a("as-many-as-all", &one(&gpus(32))), refused("32 devices")),
        (of_a("largest-four", &and_three(either(gpus(1), of_class("mig.nvidia.com")))), None),
        (of_a("largest-five", &and_three(either(gpus(1), gpus(2)))), refused("5 devices")),
    ]
}

fn claims_by_class() -> Vec<Judged> {
    let refused = |path: &str| {
        let sentence = format!("{path}.deviceClassName is refused: class {SMALL} is not for namespace team-a");
        Some(sentence + CLASSES_OF_A)
    };
    let second = json!({"requests": [either(gpus(1), of_class(SMALL))]});
    vec![
        (of_a("mig", &one(&of_class("mig.nvidia.com"))), None),
        (of_a("small", &one(&of_class(SMALL))), refused("spec.devices.requests[0].exactly")),
        (of_a("second-small", &second), refused("spec.devices.requests[0].firstAvailable[1]")),
    ]
}

fn claims_by_strategy() -> Vec<Judged> {
    let shared = |strategy: &str| pods::shared_by(one(&gpus(1)), &json!({ "strategy": strategy }));
    let share = |path: &str, class: &str| {
        let what = format!("it asks for a share of a GPU (class {class}), and sharing by MPS");
        Some(format!("spec.devices.requests[0].{path} is refused: {what}{STRATEGIES_OF_A}"))
    };
    let config = format!("spec.devices.config[0].opaque.parameters.sharing.strategy is refused: MPS{STRATEGIES_OF_A}");
    let of_mps = json!({"requests": [either(gpus(1), of_class(MPS))]});
    let mut with_amount = gpus(1);
    with_amount["capacity"] = json!({"requests": {"activeThreadPercentage": "10"}});
    vec![
        (of_a("time-slicing", &shared("TimeSlicing")), None),
        (of_a("slices", &one(&of_class("timeslicing.gpu.nvidia.com"))), None),
        (of_a("mps-config", &shared("MPS")), Some(config)),
        (of_a("mps-class", &of_mps), share("firstAvailable[1]", MPS)),
        (of_a("mps-amount", &one(&with_amount)), share("exactly", "gpu.nvidia.com")),
    ]
}

fn claims_by_toleration() -> Vec<Judged> {
    let tolerating = |name: &str, toleration: Value| {
        let mut request = gpus(1);
        request["tolerations"] = json!([toleration]);
        of_a(name, &one(&request))
    };
    let refused = |what: &str| {
        Some(format!(
            "spec.devices.requests[0].exactly.tolerations[0] is refused: {what}; remove the toleration, or ask an administrator to extend limits.toleratedTaints of namespace team-a"
        ))
    };
    let key = |name: &str| json!({"key": format!("gpu.nvidia.com/{name}"), "operator": "Exists"});
    vec![
        (tolerating("advice", key("reset-advised")), None),
        (
            tolerating("lost", key("gpu-lost")),
            refused("claims of namespace team-a do not tolerate gpu.nvidia.com/gpu-lost"),
        ),
        (
            tolerating("every-taint", json!({"operator": "Exists"})),
            refused("without a key it tolerates every taint, also those of GPUs that fail"),
        ),
    ]
}

fn pods_with_extended_resources() -> Vec<Judged> {
    let whole = |count: u32| json!({ "nvidia.com/gpu": count });
    let by_class = |class: &str| json!({format!("deviceclass.resource.kubernetes.io/{class}"): 1});
    let a = |name: &str, init: Value, containers: &[Value]| pod(name, "team-a", &init, containers);
    let too_many = "spec.containers is refused: the pod asks for 5 devices by extended resources; a claim or pod of namespace team-a may have at most 4; divide the work among several pods, or ask an administrator to raise limits.devicesPerClaim of the namespace";
    let refused = |what: &str, which: &str| Some(format!("{what} is not for namespace team-a{which}"));
    let of_class = |path: &str, resource: &str, class: &str| {
        refused(&format!("{path} is refused: {resource} is of class {class}, which"), CLASSES_OF_A)
    };
    let implicit = "deviceclass.resource.kubernetes.io/mig-1g.10gb.nvidia.com";
    let shared = format!(
        "spec.containers[0].resources is refused: deviceclass.resource.kubernetes.io/{MPS} is a share of a GPU, and sharing by MPS{STRATEGIES_OF_A}"
    );
    let profile = json!({"nvidia.com/mig-1g.10gb": 1});
    vec![
        (a("four", whole(4), &[whole(1), whole(3)]), None),
        (a("no-gpus", json!({}), &[json!({"cpu": "1"})]), None),
        (a("five", json!({}), &[whole(3), whole(2)]), Some(too_many.to_owned())),
        (a("init-five", whole(5), &[whole(1)]), Some(too_many.to_owned())),
        (
            a("profile", json!({}), &[whole(1), profile]),
            of_class("spec.containers[1].resources", "nvidia.com/mig-1g.10gb", SMALL),
        ),
        (a("by-class", by_class(SMALL), &[json!({})]), of_class("spec.initContainers[0].resources", implicit, SMALL)),
        (a("share", json!({}), &[by_class(MPS)]), Some(shared)),
        (
            a("unknown", json!({}), &[json!({"nvidia.com/gpu.shared": 1})]),
            refused("spec.containers[0].resources is refused: nvidia.com/gpu.shared", CLASSES_OF_A),
        ),
    ]
}

fn in_other_namespaces() -> Vec<Judged> {
    let no_class = "spec.devices.requests[0].exactly.deviceClassName is refused: class gpu.nvidia.com is not for namespace team-b, which may use no class; ask an administrator to extend limits.classes of the namespace";
    let of_others = too_many("spec.devices.requests", "2 devices", 1, "default");
    vec![
        (claim("two-of-a", "team-a", &one(&gpus(2))), None),
        (claim("two-of-b", "team-b", &one(&gpus(2))), Some(no_class.to_owned())),
        (claim("one-of-others", "default", &one(&gpus(1))), None),
        (claim("two-of-others", "default", &one(&gpus(2))), Some(of_others)),
        (claim("two-of-the-system", "kube-system", &one(&gpus(2))), None),
    ]
}

/// The text of the newest Event with this reason in a namespace.
pub(crate) fn event(arena: &Arena, namespace: &str, reason: &str) -> String {
    arena.until(&format!("an Event {reason}"), || {
        let events = arena.list(&["events", "-n", namespace, "--field-selector", &format!("reason={reason}")]);
        events.last().map(|event| text(event, "/message").to_owned())
    })
}

fn a_refused_claim_of_a_template_and_a_refused_pod_of_a_deployment_are_events(arena: &Arena) {
    let values = json!({"tenants": {"team-c": {
        "createNamespace": true, "quota": {"devices": {"gpu.nvidia.com": 2}, "hard": {"pods": 9}}, "limits": {"devicesPerClaim": 4},
    }}});
    let tenants = Tenants::with_values(arena, &values);
    tenants.until_active(&claim("probe", "team-c", &one(&gpus(5))));
    let template = template("three", "team-c", &one(&gpus(3)));
    let mut of_template = pod("pod-of-template", "team-c", &json!({}), &[json!({})]);
    of_template["spec"]["resourceClaims"] = json!([{"name": "gpu", "resourceClaimTemplateName": "three"}]);
    let greedy = pod("greedy", "team-c", &json!({}), &[json!({"nvidia.com/gpu": 5})]);
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "greedy", "namespace": "team-c"},
        "spec": {"selector": {"matchLabels": {"app": "greedy"}}, "template": {
            "metadata": {"labels": {"app": "greedy"}}, "spec": greedy["spec"],
        }},
    });
    arena.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [template, of_template, deployment]}).to_string());
    let refused = event(arena, "team-c", "FailedResourceClaimCreation");
    let by_quota = "is forbidden: exceeded quota: gpu-tenants, requested: gpu.nvidia.com.deviceclass.resource.k8s.io/devices=3, used: gpu.nvidia.com.deviceclass.resource.k8s.io/devices=0, limited: gpu.nvidia.com.deviceclass.resource.k8s.io/devices=2";
    assert!(refused.contains(by_quota), "{refused}");
    let refused = event(arena, "team-c", "FailedCreate");
    let by_limit = "spec.containers is refused: the pod asks for 5 devices by extended resources; a claim or pod of namespace team-c may have at most 4; divide the work among several pods, or ask";
    assert!(refused.contains(by_limit), "{refused}");
    drop(tenants);
}

fn a_quota_counts_claims_and_pods_together(arena: &Arena) {
    let quota = json!({"extendedResources": {"nvidia.com/gpu": 2}});
    let values = json!({"tenants": {"team-d": {"createNamespace": true, "quota": quota}}});
    let _tenants = Tenants::with_values(arena, &values);
    let used = || {
        arena.kubectl(&[
            "get",
            "resourcequota",
            RELEASE,
            "-n",
            "team-d",
            "-o",
            "jsonpath={.status.used.requests\\.nvidia\\.com/gpu}",
        ])
    };
    arena.until("the status of the quota", || (used() == "0").then_some(()));
    pods::start_as(arena, ("team-d", 0), "by-claim", "node-2", &one(&gpus(1)));
    checked(arena.stage().saw_in("team-d", "by-claim", "main"));
    let mut by_resource = pod("by-resource", "team-d", &json!({}), &[json!({"nvidia.com/gpu": 1})]);
    by_resource["spec"]["containers"][0]["command"] = json!(["sh", "-c", "nvidia-smi -L && sleep infinity"]);
    by_resource["spec"]["containers"][0]["name"] = json!("main");
    by_resource["spec"]["terminationGracePeriodSeconds"] = json!(1);
    by_resource["spec"].as_object_mut().unwrap().remove("initContainers");
    arena.apply(&by_resource.to_string());
    checked(arena.stage().saw_in("team-d", "by-resource", "main"));
    assert_eq!(used(), "2", "the claim of the pod is not counted twice");
    let third = pod("third", "team-d", &json!({}), &[json!({"nvidia.com/gpu": 1})]);
    let refused = try_to_create(arena, &[third]).unwrap_err().to_string();
    let by_quota = "is forbidden: exceeded quota: gpu-tenants, requested: requests.nvidia.com/gpu=1, used: requests.nvidia.com/gpu=2, limited: requests.nvidia.com/gpu=2";
    assert!(refused.contains(by_quota), "{refused}");
}

fn pools_select_gpus_by_what_they_are(arena: &Arena) {
    let product =
        |name: &str| json!({"cel": format!("device.attributes['gpu.nvidia.com'].productName.contains('{name}')")});
    let values = json!({
        "pools": {"gpu-training": product("A100"), "gpu-inference": product("T4")},
        "tenants": {"team-e": {"createNamespace": true, "limits": {"classes": ["gpu-inference"]}}},
    });
    let tenants = Tenants::with_values(arena, &values);
    tenants.until_active(&claim("probe", "team-e", &one(&of_class("gpu-training"))));
    pods::start_as(arena, ("team-e", 0), "inference", "node-2", &one(&of_class("gpu-inference")));
    let saw = checked(arena.stage().saw_in("team-e", "inference", "main"));
    assert!(saw.to_string().contains("T4"), "{saw}");
    let sentence = "spec.devices.requests[0].exactly.deviceClassName is refused: class gpu-training is not for namespace team-e; use gpu-inference, or ask an administrator to extend limits.classes of the namespace";
    check(arena, &[(claim("training", "team-e", &one(&of_class("gpu-training"))), Some(sentence.to_owned()))]);
    pods::start(arena, "training", "node-2", &one(&of_class("gpu-training")));
    let saw = checked(arena.stage().saw("training"));
    assert!(saw.to_string().contains("A100"), "{saw}");
    pods::remove(arena, "training");
}
