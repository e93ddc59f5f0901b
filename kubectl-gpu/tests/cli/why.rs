// SPDX-License-Identifier: Apache-2.0
//! `kubectl gpu why` for the causes that a pod can wait for.

use dra_allocation::{Classes, NodeFacts, pod};
use dra_explain::subject::{self, Claim, Event, Subject};
use dra_explain::why::{Seen, Verdict, Why, why};
use dra_kubectl_gpu::age::Clock;
use dra_kubectl_gpu::table::Colours;
use dra_kubectl_gpu::why_table::table;
use serde_json::{Value, json};

use crate::check;
use crate::world::{Held, alone, classes, pools, share, slices, usage};

/// A cluster with a node of each model.
struct World {
    slices: Vec<Value>,
    held: Vec<Held<'static>>,
    classes: Classes,
    nodes: Vec<NodeFacts>,
}

fn nodes(names: &[&str]) -> Vec<NodeFacts> {
    let node = |name: &&str| {
        let taints =
            if *name == "gpu-c" { json!([{"key": "team", "value": "web", "effect": "NoSchedule"}]) } else { json!([]) };
        json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "spec": {"taints": taints}})
    };
    let items: Vec<Value> = names.iter().map(node).collect();
    let mut nodes = Vec::new();
    pod::add_nodes(json!({"metadata": {}, "items": items}).to_string().as_bytes(), &mut nodes).unwrap();
    nodes
}

fn world(held: Vec<Held<'static>>) -> World {
    let mut all = slices("models/h100-80.yaml", "gpu-a");
    all.extend(slices("models/t4.yaml", "gpu-b"));
    all.extend(slices("models/t4.yaml", "gpu-c"));
    World { slices: all, held, classes: classes(), nodes: nodes(&["cpu-1", "gpu-a", "gpu-b", "gpu-c"]) }
}

/// Every whole GPU is in use, in one way or another.
fn full() -> World {
    world(vec![
        alone("ml/notebook", "gpu-a", "gpu-97722eb3-mig-19-0"),
        alone("ml/train-0", "gpu-b", "gpu-97722eb3"),
        share("web/infer-0", "gpu-b", "gpu-195655dd-mps", json!({"memory": "12Gi", "activeThreadPercentage": "80"})),
        share("web/infer-1", "gpu-b", "gpu-195655dd-mps", json!({"memory": "1Gi", "activeThreadPercentage": "10"})),
    ])
}

fn request(class: &str, more: &Value) -> Value {
    let mut exactly = json!({"deviceClassName": class});
    exactly.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"name": "gpu", "exactly": exactly})
}

fn selecting(expression: &str) -> Value {
    json!({"selectors": [{"cel": {"expression": expression}}]})
}

fn claim(requests: &Value, status: &Value) -> Claim {
    let object = json!({"spec": {"devices": {"requests": requests}}, "status": status});
    subject::claim("ml/new", &object).unwrap()
}

fn waiting(requests: &Value) -> Subject {
    let pod = json!({"spec": {"resourceClaims": [{"name": "gpu"}]}, "status": {"phase": "Pending"}});
    let events = vec![Event {
        object: String::new(),
        is_warning: true,
        reason: "FailedScheduling".to_owned(),
        message: "0/4 nodes are available: 4 cannot allocate all claims.".to_owned(),
        time: "2026-11-30T11:00:00Z".to_owned(),
    }];
    let what = "pod ml/train-1".to_owned();
    Subject { what, pod: Some(subject::pod(&pod).unwrap()), claims: vec![claim(requests, &json!({}))], events }
}

impl World {
    fn why(&self, subject: &Subject) -> Why {
        let (pools, usage) = (pools(&self.slices), usage(&self.held));
        let seen = Seen { pools: &pools, usage: &usage, classes: &self.classes, nodes: &self.nodes };
        why(subject, seen, Vec::new())
    }
}

fn text(why: &Why) -> String {
    let text = table(why, Clock::at("2026-11-30T12:00:00Z").unwrap(), Colours::Off);
    assert!(text.lines().all(|line| line.chars().count() <= 100), "wider than 100 columns:\n{text}");
    text
}

#[test]
fn gpus_in_use_are_named_with_their_holders() {
    let why = full().why(&waiting(&json!([request("gpu.nvidia.com", &json!({}))])));
    assert_eq!(why.verdict, Verdict::Waits);
    check(&text(&why), "why-in-use.txt");
    check(&dra_kubectl_gpu::output::yaml(&why).unwrap(), "why-in-use.yaml");
}

#[test]
fn a_share_that_is_too_large_names_what_is_free() {
    let memory = json!({"capacity": {"requests": {"memory": "8Gi"}}});
    let why = full().why(&waiting(&json!([request("mps.gpu.nvidia.com", &memory)])));
    check(&text(&why), "why-share.txt");
    let memory = json!({"capacity": {"requests": {"memory": "200Gi"}}});
    let why = full().why(&waiting(&json!([request("mps.gpu.nvidia.com", &memory)])));
    assert_eq!(why.verdict, Verdict::Never);
    check(&text(&why), "why-share-too-large.txt");
}

#[test]
fn a_model_that_no_node_has_never_fits() {
    let selector = selecting(r#"device.attributes["gpu.nvidia.com"].productName == "NVIDIA Z9000""#);
    let why = full().why(&waiting(&json!([request("gpu.nvidia.com", &selector)])));
    assert_eq!(why.verdict, Verdict::Never);
    check(&text(&why), "why-no-model.txt");
}

#[test]
fn several_devices_are_counted() {
    let why = full().why(&waiting(&json!([request("mig.nvidia.com", &json!({"count": 12}))])));
    check(&text(&why), "why-count.txt");
}

#[test]
fn a_tainted_gpu_is_tolerated_or_not() {
    let mut world = world(Vec::new());
    for slice in &mut world.slices {
        for device in slice["spec"]["devices"].as_array_mut().into_iter().flatten() {
            device["taints"] = json!([{"key": "gpu.nvidia.com/xid", "value": "79", "effect": "NoExecute"}]);
        }
    }
    let why = world.why(&waiting(&json!([request("gpu.nvidia.com", &json!({}))])));
    assert_eq!(why.verdict, Verdict::Waits);
    check(&text(&why), "why-taint.txt");
}

#[test]
fn an_expression_that_fails_ends_the_search() {
    let selector = selecting(r#"device.attributes["gpu.nvidia.com"].profile == "1g.10gb""#);
    let why = full().why(&waiting(&json!([request("gpu.nvidia.com", &selector)])));
    assert_eq!(why.verdict, Verdict::Never);
    check(&text(&why), "why-expression.txt");
}

#[test]
fn an_expression_that_is_not_known_decides_nothing() {
    let selector = selecting(r#"device.attributes["gpu.nvidia.com"].productName.translate("x")"#);
    let why = full().why(&waiting(&json!([request("gpu.nvidia.com", &selector)])));
    assert_eq!(why.verdict, Verdict::Undecided);
    check(&text(&why), "why-unknown.txt");
}

#[test]
fn a_pod_that_fits_does_not_wait() {
    let why = world(Vec::new()).why(&waiting(&json!([request("gpu.nvidia.com", &json!({}))])));
    assert_eq!(why.verdict, Verdict::Fits);
    check(&text(&why), "why-fits.txt");
}

#[test]
fn a_pod_with_a_scheduling_gate_is_not_tried() {
    let mut subject = waiting(&json!([request("gpu.nvidia.com", &json!({}))]));
    let pod = json!({"spec": {"schedulingGates": [{"name": "kueue.x-k8s.io/admission"}]}});
    subject.pod = Some(subject::pod(&pod).unwrap());
    check(&text(&world(Vec::new()).why(&subject)), "why-gate.txt");
}

#[test]
fn a_claim_that_quota_refuses_does_not_exist() {
    let template = json!({"spec": {"spec": {"devices": {"requests": [request("gpu.nvidia.com", &json!({}))]}}}});
    let spec = subject::template_spec("ml/gpu", &template).unwrap();
    let state = subject::ClaimState::Missing { template: Some("gpu".to_owned()), spec: Some(spec) };
    let mut subject = waiting(&json!([]));
    subject.claims = vec![Claim { label: "ml/gpu".to_owned(), uid: None, state }];
    subject.events.push(Event {
        object: String::new(),
        is_warning: true,
        reason: "FailedResourceClaimCreation".to_owned(),
        message: r#"PodResourceClaim gpu: failed to create ResourceClaim: resourceclaims.resource.k8s.io "train-1-gpu-x" is forbidden: exceeded quota: gpus, requested: gpu.nvidia.com.deviceclass.resource.k8s.io/devices=1, used: gpu.nvidia.com.deviceclass.resource.k8s.io/devices=4, limited: gpu.nvidia.com.deviceclass.resource.k8s.io/devices=4"#.to_owned(),
        time: "2026-11-30T11:30:00Z".to_owned(),
    });
    check(&text(&full().why(&subject)), "why-quota.txt");
    subject.claims[0].state = subject::ClaimState::Missing { template: Some("gpu".to_owned()), spec: None };
    check(&text(&full().why(&subject)), "why-no-template.txt");
}

#[test]
fn devices_that_cannot_be_prepared_are_named() {
    let allocation = json!({
        "allocation": {"devices": {"results": [{"pool": "gpu-b", "device": "gpu-195655dd"}]}},
        "devices": [{"device": "gpu-195655dd", "conditions": [{"type": "Ready", "status": "False", "message": "GPU is busy"}]}],
    });
    let pod = json!({"spec": {"nodeName": "gpu-b", "resourceClaims": [{"name": "gpu", "resourceClaimName": "new"}]}, "status": {"phase": "Pending"}});
    let event = Event {
        object: String::new(),
        is_warning: true,
        reason: "FailedPrepareDynamicResources".to_owned(),
        message: "Failed to prepare dynamic resources: claim ml/new: gpu-195655dd is held by claim ml/old".to_owned(),
        time: "2026-11-30T11:00:00Z".to_owned(),
    };
    let claims = vec![claim(&json!([]), &allocation)];
    let what = "pod ml/train-1".to_owned();
    let mut subject = Subject { what, pod: Some(subject::pod(&pod).unwrap()), claims, events: vec![event] };
    check(&text(&full().why(&subject)), "why-prepare.txt");
    subject.pod = None;
    subject.what = "claim ml/new".to_owned();
    check(&text(&full().why(&subject)), "why-allocated.txt");
}

#[test]
fn a_pod_with_an_extended_resource_is_asked_about_like_one_with_a_claim() {
    let pod = json!({"spec": {"containers": [{"resources": {"limits": {"nvidia.com/gpu": "2", "cpu": "1"}}}]}});
    let pod = subject::pod(&pod).unwrap();
    let spec = classes().claim_of_resources("ml/train-1 (extended resources)", &pod.resources).unwrap();
    let claim = Claim { label: "ml/train-1".to_owned(), uid: None, state: subject::ClaimState::Unallocated(spec) };
    let subject =
        Subject { what: "pod ml/train-1".to_owned(), pod: Some(pod), claims: vec![claim], events: Vec::new() };
    check(&text(&full().why(&subject)), "why-extended.txt");
}
