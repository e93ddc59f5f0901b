// SPDX-License-Identifier: Apache-2.0
//! What pods and administrators can do on a running cluster.
//!
//! All tests use one cluster of two nodes, which is removed with
//! this process. Tests use namespaces of their own and run side by side, but for
//! those that stop a kubelet or a node.
#![allow(clippy::unwrap_used, reason = "a test may fail at any step")]

use dra_cluster::{Cluster, ClusterOptions, Node, NodeOptions, Service};
use std::{
    fs,
    path::Path,
    sync::{LazyLock, RwLock},
    time::Duration,
};

static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| {
    let options = ClusterOptions {
        nodes: ["h100:2", "t4:1"].map(|gpus| NodeOptions { gpus: Some(gpus.to_owned()) }).into(),
        gpu_sim: Some(dra_cluster::build_simulator().unwrap()),
        ..ClusterOptions::default()
    };
    Cluster::start(&options).unwrap()
});

/// Held for reading by tests that need all nodes, for writing by those that stop one.
static NODES: RwLock<()> = RwLock::new(());

const LIMIT: Duration = Duration::from_mins(1);

/// A pod of the demo image, in a namespace of its own, that runs this script.
fn run_pod(namespace: &str, name: &str, node: &Node, spec: &str, script: &str) {
    CLUSTER.kubectl(&["create", "namespace", namespace]).ok(); // there from the test's first pod
    CLUSTER
        .wait_until("the default service account", LIMIT, || {
            CLUSTER.kubectl(&["-n", namespace, "get", "serviceaccount", "default"]).map(Some)
        })
        .unwrap();
    CLUSTER
        .apply(&format!(
            r#"{{"apiVersion": "v1", "kind": "Pod",
                "metadata": {{"name": "{name}", "namespace": "{namespace}", "labels": {{"app": "{name}"}}}},
                "spec": {{"nodeName": "{node}", "terminationGracePeriodSeconds": 0, {spec}
                    "containers": [{{"name": "main", "image": "localhost/gpu-demo:latest",
                        "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", "{script}"]}}]}}}}"#,
            node = node.name()
        ))
        .unwrap();
    let pod = format!("pod/{name}");
    CLUSTER.kubectl(&["-n", namespace, "wait", "--for=condition=Ready", &pod, "--timeout=60s"]).unwrap();
}

fn exec(namespace: &str, name: &str, script: &str) -> String {
    CLUSTER.kubectl(&["-n", namespace, "exec", name, "--", "sh", "-c", script]).unwrap()
}

fn restarts(namespace: &str, name: &str) -> String {
    let path = "jsonpath={.status.containerStatuses[0].restartCount}";
    CLUSTER.kubectl(&["-n", namespace, "get", "pod", name, "-o", path]).unwrap()
}

fn node(index: usize) -> &'static Node {
    CLUSTER.nodes().get(index).unwrap()
}

#[test]
fn both_nodes_are_ready_with_the_pinned_versions() {
    let _nodes = NODES.read();
    let path = "jsonpath={range .items[*]}{.metadata.name} {.status.nodeInfo.kubeletVersion} \
                {.status.conditions[?(@.type==\"Ready\")].status}{\"\\n\"}{end}";
    let answer = CLUSTER.kubectl(&["get", "nodes", "-o", path]).unwrap();
    assert_eq!(answer.lines().next(), Some("node-1 v1.37.2 True"));
    assert!(answer.contains("node-2 v1.37.2"), "{answer}");
}

#[test]
fn everything_the_driver_builds_on_is_enabled() {
    let _nodes = NODES.read();
    let metrics = CLUSTER.kubectl(&["get", "--raw", "/metrics"]).unwrap();
    for feature in [
        "DRAAdminAccess",
        "DRAConsumableCapacity",
        "DRADeviceTaints",
        "DRAExtendedResource",
        "DRAPartitionableDevices",
        "DRAPrioritizedList",
        "DRAResourceClaimDeviceStatus",
        "DynamicResourceAllocation",
        "ResourceHealthStatus",
    ] {
        let start = format!("kubernetes_feature_enabled{{name=\"{feature}\"");
        let line = metrics.lines().find(|line| line.starts_with(&start)).unwrap();
        assert!(line.ends_with(" 1"), "{line}");
    }
}

#[test]
fn a_pod_runs_and_answers_exec_and_logs() {
    let _nodes = NODES.read();
    run_pod("exec", "echo", node(0), "", "echo here I am; sleep inf");
    assert_eq!(CLUSTER.kubectl(&["-n", "exec", "logs", "echo"]).unwrap(), "here I am\n");
    assert_eq!(exec("exec", "echo", "cat /etc/hostname"), "echo\n");
}

#[test]
fn a_pod_with_users_of_its_own_runs() {
    let _nodes = NODES.read();
    run_pod("users", "mapped", node(0), "\"hostUsers\": false,", "sleep inf");
    let map = exec("users", "mapped", "cat /proc/self/uid_map");
    let host_uid = map.split_whitespace().nth(1).unwrap();
    assert!(host_uid.parse::<u32>().unwrap() > 65_535, "{map}");
}

#[test]
fn services_are_reachable_from_pods_of_every_node() {
    let _nodes = NODES.read();
    let serve = "mkdir /www; echo served >/www/index.html; exec busybox httpd -f -p 8080 -h /www";
    run_pod("service", "web", node(0), "", serve);
    run_pod("service", "near", node(0), "", "sleep inf");
    run_pod("service", "far", node(1), "", "sleep inf");
    CLUSTER.kubectl(&["-n", "service", "expose", "pod", "web", "--port=80", "--target-port=8080"]).unwrap();
    let path = "jsonpath={.spec.clusterIP}";
    let address = CLUSTER.kubectl(&["-n", "service", "get", "service", "web", "-o", path]).unwrap();
    for client in ["near", "far", "web"] {
        let read = || CLUSTER.kubectl(&["-n", "service", "exec", client, "--", "busybox", "wget", "-qO-", &address]);
        let answer = CLUSTER.wait_until("an answer of the service", LIMIT, || read().map(Some)).unwrap();
        assert_eq!(answer, "served\n", "asked by {client}");
    }
    exec("service", "near", "exec 3<>/dev/tcp/$KUBERNETES_SERVICE_HOST/$KUBERNETES_SERVICE_PORT");
}

#[test]
fn containers_of_a_node_with_gpus_see_the_simulated_driver_read_only() {
    let _nodes = NODES.read();
    run_pod("gpus", "reader", node(0), "", "sleep inf");
    let state = exec("gpus", "reader", "cat /var/lib/gpu-sim/state.json");
    assert_eq!(state, fs::read_to_string(node(0).gpu_dir().join("var/lib/gpu-sim/state.json")).unwrap());
    exec("gpus", "reader", "! touch /var/lib/gpu-sim/mine 2>/dev/null");
    exec("gpus", "reader", "! ls /dev/nvidia* 2>/dev/null");
    assert_eq!(node(0).nvidia_smi(&["-L"]).unwrap().lines().count(), 2);
}

#[test]
fn a_kubelet_restart_leaves_containers_alone() {
    let _nodes = NODES.write();
    run_pod("kubelet", "stayer", node(0), "", "sleep inf");
    node(0).restart_kubelet().unwrap();
    CLUSTER
        .wait_until("an answer of the new kubelet", LIMIT, || {
            CLUSTER.kubectl(&["-n", "kubelet", "exec", "stayer", "--", "true"]).map(Some)
        })
        .unwrap();
    assert_eq!(restarts("kubelet", "stayer"), "0");
    assert!(node(0).log(Service::Kubelet).unwrap().contains("Starting to sync pod status"));
}

#[test]
fn a_reboot_ends_all_containers_and_starts_them_again() {
    let _nodes = NODES.write();
    run_pod("reboot", "restarted", node(1), "", "sleep inf");
    node(1).shell("touch /run/gone /var/lib/kubelet/stays").unwrap();
    let boot_id = || fs::read_to_string(node(1).gpu_dir().join("proc/sys/kernel/random/boot_id")).unwrap();
    let boot_id_before = boot_id();
    node(1).reboot().unwrap();
    assert_ne!(boot_id(), boot_id_before);
    node(1).shell("test ! -e /run/gone -a -e /var/lib/kubelet/stays").unwrap();
    CLUSTER.wait_until("the restart", LIMIT, || Ok((restarts("reboot", "restarted") == "1").then_some(()))).unwrap();
    assert_eq!(exec("reboot", "restarted", "echo again"), "again\n");
}

#[test]
fn an_image_is_built_loaded_and_run() {
    let _nodes = NODES.read();
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("image");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("words"), "built here\n").unwrap();
    fs::write(dir.join("Containerfile"), "ARG BASE\nFROM ${BASE}\nCOPY words /words\n").unwrap();
    let image =
        dra_cluster::build_image("localhost/words:test", &dir.join("Containerfile"), &dir, &dir.join("out")).unwrap();
    CLUSTER.load_image(&image).unwrap();
    let names = node(1).shell("ctr -n k8s.io -a /run/containerd/containerd.sock images list -q").unwrap();
    assert!(names.lines().any(|name| name == "localhost/words:test"), "{names}");
    let root = "mkdir -p /tmp/words; ctr -n k8s.io -a /run/containerd/containerd.sock images mount localhost/words:test /tmp/words >/dev/null; cat /tmp/words/words; ls /tmp/words/lib/x86_64-linux-gnu/libc.so.6";
    assert!(node(0).shell(root).unwrap().starts_with("built here\n"));
}

#[test]
fn helm_speaks_to_the_cluster() {
    let _nodes = NODES.read();
    assert!(CLUSTER.helm(&["list", "--all-namespaces"]).unwrap().starts_with("NAME"));
}
