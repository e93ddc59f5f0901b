// SPDX-License-Identifier: Apache-2.0
//! A node moves from NVIDIA's device plugin to this driver and back, with pods that request `nvidia.com/gpu` on either side.

use crate::{
    arena::{Arena, checked},
    device_plugin,
    kubectl_gpu::{Answer, kubectl_gpu},
    pods,
};
use dra_demo::{driver, text};
use serde_json::{Value, json};
use std::{env, fs};

crate::case::cases![a_node_moves_between_the_device_plugin_and_this_driver];

const NODE: &str = "node-2";
const RESOURCE: &str = "nvidia.com/gpu";
const LABEL: &str = "gpu.nvidia.com/dra-driver";
/// The label of NVIDIA's operator.
const DEPLOY: &str = "nvidia.com/gpu.deploy.device-plugin";
const NAMESPACE: &str = "gpu-operator";
const IMAGE: &str = "localhost/k8s-device-plugin:v0.18.0";
/// The program that plays the device plugin, in `/var/lib` of the node.
const PLAYER: &str = "device-plugin-player";

fn a_node_moves_between_the_device_plugin_and_this_driver(arena: &Arena) {
    let selector = r"kubeletPlugin.nodeSelector.gpu\.nvidia\.com/dra-driver=enabled";
    arena.kubectl(&["label", "nodes", "--all", &format!("{LABEL}=enabled")]);
    checked(driver::upgrade(&arena.cluster, &arena.repository, &["--set-string", selector]));
    checked(driver::wait_for_pods(&arena.cluster));
    arena.kubectl(&["label", "node", NODE, &format!("{DEPLOY}=false")]);
    install_device_plugin(arena);

    // Back first: the driver leaves, the played plugin comes.
    moves(arena, &["--back"]);
    start(arena, "old");
    arena.until("the pod of the device plugin", || running(arena, "old").then_some(()));
    assert!(visible(arena, "old").starts_with("GPU-played-"));
    let plan = kubectl_gpu(arena, &["migrate"]).text;
    assert!(plan.contains("2 nodes with GPUs: 1 of NVIDIA's components, 1 of this driver"), "{plan}");
    let Answer { text: in_use, code } = kubectl_gpu(arena, &["migrate", NODE, "--yes"]);
    assert!(code == Some(1) && in_use.contains("default    old  nvidia.com/gpu: 1"), "{in_use}");
    assert!(running(arena, "old"), "{in_use}");
    arena.kubectl(&["delete", "pod", "old", "--timeout=60s"]);

    // What NVIDIA's DRA driver left: this driver replaces slices of its own name.
    arena.apply(&leftover_slice().to_string());
    let plan = kubectl_gpu(arena, &["migrate"]).text;
    assert!(plan.contains("ResourceSlices of NVIDIA's driver for node node-2 (1 devices) are left"), "{plan}");
    moves(arena, &[]);
    arena.until("the end of the slices of NVIDIA's driver", || (!has_leftover(arena)).then_some(()));
    pods::start_requesting(arena, "new", NODE, RESOURCE);
    assert_eq!(checked(arena.stage().saw("new")).seen.gpus.len(), 1);
    let Answer { text: in_use, code } = kubectl_gpu(arena, &["migrate", NODE, "--back", "--yes"]);
    assert!(code == Some(1) && in_use.contains("new  claim "), "{in_use}");
    arena.kubectl(&["delete", "pod", "new", "--timeout=60s"]);
    restore(arena);
}

/// The state is in labels alone, so that a second run of the command changes nothing.
fn moves(arena: &Arena, flags: &[&str]) {
    for _ in 0..2 {
        let Answer { text, code } = kubectl_gpu(arena, &[&["migrate", NODE, "--yes"], flags].concat());
        assert_eq!(code, Some(0), "{text}");
    }
}

fn install_device_plugin(arena: &Arena) {
    let ctr = "ctr -n k8s.io -a /run/containerd/containerd.sock images tag --force";
    checked(arena.node(NODE).shell(&format!("{ctr} {} {IMAGE}", driver::IMAGE)));
    // The node has directories of its own, such as /tmp, so the program is copied.
    fs::copy(env::current_exe().unwrap(), arena.node(NODE).dir().join("var-lib").join(PLAYER)).unwrap();
    let labels = json!({"app": "nvidia-device-plugin-daemonset"});
    let spec = json!({
        "nodeSelector": {DEPLOY: "true"},
        "terminationGracePeriodSeconds": 1,
        "containers": [{
            "name": "nvidia-device-plugin", "image": IMAGE, "imagePullPolicy": "Never",
            "command": ["/player", device_plugin::PLAY],
            "securityContext": {"privileged": true, "runAsUser": 0},
            "volumeMounts": [{"name": "player", "mountPath": "/player"}, {"name": "sockets", "mountPath": device_plugin::DIR}],
        }],
        "volumes": [
            {"name": "player", "hostPath": {"path": format!("/var/lib/{PLAYER}"), "type": "File"}},
            {"name": "sockets", "hostPath": {"path": device_plugin::DIR}},
        ],
    });
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    let set = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"namespace": NAMESPACE, "name": "nvidia-device-plugin-daemonset"},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}},
    });
    arena.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [namespace, set]}).to_string());
}

/// A pod with the resource of the device plugin, which gives it an environment variable.
fn start(arena: &Arena, name: &str) {
    let container = json!({
        "name": "main", "image": "localhost/gpu-demo:latest", "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "infinity"], "resources": {"limits": {RESOURCE: 1}},
    });
    let spec = json!({
        "terminationGracePeriodSeconds": 1, "restartPolicy": "Never", "containers": [container],
        "nodeSelector": {"kubernetes.io/hostname": NODE},
    });
    arena.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).to_string());
}

fn running(arena: &Arena, name: &str) -> bool {
    let pods = arena.list(&["pods"]);
    pods.iter().any(|pod| text(pod, "/metadata/name") == name && crate::arena::is_ready(pod))
}

fn visible(arena: &Arena, pod: &str) -> String {
    checked(arena.stage().run_in("default", pod, "echo $NVIDIA_VISIBLE_DEVICES"))
}

fn leftover_slice() -> Value {
    json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": "node-2-of-nvidia"},
        "spec": {
            "driver": "gpu.nvidia.com", "nodeName": NODE, "devices": [{"name": "gpu-0"}],
            "pool": {"name": NODE, "generation": 1, "resourceSliceCount": 1},
        },
    })
}

fn has_leftover(arena: &Arena) -> bool {
    arena.list(&["resourceslices"]).iter().any(|slice| text(slice, "/metadata/name") == "node-2-of-nvidia")
}

fn restore(arena: &Arena) {
    arena.kubectl(&["delete", "namespace", NAMESPACE, "--timeout=60s"]);
    checked(driver::upgrade(&arena.cluster, &arena.repository, &[]));
    arena.kubectl(&["label", "nodes", "--all", &format!("{LABEL}-"), &format!("{DEPLOY}-")]);
    checked(driver::wait_for_pods(&arena.cluster));
    checked(driver::wait_for_mps_hosts(&arena.cluster));
}
