// SPDX-License-Identifier: Apache-2.0
//! The plugin as a process: probes, metrics, and how it ends.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::error::Error as _;
use std::fs;

use dra_proto::node_v1::node_client::NodeClient;
use dra_proto::node_v1::{NodeState, WatchNodeRequest};
use dra_sim::state::ComputeMode;
use dra_tests::api_server::{Resource, Verb};
use dra_tests::wait::{until, within};
use dra_tests::{Mode, NewClaim, Node};
use serde_json::json;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

fn sockets(node: &Node) -> usize {
    let is_socket = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().ends_with(".sock");
    let dirs = [node.state_dir(), node.kubelet_dir().join("plugins_registry"), node.dir().to_owned()];
    dirs.iter().map(|dir| fs::read_dir(dir).into_iter().flatten().flatten().filter(is_socket).count()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plugin_is_healthy_at_once_and_ready_after_its_registration() {
    let node = Node::new("t4:1");
    node.kubelet.refuse(Some("not yet"));
    let plugin = node.start_instance(Mode::Process, "1");
    let code = |wanted: u16| move |code: u16, body: &str| (code == wanted).then(|| body.to_owned());
    plugin.until_http("/healthz", code(200)).await;
    assert!(plugin.until_http("/readyz", code(503)).await.contains("not registered"));
    node.kubelet.refuse(None);
    plugin.until_http("/readyz", code(200)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_metrics_count_its_operations() {
    let node = Node::new("t4:1,h100:1");
    node.gpus.cut(1, "1g.10gb");
    let plugin = node.start(Mode::Process).await;
    let good = NewClaim::of("good", &node.gpus.name(0)).create(&node.api);
    let bad = NewClaim::of("bad", "gpu-00000000").create(&node.api);
    let h100 = node.gpus.name(1);
    node.kubelet.prepare(&good).await.unwrap();
    node.kubelet.prepare(&bad).await.unwrap_err();
    node.kubelet.unprepare(&good).await.unwrap();
    for line in [
        "gpu_dra_claim_operations_total{operation=\"prepare\",result=\"success\"} 1",
        "gpu_dra_claim_operations_total{operation=\"prepare\",result=\"permanent\"} 1",
        "gpu_dra_claim_operations_total{operation=\"unprepare\",result=\"success\"} 1",
        "gpu_dra_claim_operation_duration_seconds_count{operation=\"prepare\"} 2",
        "gpu_dra_devices{type=\"gpu\",state=\"healthy\"} 1",
        "gpu_dra_devices{type=\"mig\",state=\"healthy\"} 1",
        "gpu_dra_kubelet_registrations_total 1",
        "gpu_dra_pending_restores 0",
        &format!("gpu_dra_mig_largest_free_profile_bytes{{device=\"{h100}\"}} 42412802048"),
        &format!("gpu_dra_mig_unusable_free_memory_ratio{{device=\"{h100}\"}} 0.142857"),
    ] {
        plugin.until_http("/metrics", |_, body| body.contains(line).then_some(())).await;
    }
    let (_, body) = plugin.http("/metrics").await.unwrap();
    let samples = || body.lines().filter(|line| !line.starts_with('#'));
    for claim in [&good.uid, &bad.uid] {
        assert!(samples().all(|line| !line.contains(claim)), "claims that are not prepared leave no series: {body}");
    }
    let with_uuid: Vec<_> = samples().filter(|line| line.contains("GPU-")).collect();
    assert!(
        with_uuid.len() == 2 && with_uuid.iter().all(|line| line.starts_with("gpu_dra_gpu_info{")),
        "labels are bounded: {body}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn at_sigterm_the_plugin_unregisters_completes_its_calls_and_removes_its_sockets() {
    let node = Node::new("t4:1");
    let mut plugin = node.start(Mode::Process).await;
    let registered = node.kubelet.until_registered().await;
    let claim = NewClaim::of("last", &node.gpus.name(0)).create(&node.api);
    let asked = node.api.requests(Verb::Get, Resource::ResourceClaims);
    node.api.hang();
    let call = node.kubelet.prepare(&claim);
    let ending = async {
        node.api.until_requested(Verb::Get, Resource::ResourceClaims, asked + 1).await;
        let answer = async {
            until("the registration socket goes first", || (!registered.socket_path.exists()).then_some(())).await;
            assert!(registered.endpoint.exists(), "a call is in flight");
            node.api.answer_again();
        };
        let (clean, ()) = tokio::join!(plugin.stop(), answer);
        clean
    };
    let (answer, clean) = tokio::join!(call, ending);
    answer.unwrap();
    assert!(clean, "{}", plugin.log());
    assert_eq!(sockets(&node), 0);
    assert_eq!(node.leftovers().len(), 2, "what is prepared stays prepared");
}

/// Connects to the stream of the plugin of a pod, and opens it.
async fn node_stream(node: &Node, pod_uid: &str) -> (NodeClient<Channel>, Streaming<NodeState>) {
    let mut client = node.node_client(pod_uid).await;
    let stream = client.watch_node(WatchNodeRequest {}).await.unwrap().into_inner();
    (client, stream)
}

/// Opens streams until nothing accepts the connection. The connection of an earlier stream may close under a call, which the
/// client reports as an error of the transport with any code.
async fn refused_connection(client: &mut NodeClient<Channel>) {
    loop {
        let refused = client.watch_node(WatchNodeRequest {}).await.unwrap_err();
        if refused.code() == Code::Unavailable {
            return;
        }
        assert!(refused.source().is_some(), "the plugin answered: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_to_a_controller_ends_when_the_plugin_stops_although_a_prepare_continues() {
    let node = Node::new("t4:1");
    let mut plugin = node.start(Mode::Process).await;
    let (mut client, mut stream) = node_stream(&node, "1").await;
    let claim = NewClaim::of("last", &node.gpus.name(0)).create(&node.api);
    let asked = node.api.requests(Verb::Get, Resource::ResourceClaims);
    node.api.hang();
    let call = node.kubelet.prepare(&claim);
    let ending = async {
        node.api.until_requested(Verb::Get, Resource::ResourceClaims, asked + 1).await;
        let streaming = async {
            let ended = async { while let Ok(Some(_state)) = stream.message().await {} };
            within("the stream ends", ended).await;
            within("new streams are refused", refused_connection(&mut client)).await;
            node.api.answer_again();
        };
        let (clean, ()) = tokio::join!(plugin.stop(), streaming);
        clean
    };
    let (answer, clean) = tokio::join!(call, ending);
    answer.unwrap();
    assert!(clean, "{}", plugin.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uninstallation_restores_settings_of_a_plugin_that_still_stops() {
    let node = Node::new("t4:1");
    let mut plugin = node.start(Mode::Process).await;
    let config = json!({
        "apiVersion": "resource.nvidia.com/v1beta1", "kind": "GpuConfig", "sharing": {"strategy": "Exclusive"},
    });
    let claim = NewClaim::of("exclusive", &node.gpus.name(0)).config(&config).create(&node.api);
    let asked = node.api.requests(Verb::Get, Resource::ResourceClaims);
    node.api.hang();
    let call = node.kubelet.prepare(&claim);
    let ending = async {
        node.api.until_requested(Verb::Get, Resource::ResourceClaims, asked + 1).await;
        let restoring = async {
            let mut restore = node.start_restore();
            restore.until_logged("waiting for another plugin process to stop").await;
            node.api.answer_again();
            restore.ended().await
        };
        tokio::join!(plugin.stop(), restoring)
    };
    let (answer, (clean, restored)) = tokio::join!(call, ending);
    answer.unwrap();
    assert!(clean && restored.success(), "{}", plugin.log());
    assert_eq!(node.gpus.state().gpus[0].compute_mode, ComputeMode::Default);
    assert_eq!(node.leftovers().len(), 2, "the claim is the kubelet's to end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_with_the_same_identity_exits_with_an_error() {
    let node = Node::new("t4:1");
    let _first = node.start(Mode::Process).await;
    let mut second = node.start_instance(Mode::Process, "1");
    assert!(!second.ended().await.success());
    assert!(second.log().contains("another plugin process with pod UID 1"), "{}", second.log());
    let claim = NewClaim::of("c", &node.gpus.name(0)).create(&node.api);
    node.kubelet.prepare(&claim).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_instance_leaves_nothing_unless_a_claim_needs_it() {
    let node = Node::new("t4:1");
    let claim = NewClaim::of("c", &node.gpus.name(0)).create(&node.api);
    let mut plugin = node.start(Mode::Process).await;
    let devices = node.kubelet.prepare(&claim).await.unwrap();
    assert!(plugin.stop().await, "{}", plugin.log());
    assert_eq!(node.own_nodes(&devices), [node.gpus.node(0)].into(), "a pod that starts late finds its specs");
    plugin = node.start(Mode::Process).await;
    node.kubelet.unprepare(&claim).await.unwrap();
    assert!(plugin.stop().await, "{}", plugin.log());
    for dir in [node.state_dir(), node.cdi_dir(), node.kubelet_dir().join("plugins_registry")] {
        let left: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_waits_for_a_restore_to_end_is_stopped_by_sigterm() {
    let node = Node::new("t4:1");
    fs::create_dir_all(node.state_dir()).unwrap();
    let restoring = fs::File::open(node.state_dir()).unwrap();
    restoring.lock().unwrap();
    let mut plugin = node.start_instance(Mode::Process, "1");
    plugin.until_sigterm_is_caught().await;
    plugin.until_logged("waiting for another plugin process to stop").await;
    assert_eq!(plugin.terminate().await.code(), Some(0), "{}", plugin.log());
    drop(restoring);
    node.start(Mode::Process).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_waits_for_a_plugin_to_end_is_stopped_by_sigterm_and_has_not_succeeded() {
    let node = Node::new("t4:1");
    let _plugin = node.start(Mode::Process).await;
    let mut restore = node.start_restore();
    restore.until_logged("waiting for another plugin process to stop").await;
    restore.until_sigterm_is_caught().await;
    assert_eq!(restore.terminate().await.code(), Some(1), "{}", restore.log());
    assert!(restore.log().contains("stopped before all GPUs were restored"), "{}", restore.log());
}
