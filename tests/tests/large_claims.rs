// SPDX-License-Identifier: Apache-2.0
//! Claims as large as an API server takes them, many at once: they fill no memory, and the error names the reason.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use std::fs;

use dra_tests::api_server::{Key, Resource};
use dra_tests::claim::NAMESPACE;
use dra_tests::kubelet::Claim;
use dra_tests::node::DRIVER;
use dra_tests::program::Program;
use dra_tests::{Mode, NewClaim, Node};
use serde_json::{Value, json};

/// In one call, as of one pod.
const LARGE: usize = 8;

/// Of the process, in MiB, far below the 256 MiB that the chart gives it.
const MAX_MEMORY: u64 = 64;

/// A configuration of nearly 10 KiB, which is the most that the API takes, and many times that as values.
fn large() -> Value {
    let items = vec![0; 4800];
    json!({"apiVersion": "resource.nvidia.com/v1beta1", "kind": "GpuConfig", "a": items})
}

/// As many of them as the API takes: 32 in the spec, and those of the classes too in the allocation.
fn large_claim(node: &Node, name: &str, parameters: &Value) -> Claim {
    let new = (0..64).fold(NewClaim::of(name, &node.gpus.name(0)), |new, _| new.config(parameters));
    let claim = new.create(&node.api);
    let config = vec![json!({"opaque": {"driver": DRIVER, "parameters": parameters}}); 32];
    let key = Key { resource: Resource::ResourceClaims, namespace: NAMESPACE.to_owned(), name: name.to_owned() };
    node.api.edit(&key, |claim| claim["spec"]["devices"]["config"] = json!(config));
    claim
}

/// The most memory a process ever had, in MiB.
fn peak(plugin: &Program) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", plugin.process_id().unwrap())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim_end_matches("kB").trim().parse::<u64>().unwrap() >> 10
}

#[tokio::test(flavor = "multi_thread")]
async fn many_large_claims_fill_no_memory_and_their_errors_name_the_reason() {
    let node = Node::new("t4:1");
    let plugin = node.start(Mode::Process).await;
    let claims: Vec<Claim> = (0..LARGE).map(|at| large_claim(&node, &format!("large-{at}"), &large())).collect();
    let answers = node.kubelet.prepare_all(&claims).await.unwrap();
    for (claim, answer) in claims.iter().map(|claim| (claim, &answers[&claim.uid])) {
        let text = answer.as_ref().unwrap_err();
        assert!(text.starts_with(&format!("claim default/{}: ", claim.name)), "{text}");
        assert!(text.contains("a is an unknown field of GpuConfig"), "{text}");
    }
    assert!(peak(&plugin) < MAX_MEMORY, "{} MiB", peak(&plugin));
}

/// No API server stores one, but JSON may make it of what it stores.
#[tokio::test(flavor = "multi_thread")]
async fn the_error_of_a_claim_that_is_too_large_names_the_limit() {
    let node = Node::new("t4:1");
    let plugin = node.start(Mode::Process).await;
    let claim = large_claim(&node, "huge", &json!({"a": "x".repeat(120 << 10)}));
    let text = node.kubelet.prepare(&claim).await.unwrap_err();
    assert!(text.contains("default/huge") && text.contains("the claim has more than 10240 KiB as JSON"), "{text}");
    assert!(peak(&plugin) < MAX_MEMORY, "{} MiB", peak(&plugin));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_valid_claim_is_prepared_and_has_a_status() {
    let node = Node::new("t4:1");
    let _plugin = node.start(Mode::Process).await;
    let parameters = json!({"apiVersion": "resource.nvidia.com/v1beta1", "kind": "GpuConfig"});
    let claim = large_claim(&node, "large", &parameters);
    let key = Key { resource: Resource::ResourceClaims, namespace: NAMESPACE.to_owned(), name: claim.name.clone() };
    node.api.edit(&key, |claim| claim["metadata"]["annotations"] = json!({"a": "x".repeat(250 << 10)}));
    node.kubelet.prepare(&claim).await.unwrap();
    let written = |claims: &[Value]| claims[0]["status"]["devices"].as_array().map(drop);
    node.api.until("the claim shows its device", Resource::ResourceClaims, written).await;
}
