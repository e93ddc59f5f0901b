// SPDX-License-Identifier: Apache-2.0
//! `kubectl gpu migrate`: what it finds, what it refuses, and that a node never has two owners while it moves.

use dra_allocation::node::NodeFacts;
use dra_kubectl_gpu::migrate::moving::{Direction, Step, step, with};
use dra_kubectl_gpu::migrate::parse::{DaemonSet, RawSet};
use dra_kubectl_gpu::migrate::{Cluster, Component, Node, OwnSet, Owner, SetPod};
use serde_json::{Value, json};

use crate::check;
use crate::server::{CLAIMS, Objects, Ran, Server, run, serve};
use crate::world::{DRIVER, alone, claim, slices};

const NODES: &str = "/api/v1/nodes";
const PODS: &str = "/api/v1/pods";
const SETS: &str = "/apis/apps/v1/daemonsets";
const SLICES: &str = "/apis/resource.k8s.io/v1/resourceslices";

fn set(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({"metadata": {"namespace": namespace, "name": name}, "spec": {"template": {"spec": spec}}})
}

/// As NVIDIA's operator creates it.
fn of_operator(name: &str, component: &str, image: &str) -> Value {
    let key = format!("nvidia.com/gpu.deploy.{component}");
    let init = json!([{"name": "toolkit-validation", "image": "nvcr.io/nvidia/gpu-operator:v26.3.0"}]);
    let containers = json!([{"name": name, "image": image, "command": ["bash", "-c"], "args": ["/bin/entrypoint.sh"]}]);
    set("gpu-operator", name, &json!({"nodeSelector": {key: "true"}, "initContainers": init, "containers": containers}))
}

fn operator_plugin() -> Value {
    of_operator("nvidia-device-plugin-daemonset", "device-plugin", "nvcr.io/nvidia/k8s-device-plugin:v0.18.0")
}

/// As the manifest of the device plugin.
fn plain_plugin() -> Value {
    let image = "nvcr.io/nvidia/k8s-device-plugin:v0.17.1";
    set(
        "kube-system",
        "nvidia-device-plugin-daemonset",
        &json!({"containers": [{"name": "nvidia-device-plugin-ctr", "image": image}]}),
    )
}

/// As the chart of the device plugin.
fn chart_plugin() -> Value {
    let term =
        |key: &str, value: &str| json!({"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]});
    let terms = [
        term("feature.node.kubernetes.io/pci-10de.present", "true"),
        term("feature.node.kubernetes.io/cpu-model.vendor_id", "NVIDIA"),
        term("nvidia.com/gpu.present", "true"),
    ];
    let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
    let mut set = plain_plugin();
    set["spec"]["template"]["spec"]["affinity"] = json!({"nodeAffinity": required});
    set
}

/// As the chart of NVIDIA's DRA driver.
fn nvidia_dra() -> Value {
    let image = "registry.k8s.io/dra-driver-nvidia/dra-driver-nvidia-gpu:v0.5.0";
    let mut plugin = chart_plugin();
    plugin["metadata"] = json!({"namespace": "nvidia-dra", "name": "dra-driver-nvidia-gpu-kubelet-plugin"});
    plugin["spec"]["template"]["spec"]["containers"] =
        json!([{"name": "compute-domains", "image": image}, {"name": "gpus", "image": image}]);
    plugin["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        ["nodeSelectorTerms"] = json!([{"matchExpressions": [{"key": "pool", "operator": "In", "values": ["dra"]}]}]);
    plugin
}

fn own(selector: &Value) -> Value {
    let plugin = json!({"name": "plugin", "env": [{"name": "DRIVER_NAME", "value": DRIVER}]});
    let mut own = set("gpu-dra-driver", "gpu-dra-driver", &json!({"nodeSelector": selector, "containers": [plugin]}));
    own["metadata"]["labels"] = json!({"app.kubernetes.io/instance": "gpus"});
    own
}

fn labelled() -> Value {
    own(&json!({"kubernetes.io/os": "linux", "gpu.nvidia.com/dra-driver": "enabled"}))
}

fn node(name: &str, labels: &Value, offered: &Value) -> Value {
    let mut labels = labels.clone();
    labels["kubernetes.io/os"] = json!("linux");
    json!({"metadata": {"name": name, "labels": labels}, "status": {"allocatable": offered}})
}

fn pod_of(set: &Value, node: &str) -> Value {
    let (namespace, set) = (&set["metadata"]["namespace"], set["metadata"]["name"].as_str().unwrap());
    json!({
        "metadata": {"namespace": namespace, "name": format!("{set}-x"), "ownerReferences": [{"kind": "DaemonSet", "name": set}]},
        "spec": {"nodeName": node},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

/// A pod with a resource, by the device plugin or by this driver.
fn user(name: &str, node: &str, is_of_dra: bool) -> Value {
    let limits = json!({"nvidia.com/gpu": "1"});
    let mut pod = json!({
        "metadata": {"namespace": "ml", "name": name},
        "spec": {"nodeName": node, "containers": [{"resources": {"limits": limits}}]},
        "status": {"phase": "Running"},
    });
    if is_of_dra {
        let mapping = json!({"containerName": "c", "requestName": "r", "resourceName": "nvidia.com/gpu"});
        pod["status"]["extendedResourceClaimStatus"] = json!({"resourceClaimName": "c", "requestMappings": [mapping]});
    }
    pod
}

/// Slices as those of NVIDIA's DRA driver.
fn nvidia_slice(node: &str) -> Value {
    let device = |index: usize| json!({"name": format!("gpu-{index}"), "attributes": {"type": {"string": "gpu"}}});
    json!({
        "metadata": {"name": format!("{node}-slice")},
        "spec": {
            "driver": DRIVER, "nodeName": node, "devices": [device(0), device(1)],
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
        },
    })
}

/// A node of the operator, a moved one, one of NVIDIA's DRA driver, one where it left something, and one without GPUs.
fn objects() -> Objects {
    let (plugin, manager, dra) = (operator_plugin(), mig_manager(), nvidia_dra());
    let discovery =
        of_operator("gpu-feature-discovery", "gpu-feature-discovery", "nvcr.io/nvidia/k8s-device-plugin:v0.18.0");
    let deploys = json!({"nvidia.com/gpu.deploy.device-plugin": "true", "nvidia.com/gpu.deploy.mig-manager": "true"});
    let nodes = [
        node("gpu-a", &deploys, &json!({"cpu": "8", "nvidia.com/gpu": "4"})),
        node("gpu-c", &json!({"gpu.nvidia.com/dra-driver": "enabled"}), &json!({"nvidia.com/gpu": "0"})),
        node("gpu-d", &json!({"pool": "dra"}), &json!({})),
        node("gpu-e", &json!({"nvidia.com/gpu.present": "true"}), &json!({})),
        node("web", &json!({}), &json!({"cpu": "8"})),
    ];
    let pods = [
        pod_of(&plugin, "gpu-a"),
        pod_of(&manager, "gpu-a"),
        pod_of(&dra, "gpu-d"),
        pod_of(&labelled(), "gpu-c"),
        user("train", "gpu-a", false),
        user("moved", "gpu-c", true),
    ];
    let mut leftover = claim(&alone("ml/old", "gpu-e", "gpu-1-mig-19-0"));
    leftover["status"].as_object_mut().unwrap().remove("reservedFor");
    let claims =
        [claim(&alone("ml/held", "gpu-d", "gpu-0")), claim(&alone("ml/new", "gpu-c", "gpu-97722eb3")), leftover];
    let mut published = slices("models/t4.yaml", "gpu-c");
    published.extend(["gpu-d", "gpu-e"].map(nvidia_slice));
    [
        (NODES, json!(nodes)),
        (PODS, json!(pods)),
        (SETS, json!([plugin, manager, discovery, dra, labelled()])),
        (CLAIMS, json!(claims)),
        (SLICES, json!(published)),
    ]
    .into()
}

fn mig_manager() -> Value {
    of_operator("nvidia-mig-manager", "mig-manager", "nvcr.io/nvidia/cloud-native/k8s-mig-manager:v0.13.0")
}

fn changes(server: &Server) -> Vec<String> {
    server.requests().into_iter().filter(|request| request.starts_with("PATCH")).collect()
}

#[test]
fn the_plan_names_owners_users_and_leftovers_of_each_node() {
    let server = serve(objects());
    let Ran(code, out, error) = run(&server, &["migrate"]);
    assert_eq!((code, error.as_str()), (0, ""));
    check(&out, "migrate.txt");
    let Ran(_, out, _) = run(&server, &["migrate", "-o", "yaml"]);
    check(&out, "migrate.yaml");
    assert_eq!(changes(&server), Vec::<String>::new());
}

#[test]
fn a_node_with_gpus_in_use_stays() {
    let server = serve(objects());
    let Ran(code, out, error) = run(&server, &["migrate", "gpu-a", "--yes"]);
    assert_eq!((code, error.as_str()), (1, ""));
    assert!(out.contains("ml         train  nvidia.com/gpu: 1") && out.contains("Nothing is changed."), "{out}");
    let Ran(code, out, _) = run(&server, &["migrate", "gpu-c", "--back", "--yes"]);
    assert!(code == 1 && out.contains("new-pod  claim new with gpu-97722eb3"), "{out}");
    assert_eq!(changes(&server), Vec::<String>::new());
}

#[test]
fn labels_are_announced_and_changed_after_a_confirmation() {
    let server = serve(objects());
    server
        .objects
        .lock()
        .unwrap()
        .get_mut(PODS)
        .unwrap()
        .as_array_mut()
        .unwrap()
        .retain(|pod| pod["metadata"]["name"] != "train");
    for (flags, code, text) in [(&["--dry-run"][..], 0, ""), (&[], 3, "run it again with --yes")] {
        let Ran(found, out, error) = run(&server, &[&["migrate", "gpu-a"], flags].concat());
        assert!(found == code && error.contains(text), "{out}{error}");
        for expect in [
            "  gpu.nvidia.com/dra-driver: none -> pending\n",
            "  nvidia.com/gpu.deploy.device-plugin: true -> false\n",
            "  nvidia.com/gpu.deploy.mig-manager: true -> false\n",
        ] {
            assert!(out.contains(expect), "{expect} in {out}");
        }
    }
    assert_eq!(changes(&server), Vec::<String>::new());
    // The pods of the components stay here, so the command ends when its time does.
    let Ran(code, out, _) = run(&server, &["migrate", "gpu-a", "--yes", "--wait=1s"]);
    assert!(code == 1 && out.contains("Waits for the end of the pod of DaemonSet gpu-operator/"), "{out}");
    assert_eq!(changes(&server), ["PATCH /api/v1/nodes/gpu-a"]);
    let labels = server.objects.lock().unwrap()[NODES][0]["metadata"]["labels"].clone();
    assert_eq!(labels["nvidia.com/gpu.deploy.device-plugin"], "false");
    assert_eq!(labels["gpu.nvidia.com/dra-driver"], "pending");
}

#[test]
fn what_must_be_changed_first_is_a_command() {
    let mut objects = objects();
    objects.insert(SETS, json!([chart_plugin(), own(&json!({"kubernetes.io/os": "linux"}))]));
    let gpu = node("gpu-a", &json!({"nvidia.com/gpu.present": "true"}), &json!({"nvidia.com/gpu": "4"}));
    objects.insert(NODES, json!([gpu]));
    objects.insert(PODS, json!([pod_of(&chart_plugin(), "gpu-a")]));
    let server = serve(objects);
    let Ran(code, out, error) = run(&server, &["migrate", "gpu-a", "--yes"]);
    assert_eq!((code, error.as_str()), (2, ""));
    check(&out, "migrate-refused.txt");
    assert_eq!(changes(&server), Vec::<String>::new());
}

#[test]
fn a_missing_right_is_a_note_in_the_plan_and_the_end_of_a_move() {
    let mut objects = objects();
    objects.remove(PODS);
    let server = serve(objects);
    let Ran(code, out, _) = run(&server, &["migrate"]);
    assert!(code == 0 && out.contains("note: the right to list pods in the cluster is missing"), "{out}");
    let Ran(code, _, error) = run(&server, &["migrate", "gpu-a", "--yes"]);
    let expect =
        "error: failed to migrate: failed to read the cluster: the right to list pods in the cluster is missing";
    assert!(code == 3 && error.starts_with(expect), "{error}");
    let Ran(code, _, error) = run(&serve(self::objects()), &["migrate", "gpu-z", "--yes"]);
    assert!(code == 3 && error.contains("the cluster has no node gpu-z; `kubectl get nodes` lists"), "{error}");
}

/// The operator's plugin with a ConfigMap of shares and one of scripts, as the operator mounts them.
#[test]
fn configurations_of_the_cluster_become_values_and_objects() {
    let mut plugin = operator_plugin();
    let volumes = ["entrypoint", "time-slicing-config"].map(|name| json!({"name": name, "configMap": {"name": name}}));
    plugin["spec"]["template"]["spec"]["volumes"] = json!(volumes);
    let shares = "version: v1\nsharing: {timeSlicing: {renameByDefault: true, resources: [{name: nvidia.com/gpu, replicas: 4}]}}";
    let config_maps = json!([
        {"metadata": {"name": "entrypoint"}, "data": {"entrypoint.sh": "#!/bin/bash\nexec nvidia-device-plugin\n"}},
        {"metadata": {"name": "time-slicing-config"}, "data": {"any": shares}},
    ]);
    let mut objects = objects();
    objects.insert(SETS, json!([plugin]));
    let Ran(code, out, error) = run(&serve(objects.clone()), &["migrate", "--values"]);
    assert!(
        code == 3 && out.is_empty() && error.contains("the right to get configmaps in namespace gpu-operator"),
        "{error}"
    );
    objects.insert("/api/v1/namespaces/gpu-operator/configmaps", config_maps);
    let server = serve(objects.clone());
    let Ran(code, out, error) = run(&server, &["migrate", "--values"]);
    assert_eq!((code, error.as_str()), (0, ""));
    let values: Value = serde_saphyr::from_str(&out).unwrap();
    assert_eq!(values, json!({"sharing": {"timeSlicing": {"maxShares": 4}, "requireAmount": false}}));
    let Ran(code, out, error) = run(&server, &["migrate", "--objects"]);
    assert_eq!((code, error.as_str()), (0, ""));
    check(&out, "migrate-objects.txt");
    objects.insert(SETS, json!([operator_plugin()]));
    let Ran(code, _, error) = run(&serve(objects), &["migrate", "--objects"]);
    assert!(code == 3 && error.contains("there is nothing to convert"), "{error}");
}

fn component(set: &Value) -> Component {
    let set: RawSet = serde_json::from_value(set.clone()).unwrap();
    match set.set(DRIVER) {
        Some(DaemonSet::Theirs(component)) => Some(component),
        Some(DaemonSet::Ours(_)) | None => None,
    }
    .unwrap()
}

fn own_set() -> OwnSet {
    let set: RawSet = serde_json::from_value(labelled()).unwrap();
    match set.set(DRIVER) {
        Some(DaemonSet::Ours(own)) => Some(own),
        Some(DaemonSet::Theirs(_)) | None => None,
    }
    .unwrap()
}

/// A cluster of one node whose DaemonSet controller and kubelet do one thing at a time.
struct Played {
    cluster: Cluster,
    seen: Vec<Owner>,
}

impl Played {
    fn new(components: Vec<Component>, labels: &[(&str, &str)]) -> Self {
        let labels = labels.iter().map(|(key, value)| ((*key).into(), (*value).into()));
        let linux = ("kubernetes.io/os".into(), "linux".into());
        let labels = labels.chain([linux]).collect();
        let node = Node {
            facts: NodeFacts { name: "n".into(), labels, taints: Vec::new(), is_read: true },
            offered: Vec::new(),
            plugin_users: Vec::new(),
            claims: Vec::new(),
            has_own_devices: false,
            nvidia_devices: 0,
        };
        let cluster = Cluster { nodes: vec![node], components, own: Some(own_set()), ..Cluster::default() };
        let mut played = Self { cluster, seen: Vec::new() };
        while played.react() {}
        played
    }

    /// Each DaemonSet and what its pod offers, with whether it has the node.
    fn sets(&self) -> Vec<(String, String, bool, bool)> {
        let facts = &self.cluster.nodes[0].facts;
        let theirs =
            self.cluster.components.iter().map(|one| (&one.namespace, &one.name, one.choice.selects(facts), false));
        let own = self.cluster.own.iter().map(|own| (&own.namespace, &own.name, own.choice.selects(facts), true));
        theirs
            .chain(own)
            .map(|(namespace, name, selects, is_own)| (namespace.clone(), name.clone(), selects, is_own))
            .collect()
    }

    /// One reaction of Kubernetes to the labels; the last first, so that a pod that comes is seen before one that goes.
    fn react(&mut self) -> bool {
        for (namespace, set, selects, is_own) in self.sets().into_iter().rev() {
            let at = self.cluster.set_pods.iter().position(|pod| pod.namespace == namespace && pod.set == set);
            let node = &mut self.cluster.nodes[0];
            let is_offering = if is_own { node.has_own_devices } else { !node.offered.is_empty() };
            match (selects, at) {
                (true, None) => {
                    self.cluster.set_pods.push(SetPod { namespace, set, node: "n".to_owned(), is_ready: true });
                }
                (false, Some(at)) => drop(self.cluster.set_pods.remove(at)),
                (has_pod, _) if has_pod != is_offering => {
                    if is_own {
                        node.has_own_devices = has_pod;
                    } else {
                        node.offered = if has_pod { vec!["nvidia.com/gpu: 8".to_owned()] } else { Vec::new() };
                    }
                }
                (true | false, _) => continue,
            }
            self.seen.push(self.cluster.owner(&self.cluster.nodes[0]));
            return true;
        }
        false
    }

    /// Runs the command until it is done or refuses; it is killed before each of its changes, and started again.
    fn run(&mut self, direction: Direction) -> Step {
        let one = |_| match step(&self.cluster, &self.cluster.nodes[0], direction) {
            Step::Change(labels) => {
                self.cluster.nodes[0].facts = with(&self.cluster.nodes[0].facts, &labels);
                self.react();
                None
            }
            Step::Wait(what) => {
                assert!(self.react(), "{what} never happens");
                None
            }
            end @ (Step::Done | Step::Refused(_) | Step::InUse { .. }) => Some(end),
        };
        (0..100).find_map(one).unwrap()
    }
}

#[test]
fn a_node_never_has_two_owners_and_comes_back_as_it_was() {
    let of_operator = ("nvidia.com/gpu.deploy.device-plugin", "true");
    let managed = [of_operator, ("nvidia.com/gpu.deploy.mig-manager", "true")];
    for (components, labels) in [
        (vec![component(&operator_plugin())], &[of_operator][..]),
        (vec![component(&operator_plugin()), component(&mig_manager())], &managed[..]),
        (vec![component(&patched(&plain_plugin()))], &[]),
        (vec![component(&patched(&chart_plugin()))], &[("nvidia.com/gpu.present", "true")]),
    ] {
        let mut played = Played::new(components, labels);
        let before = played.cluster.nodes[0].clone();
        assert_eq!(played.cluster.owner(&before), Owner::Theirs);
        played.seen.clear();
        assert_eq!(played.run(Direction::ToUs), Step::Done);
        assert_eq!(played.cluster.owner(&played.cluster.nodes[0]), Owner::Ours);
        assert_eq!(played.run(Direction::Back), Step::Done);
        assert_eq!(played.cluster.nodes[0], before);
        assert!(!played.seen.contains(&Owner::Both), "{:?}", played.seen);
    }
}

/// The DaemonSet after the command that a refusal names.
fn patched(set: &Value) -> Value {
    let one = component(set);
    let mut played = Played::new(vec![one], &[("nvidia.com/gpu.present", "true")]);
    let reasons = match played.run(Direction::ToUs) {
        Step::Refused(reasons) => reasons,
        Step::Done | Step::InUse { .. } | Step::Change(_) | Step::Wait(_) => Vec::new(),
    };
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    let patch = reasons[0].split("-p '").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
    let patch: Value = serde_json::from_str(patch).unwrap();
    let mut set = set.clone();
    crate::changes::merge(&mut set, &patch);
    set
}
