// SPDX-License-Identifier: Apache-2.0
//! `kubectl gpu migrate`: what it finds and what it refuses.

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

pub(crate) fn operator_plugin() -> Value {
    of_operator("nvidia-device-plugin-daemonset", "device-plugin", "nvcr.io/nvidia/k8s-device-plugin:v0.18.0")
}

/// As the manifest of the device plugin.
pub(crate) fn plain_plugin() -> Value {
    let image = "nvcr.io/nvidia/k8s-device-plugin:v0.17.1";
    set(
        "kube-system",
        "nvidia-device-plugin-daemonset",
        &json!({"containers": [{"name": "nvidia-device-plugin-ctr", "image": image}]}),
    )
}

/// As the chart of the device plugin.
pub(crate) fn chart_plugin() -> Value {
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

pub(crate) fn labelled() -> Value {
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

pub(crate) fn mig_manager() -> Value {
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
