// SPDX-License-Identifier: Apache-2.0
//! What a claim shows of its MPS daemon while plugin and MPS host come and go.
#![expect(clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use dra_hardware::DaemonState;
use dra_mps_api::FailedDaemons;
use dra_tests::api_server::{Key, Resource};
use dra_tests::claim::NAMESPACE;
use dra_tests::node::DRIVER;
use dra_tests::{Mode, MpsHost, NewClaim, Node};
use serde_json::{Value, json};

fn mps() -> Value {
    json!({"apiVersion": "resource.nvidia.com/v1beta1", "kind": "GpuConfig", "sharing": {"strategy": "MPS"}})
}

/// Waits until the condition `MPSReady` of the claim's only device has this reason, or is not there.
async fn until_mps_ready(node: &Node, claim: &str, reason: Option<&str>) {
    let written = |claims: &[Value]| {
        let found = claims.iter().find(|object| object["metadata"]["name"] == claim)?;
        let conditions = found["status"]["devices"][0]["conditions"].as_array()?;
        let condition = conditions.iter().find(|condition| condition["type"] == "MPSReady");
        (condition.map(|condition| &condition["reason"]) == reason.map(|reason| json!(reason)).as_ref()).then_some(())
    };
    node.api.until(&format!("MPSReady of claim {claim} is {reason:?}"), Resource::ResourceClaims, written).await;
}

/// The Events of a reason, oldest first.
fn events(node: &Node, reason: &str) -> Vec<String> {
    let events = node.api.list(Resource::Events).into_iter().filter(|event| event["reason"] == reason);
    events.map(|event| event["note"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_recovered_while_the_plugin_was_down_is_ready_without_an_event() {
    let node = Node::new("t4:1");
    let host = MpsHost::start(&node.mps_root());
    let mut plugin = node.start(Mode::Process).await;
    let claim = NewClaim::of("c", &node.gpus.name(0)).config(&mps()).create(&node.api);
    node.kubelet.prepare(&claim).await.unwrap();
    until_mps_ready(&node, "c", Some("MPSDaemonReady")).await;
    host.all_are(&DaemonState::Exited { why: "it ended by signal 9".to_owned() });
    until_mps_ready(&node, "c", Some("MPSDaemonExited")).await;
    plugin.kill().await;
    host.all_are(&DaemonState::Ready);
    let _plugin = node.start(Mode::Process).await;
    until_mps_ready(&node, "c", Some("MPSDaemonReady")).await;
    assert_eq!(events(&node, "MPSDaemonReady"), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_host_is_back_the_status_of_a_claim_has_the_state_of_its_daemon() {
    let node = Node::new("t4:1");
    let mut host = MpsHost::start(&node.mps_root());
    let _plugin = node.start(Mode::InProcess).await;
    let claim = NewClaim::of("c", &node.gpus.name(0)).config(&mps()).create(&node.api);
    node.kubelet.prepare(&claim).await.unwrap();
    until_mps_ready(&node, "c", Some("MPSDaemonReady")).await;
    host.go_away().await;
    host.all_are(&DaemonState::Lost);
    host.come_back();
    until_mps_ready(&node, "c", Some("MPSDaemonLost")).await;
    host.go_away().await;
    host.forget_all();
    host.come_back();
    until_mps_ready(&node, "c", None).await;
    assert_eq!(events(&node, "MPSDaemonLost").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_gets_the_daemons_of_failed_gpus_at_each_change_and_at_each_connection() {
    let mut node = Node::new("t4:2");
    node.flags = vec!["--health-poll-seconds=1".to_owned()];
    let mut host = MpsHost::start(&node.mps_root());
    let _plugin = node.start(Mode::Process).await;
    host.until_failed("the host knows that no GPU failed", |calls| calls.len() == 1).await;
    let claims = [("whole", 0), ("other", 1)].map(|(name, gpu)| {
        let claim = NewClaim::of(name, &node.gpus.name(gpu)).config(&mps()).create(&node.api);
        (name, claim)
    });
    for (name, claim) in &claims {
        node.kubelet.prepare(claim).await.unwrap();
        until_mps_ready(&node, name, Some("MPSDaemonReady")).await;
    }
    node.gpus.change(|state| state.lose_gpu(0));
    until_mps_ready(&node, "whole", Some("MPSDaemonEnded")).await;
    host.go_away().await;
    host.come_back();
    host.until_failed("the host gets them again", |calls| calls.len() == 3).await;
    node.gpus.change(|state| {
        state.gpus[0].lost = false;
        Ok(())
    });
    until_mps_ready(&node, "whole", Some("MPSDaemonReady")).await;
    let calls = host.until_failed("the host has had all calls", |calls| calls.len() >= 4).await;
    let id = || format!("claim-{}-0", claims[0].1.uid);
    let ids = |failed: &FailedDaemons| failed.keys().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(calls.iter().map(ids).collect::<Vec<_>>(), [vec![], vec![id()], vec![id()], vec![]]);
    assert_eq!(events(&node, "MPSDaemonEnded").len(), 1);
}

/// A share of a GPU, as the scheduler counts it.
fn share(node: &Node, request: &str, gpu: usize) -> Value {
    json!({
        "request": request, "driver": DRIVER, "pool": "node-1", "device": format!("{}-mps", node.gpus.name(gpu)),
        "shareID": format!("00000000-0000-0000-0000-00000000000{gpu}"),
        "consumedCapacity": {"memory": "1Gi", "activeThreadPercentage": "10"},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_the_prepared_shares_also_without_a_call() {
    let node = Node::new("t4:1");
    let host = MpsHost::start(&node.mps_root());
    let mut plugin = node.start(Mode::Process).await;
    let claim = NewClaim::new("c").result(share(&node, "r", 0)).create(&node.api);
    node.kubelet.prepare(&claim).await.unwrap();
    let labels = format!("{{device=\"{}-mps\",strategy=\"MPS\"}}", node.gpus.name(0));
    for line in [
        format!("gpu_dra_prepared_shares{labels} 1\n"),
        format!("gpu_dra_prepared_share_memory_bytes{labels} 1073741824\n"),
        "gpu_dra_mps_daemons_observed{state=\"ready\"} 1\n".to_owned(),
        "gpu_dra_setting_restores_total{setting=\"compute_mode\",result=\"success\"} 0\n".to_owned(),
    ] {
        plugin.until_http("/metrics", |_, body| body.contains(&line).then_some(())).await;
    }
    plugin.kill().await;
    node.gpus.reboot();
    host.forget_all();
    node.api.remove(&Key { resource: Resource::ResourceClaims, namespace: NAMESPACE.to_owned(), name: claim.name });
    let plugin = node.start(Mode::Process).await;
    let nothing =
        |_, body: &str| (body.contains("gpu_dra_kubelet_registrations") && !body.contains(&labels)).then_some(());
    plugin.until_http("/metrics", nothing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_one_container_cannot_use_together_cause_a_warning() {
    let node = Node::new("t4:2");
    let _host = MpsHost::start(&node.mps_root());
    let _plugin = node.start(Mode::InProcess).await;
    let claim = NewClaim::new("two").result(share(&node, "a", 0)).result(share(&node, "b", 1)).create(&node.api);
    node.kubelet.prepare(&claim).await.unwrap();
    let recorded = |events: &[Value]| {
        events.iter().find(|event| event["reason"] == "MultipleMPSDaemons").map(|event| event["note"].clone())
    };
    let warning = node.api.until("an Event warns", Resource::Events, recorded).await;
    assert!(warning.as_str().unwrap().starts_with("Requests a and b use different MPS daemons"), "{warning}");
}

/// The Event of a reason on a claim.
async fn until_event(node: &Node, claim: &str, reason: &str) -> String {
    let recorded = |events: &[Value]| {
        let is_wanted = |event: &&Value| event["regarding"]["name"] == claim && event["reason"] == reason;
        Some(events.iter().find(is_wanted)?["note"].as_str().unwrap_or_default().to_owned())
    };
    node.api.until(&format!("the Event {reason} on claim {claim}"), Resource::Events, recorded).await
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_of_one_pod_that_one_container_cannot_use_together_cause_a_warning_on_the_last_of_them() {
    let node = Node::new("t4:2");
    let _host = MpsHost::start(&node.mps_root());
    let _plugin = node.start(Mode::InProcess).await;
    let claim = |name: &str, gpu| NewClaim::new(name).result(share(&node, "r", gpu)).create(&node.api);
    let claims = [claim("first", 0), claim("second", 0)];
    node.kubelet.prepare_all(&claims).await.unwrap();
    let text = until_event(&node, "second", "MultipleMPSShares").await;
    assert!(text.starts_with("Claims first and second of one pod are MPS shares of one GPU"), "{text}");
    node.kubelet.prepare_all(&[claim("third", 0), claim("fourth", 1)]).await.unwrap();
    let text = until_event(&node, "fourth", "MultipleMPSDaemons").await;
    assert!(text.starts_with("Claims third and fourth of one pod use different MPS daemons"), "{text}");
    assert_eq!(events(&node, "MultipleMPSShares").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_for_other_requests_does_not_keep_a_share_from_its_pod() {
    let node = Node::new("t4:2");
    let _host = MpsHost::start(&node.mps_root());
    let _plugin = node.start(Mode::InProcess).await;
    let exclusive = json!({
        "apiVersion": "resource.nvidia.com/v1beta1", "kind": "GpuConfig", "sharing": {"strategy": "Exclusive"},
    });
    let claim = NewClaim::of("mixed", &node.gpus.name(0)).result(share(&node, "preview", 1)).config(&exclusive);
    let claim = claim.create(&node.api);
    assert_eq!(node.kubelet.prepare(&claim).await.unwrap().len(), 2);
    let text = until_event(&node, "mixed", "ConfigIgnored").await;
    assert!(text.contains("request preview") && !text.contains("request gpu"), "{text}");
}
