// SPDX-License-Identifier: Apache-2.0
//! How many GPUs of a node, and nodes of the cluster, are evicted at a time.

use dra_tests::api_server::{Key, Resource, Verb};
use dra_tests::{Mode, Node};
use serde_json::{Value, json};

use super::{one, taints, until_event, until_published, until_taints};

/// A fault of the whole node must not end all of its pods.
#[tokio::test(flavor = "multi_thread")]
async fn evictions_have_a_budget() {
    let mut node = Node::new("h100:4");
    node.flags = vec!["--health-eviction-percent=50".to_owned(), "--health-rules=needsReset=Off".to_owned()];
    let _plugin = node.start(Mode::Process).await;
    let _controller = node.start_controller("1");
    until_published(&node, 4).await;
    for gpu in 0..4 {
        node.gpus.change(|state| {
            state.gpus[gpu].recovery_action = 1;
            state.raise_xid(gpu, 95, (None, None))
        });
    }
    let all_out = |slices: &[Value]| {
        let of_memory =
            |gpu| taints(slices, &node.gpus.name(gpu))?.into_iter().find(|(key, ..)| key.ends_with("/memory"));
        let effects: Vec<String> = (0..4).filter_map(of_memory).map(|(.., effect)| effect).collect();
        (effects.len() == 4).then_some(effects)
    };
    let mut effects = node.api.until("all GPUs are out", Resource::ResourceSlices, all_out).await;
    effects.sort();
    assert_eq!(effects, ["NoExecute", "NoExecute", "NoSchedule", "NoSchedule"]);
    let slices = node.api.list(Resource::ResourceSlices);
    assert_eq!(taints(&slices, &node.gpus.name(0)).map(|taints| taints.len()), Some(1), "the other fault is off");
    until_event(&node, "EvictionHeldBack", "are not evicted").await;
}

/// A fault of all nodes must not move every pod of the cluster. Each node that evicts holds a Lease.
#[tokio::test(flavor = "multi_thread")]
async fn evictions_have_a_budget_of_the_cluster() {
    let lease = |node: &Node, slot: u32, holder: Option<&str>| {
        let name = format!("gpu.nvidia.com-eviction-{slot}");
        let lease = json!({"metadata": {"name": name, "labels": {"a": "b"}}, "spec": {"holderIdentity": holder}});
        node.api.put(Resource::Leases, "default", lease)
    };
    let holders = |node: &Node| -> Vec<Value> {
        let leases = node.api.list(Resource::Leases);
        assert!(leases.iter().all(|lease| lease["metadata"]["labels"]["a"] == "b"), "what others wrote stays");
        leases.iter().map(|lease| lease["spec"]["holderIdentity"].clone()).collect()
    };
    let mut node = Node::new("h100:2");
    node.flags = vec!["--health-eviction-nodes=2".to_owned(), "--health-eviction-percent=100".to_owned()];
    let mut plugin = node.start(Mode::Process).await;
    let _controller = node.start_controller("1");
    until_published(&node, 2).await;

    node.gpus.change(|state| state.raise_xid(0, 95, (None, None)));
    until_event(
        &node,
        "EvictionHeldBack",
        "namespace default has no Lease gpu.nvidia.com-eviction-0, which the chart creates",
    )
    .await;
    until_taints(&node, 0, &one("memory", "uncontained", "NoSchedule")).await;

    for slot in 0..2 {
        lease(&node, slot, Some("another-node"));
    }
    plugin.kill().await;
    let mut plugin = node.start(Mode::Process).await;
    until_event(&node, "EvictionHeldBack", "evictions on other nodes use up the budget of the cluster, 2 nodes").await;
    until_taints(&node, 0, &one("memory", "uncontained", "NoSchedule")).await;

    node.api.remove(&Key {
        resource: Resource::Leases,
        namespace: "default".to_owned(),
        name: "gpu.nvidia.com-eviction-1".to_owned(),
    });
    lease(&node, 1, None);
    plugin.kill().await;
    let mut plugin = node.start(Mode::Process).await;
    until_taints(&node, 0, &one("memory", "uncontained", "NoExecute")).await;
    assert_eq!(holders(&node), ["another-node", dra_tests::node::NODE]);

    // The same node needs no second one, and finds its own again after a restart.
    node.gpus.change(|state| state.raise_xid(1, 95, (None, None)));
    until_taints(&node, 1, &one("memory", "uncontained", "NoExecute")).await;
    plugin.kill().await;
    let writes = node.api.writes(Resource::Leases);
    let _plugin = node.start(Mode::Process).await;
    node.api.until_requested(Verb::Update, Resource::Leases, writes + 1).await;
    until_taints(&node, 0, &one("memory", "uncontained", "NoExecute")).await;
    assert_eq!(holders(&node), ["another-node", dra_tests::node::NODE]);
}
