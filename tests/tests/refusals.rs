// SPDX-License-Identifier: Apache-2.0
//! Claims that cannot be prepared: one sentence each, at the pod and at the claim, and nothing else is disturbed.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use dra_tests::api_server::{Key, Resource};
use dra_tests::claim::NAMESPACE;
use dra_tests::kubelet::Claim;
use dra_tests::{Mode, NewClaim, Node};
use serde_json::{Value, json};

/// The claim is refused with all these words; an Event says the same; nothing is left.
async fn check(node: &Node, claim: &Claim, words: &[&str]) {
    let before = node.leftovers();
    let refused = node.kubelet.prepare(claim).await.expect_err(&claim.name);
    for word in words {
        assert!(refused.contains(word), "`{word}` is not in: {refused}");
    }
    assert!(refused.starts_with(&format!("claim {NAMESPACE}/{}", claim.name)), "{refused}");
    assert!(!refused.contains('\n') && refused.len() < 1000, "not one sentence: {refused}");
    assert_eq!(node.leftovers(), before, "{refused}");
    let sentence = refused.replacen("claim", "Claim", 1);
    let is_recorded = |events: &[Value]| events.iter().any(|event| event["note"] == *sentence).then_some(());
    node.api.until("an Event with the refusal", Resource::Events, is_recorded).await;
    node.kubelet.unprepare(claim).await.unwrap();
}

fn key(claim: &Claim) -> Key {
    Key { resource: Resource::ResourceClaims, namespace: NAMESPACE.to_owned(), name: claim.name.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_that_are_gone_replaced_or_not_allocated() {
    let node = Node::new("t4:1");
    let _plugin = node.start(Mode::InProcess).await;
    let gpu = node.gpus.name(0);
    let gone = NewClaim::of("gone", &gpu).create(&node.api);
    node.api.remove(&key(&gone));
    check(&node, &gone, &["no longer exists", "delete the pod"]).await;

    let old = NewClaim::of("replaced", &gpu).create(&node.api);
    node.api.remove(&key(&old));
    let new = NewClaim::of("replaced", &gpu).create(&node.api);
    check(&node, &old, &["another claim", &new.uid, "delete the pod"]).await;

    let waiting = NewClaim::of("waiting", &gpu).create(&node.api);
    node.api.edit(&key(&waiting), |claim| claim["status"] = json!({}));
    check(&node, &waiting, &["not allocated"]).await;

    let empty = NewClaim::new("empty").create(&node.api);
    check(&node, &empty, &["names no device of this driver"]).await;
    node.kubelet.prepare(&new).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_that_are_not_here() {
    let node = Node::new("t4:1");
    let _plugin = node.start(Mode::InProcess).await;
    let result = |pool: &str, device: &str| json!({"request": "gpu", "driver": "gpu.nvidia.com", "pool": pool, "device": device});
    for (name, result, words) in [
        ("unknown", result("node-1", "gpu-00000000"), &["gpu-00000000 is not present on node node-1"][..]),
        ("malformed", result("node-1", "GPU_0"), &["status.allocation.devices.results[0].device"]),
        ("foreign", result("node-2", &node.gpus.name(0)), &["pool node-2", "this is node node-1"]),
    ] {
        let claim = NewClaim::new(name).result(result).create(&node.api);
        check(&node, &claim, words).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_device_for_two_claims() {
    let node = Node::new("t4:1");
    let _plugin = node.start(Mode::InProcess).await;
    let gpu = node.gpus.name(0);
    let holder = NewClaim::of("holder", &gpu).create(&node.api);
    let devices = node.kubelet.prepare(&holder).await.unwrap();
    let second = NewClaim::of("second", &gpu).create(&node.api);
    check(&node, &second, &[&gpu, "held by claim default/holder", "the kubelet retries"]).await;
    assert_eq!(node.own_nodes(&devices), [node.gpus.node(0)].into());

    node.kubelet.unprepare(&holder).await.unwrap();
    node.kubelet.prepare(&second).await.unwrap();
    let twice = NewClaim::new("twice").device("a", &gpu).device("b", &gpu).create(&node.api);
    check(&node, &twice, &[&gpu]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_and_the_mig_devices_on_it_exclude_each_other_whatever_the_scheduler_did() {
    let node = Node::new("h100:2");
    let _plugin = node.start(Mode::InProcess).await;
    let whole = NewClaim::of("whole", &node.gpus.name(0)).create(&node.api);
    node.kubelet.prepare(&whole).await.unwrap();
    let cut = node.gpus.cut(0, "1g.10gb");
    let inside = NewClaim::of("inside", &cut).create(&node.api);
    check(&node, &inside, &[&cut, "held by claim default/whole"]).await;

    let cut = node.gpus.cut(1, "1g.10gb");
    let part = NewClaim::of("part", &cut).create(&node.api);
    node.kubelet.prepare(&part).await.unwrap();
    let around = NewClaim::of("around", &node.gpus.name(1)).create(&node.api);
    check(&node, &around, &[&node.gpus.name(1), "MIG mode is on"]).await;

    node.kubelet.unprepare(&whole).await.unwrap();
    node.kubelet.prepare(&inside).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn configurations_that_are_not_understood() {
    let node = Node::new("t4:1");
    let _plugin = node.start(Mode::InProcess).await;
    let config = |kind: &str| json!({"apiVersion": "resource.nvidia.com/v1beta1", "kind": kind});
    let with = |field: &str, value: Value| {
        let mut config = config("GpuConfig");
        config[field] = value;
        config
    };
    let path = "status.allocation.devices.config[0].opaque.parameters";
    for (name, parameters, words) in [
        ("field", with("sharring", json!({})), &[path, "sharring", "unknown field"][..]),
        ("version", with("apiVersion", json!("resource.nvidia.com/v9")), &[path, "apiVersion", "v9"]),
        ("kind", config("ComputeDomainConfig"), &[path, "kind", "ComputeDomainConfig"]),
        ("type", with("kind", json!(3)), &[path, "kind"]),
        ("list", json!([]), &[path]),
        ("sharing", with("sharing", json!({"strategy": "Slices"})), &[path, "sharing.strategy", "Slices"]),
        // There is no MPS host on this node.
        (
            "mps",
            with("sharing", json!({"strategy": "MPS"})),
            &["mps/host.sock", "check that mps.enabled is true and the mps-host pod of this node runs"],
        ),
        ("device", config("MigDeviceConfig"), &[]),
    ] {
        let claim = NewClaim::of(name, &node.gpus.name(0)).config(&parameters).create(&node.api);
        if words.is_empty() {
            // For all requests: it is for the MIG devices among them, of which there are none.
            node.kubelet.prepare(&claim).await.unwrap();
            node.kubelet.unprepare(&claim).await.unwrap();
        } else {
            check(&node, &claim, words).await;
        }
    }
    let plain = NewClaim::of("plain", &node.gpus.name(0)).config(&config("GpuConfig")).create(&node.api);
    node.kubelet.prepare(&plain).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_of_another_namespace_is_named_in_an_event_on_the_node_only() {
    let node = Node::new("t4:1");
    let _plugin = node.start(Mode::InProcess).await;
    let holder = NewClaim::of("project", &node.gpus.name(0)).of_namespace("secret").create(&node.api);
    node.kubelet.prepare(&holder).await.unwrap();
    let claim = NewClaim::of("waits", &node.gpus.name(0)).create(&node.api);
    check(&node, &claim, &["is held by a claim of another namespace"]).await;
    let on_node = |events: &[Value]| events.iter().find(|event| event["regarding"]["kind"] == "Node").cloned();
    let event = node.api.until("an Event on the Node", Resource::Events, on_node).await;
    assert_eq!((&event["regarding"]["name"], &event["reason"]), (&json!("node-1"), &json!("DeviceBusy")), "{event}");
    assert!(event["note"].as_str().unwrap().contains("Claim secret/project blocks another claim"), "{event}");
    for event in node.api.list(Resource::Events).iter().filter(|event| event["regarding"]["namespace"] == NAMESPACE) {
        assert!(!event.to_string().contains("secret"), "{event}");
    }
}
