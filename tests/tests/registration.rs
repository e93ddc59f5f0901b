// SPDX-License-Identifier: Apache-2.0
//! How the kubelet and the plugin find each other, and again.

use std::fs;
use std::os::unix::net::UnixListener;

use dra_tests::kubelet::Service;
use dra_tests::wait::until;
use dra_tests::{Mode, NewClaim, Node};

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_are_offered_newest_first_and_the_endpoint_is_below_the_kubelet() {
    let node = Node::new("t4:1");
    let _plugin = node.start(Mode::InProcess).await;
    let plugin = node.kubelet.until_registered().await;
    let health = ["v1.DRAResourceHealth", "v1alpha1.DRAResourceHealth"];
    assert_eq!(plugin.supported_versions, [["v1.DRAPlugin", "v1beta1.DRAPlugin"], health].concat());
    assert_eq!(plugin.service, Service::V1);
    assert_eq!(plugin.name, "gpu.nvidia.com");
    assert_eq!(plugin.endpoint, node.state_dir().join("dra-1.sock"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_that_knows_only_v1beta1_is_served() {
    let node = Node::with_services("t4:1", &[Service::V1beta1]);
    let _plugin = node.start(Mode::InProcess).await;
    assert_eq!(node.kubelet.until_registered().await.service, Service::V1beta1);
    let claim = NewClaim::of("old", &node.gpus.name(0)).create(&node.api);
    let devices = node.kubelet.prepare(&claim).await.unwrap();
    assert_eq!(node.own_nodes(&devices), [node.gpus.node(0)].into());
    node.kubelet.unprepare(&claim).await.unwrap();
    assert_eq!(node.leftovers(), [].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_appears_later_is_used() {
    let node = Node::new("t4:1");
    let registry_dir = node.kubelet_dir().join("plugins_registry");
    fs::remove_dir(&registry_dir).unwrap();
    let plugin = node.start_instance(Mode::Process, "1");
    plugin.until_logged("waiting for the registry directory of the kubelet").await;
    fs::create_dir(&registry_dir).unwrap();
    node.kubelet.until_registered().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_socket_that_is_deleted_is_created_again() {
    let node = Node::new("t4:1");
    let plugin = node.start(Mode::InProcess).await;
    let socket_path = node.kubelet.until_registered().await.socket_path;
    fs::remove_file(&socket_path).unwrap();
    node.kubelet.until_plugins("the plugin is gone", |plugins| plugins.is_empty().then_some(())).await;
    node.kubelet.until_registered().await;
    let twice = |_, body: &str| body.contains("gpu_dra_kubelet_registrations_total 2").then_some(());
    plugin.until_http("/metrics", twice).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_that_restarts_or_refuses_at_first_finds_the_plugin() {
    let node = Node::new("t4:1");
    let plugin = node.start(Mode::Process).await;
    node.kubelet.refuse(Some("the driver name is on a list"));
    plugin.until_logged("the driver name is on a list").await;
    assert_eq!(node.kubelet.until_failure().await, "the driver name is on a list");
    node.kubelet.refuse(None);
    node.kubelet.until_registered().await;
    node.kubelet.restart();
    node.kubelet.until_registered().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_of_a_killed_instance_are_removed_by_the_next() {
    let node = Node::new("t4:1");
    let mut killed = node.start_instance(Mode::Process, "killed");
    node.kubelet.until_registered().await;
    killed.kill().await;
    let stale = [
        node.state_dir().join("dra-killed.sock"),
        node.kubelet_dir().join("plugins_registry/gpu.nvidia.com@killed-reg.sock"),
    ];
    assert!(stale.iter().all(|path| path.exists()), "a killed process leaves its sockets");
    let _next = node.start_instance(Mode::Process, "next");
    let registered = |plugins: &[dra_tests::kubelet::Plugin]| {
        plugins
            .iter()
            .all(|plugin| plugin.endpoint.ends_with("dra-next.sock"))
            .then_some(plugins.len())
            .filter(|n| *n == 1)
    };
    node.kubelet.until_plugins("only the next instance is registered", registered).await;
    assert!(!stale.iter().any(|path| path.exists()), "{stale:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_same_pod_replaces_its_own_sockets() {
    let node = Node::new("t4:1");
    let mut plugin = node.start(Mode::Process).await;
    plugin.kill().await;
    let _again = node.start_instance(Mode::Process, "1");
    let claim = NewClaim::of("c", &node.gpus.name(0)).create(&node.api);
    until("the restarted plugin listens", || {
        std::os::unix::net::UnixStream::connect(node.state_dir().join("dra-1.sock")).ok()
    })
    .await;
    node.kubelet.restart();
    node.kubelet.until_registered().await;
    node.kubelet.prepare(&claim).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_run_together_and_do_not_touch_the_socket_of_another_driver() {
    let node = Node::new("t4:1");
    // No server takes the authority the kubelet makes of this name, and the kubelet goes on to the next.
    let foreign_path = node.kubelet_dir().join("plugins_registry/other.example.com-reg.sock");
    let _foreign = UnixListener::bind(&foreign_path).unwrap();
    let mut old = node.start_instance(Mode::Process, "old");
    let newest = |wanted: &'static str| {
        move |plugins: &[dra_tests::kubelet::Plugin]| {
            plugins.last().filter(|plugin| plugin.endpoint.ends_with(wanted)).map(|_| plugins.len())
        }
    };
    node.kubelet.until_plugins("the old instance registers", newest("dra-old.sock")).await;
    let _new = node.start_instance(Mode::Process, "new");
    assert_eq!(node.kubelet.until_plugins("the new instance registers", newest("dra-new.sock")).await, 2);
    let claim = NewClaim::of("c", &node.gpus.name(0)).create(&node.api);
    let devices = node.kubelet.prepare(&claim).await.unwrap();
    assert!(old.stop().await, "{}", old.log());
    let alone = |plugins: &[dra_tests::kubelet::Plugin]| (plugins.len() == 1).then_some(());
    node.kubelet.until_plugins("the old instance is gone", alone).await;
    assert_eq!(node.kubelet.prepare(&claim).await.unwrap(), devices);
    assert!(foreign_path.exists());
}
