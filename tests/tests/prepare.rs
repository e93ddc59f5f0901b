// SPDX-License-Identifier: Apache-2.0
//! What a pod gets for its claim, and what is left when it is gone.
#![expect(clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;
use std::fs;

use dra_tests::api_server::{Key, Resource, Verb};
use dra_tests::claim::NAMESPACE;
use dra_tests::kubelet::Device;
use dra_tests::{Mode, NewClaim, Node};
use serde_json::{Value, json};

fn names(devices: &[Device]) -> BTreeSet<&str> {
    devices.iter().map(|device| device.device_name.as_str()).collect()
}

/// The statuses the claim shows its user.
async fn statuses(node: &Node, claim: &str, count: usize) -> Vec<Value> {
    let written = |claims: &[Value]| {
        let found = claims.iter().find(|object| object["metadata"]["name"] == claim)?;
        found["status"]["devices"].as_array().filter(|devices| devices.len() == count).cloned()
    };
    node.api.until("the claim shows its devices", Resource::ResourceClaims, written).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_gpu_comes_with_its_node_the_drivers_files_and_an_identity() {
    let node = Node::new("h100:2");
    let _plugin = node.start(Mode::Process).await;
    let claim = NewClaim::of("train", &node.gpus.name(1)).create(&node.api);
    let devices = node.kubelet.prepare(&claim).await.unwrap();
    assert_eq!(devices.len(), 1);
    assert_eq!(devices[0].request_names, ["gpu"]);
    assert_eq!((devices[0].pool_name.as_str(), devices[0].device_name.clone()), ("node-1", node.gpus.name(1)));

    assert_eq!(node.own_nodes(&devices), [node.gpus.node(1)].into());
    let container = node.container(&devices);
    assert!(container.nodes.contains("/dev/nvidiactl") && container.nodes.contains("/dev/nvidia-uvm"));
    for wanted in ["libcuda.so.1", "libnvidia-ml.so.1", "nvidia-smi"] {
        assert!(container.mounts.iter().any(|(_, inside)| inside.ends_with(wanted)), "{wanted}: {container:?}");
    }

    let found = statuses(&node, "train", 1).await;
    assert_eq!(found[0]["device"], node.gpus.name(1));
    assert_eq!(found[0]["data"]["uuid"], node.gpus.state().gpus[1].uuid, "{found:?}");
    let prepared = |events: &[Value]| {
        events.iter().find(|event| event["reason"] == "DevicesPrepared").map(|event| event["note"].clone())
    };
    let sentence = node.api.until("an Event says so", Resource::Events, prepared).await;
    let (name, uuid) = (node.gpus.name(1), &node.gpus.state().gpus[1].uuid);
    assert_eq!(sentence, format!("Prepared {name} (NVIDIA H100 80GB HBM3, {uuid}) on node node-1"));

    node.kubelet.unprepare(&claim).await.unwrap();
    assert_eq!(node.leftovers(), [].into());
}

/// Three pods, one after another: each time the claim is allocated anew, to the same device.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_allocated_again_shows_its_device_and_an_event_again() {
    let node = Node::new("t4:1");
    let _plugin = node.start(Mode::InProcess).await;
    let claim = NewClaim::of("reused", &node.gpus.name(0)).create(&node.api);
    let key = Key { resource: Resource::ResourceClaims, namespace: NAMESPACE.to_owned(), name: claim.name.clone() };
    for pod in 1..=3 {
        node.kubelet.prepare(&claim).await.unwrap();
        statuses(&node, "reused", 1).await;
        let recorded = |events: &[Value]| {
            let recorded = events.iter().filter(|event| event["reason"] == "DevicesPrepared").count();
            (recorded == pod).then_some(())
        };
        node.api.until(&format!("an Event for pod {pod}"), Resource::Events, recorded).await;
        node.kubelet.unprepare(&claim).await.unwrap();
        let mut allocation = Value::Null;
        let deallocated = node.api.edit(&key, |claim| allocation = claim["status"]["allocation"].take());
        assert!(deallocated["status"]["devices"].is_null(), "{deallocated}");
        node.api.edit(&key, |claim| claim["status"]["allocation"] = allocation);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_with_a_mig_device_has_only_the_capabilities_of_that_device() {
    let node = Node::new("h100:1");
    let (small, large) = (node.gpus.cut(0, "1g.10gb"), node.gpus.cut(0, "3g.40gb"));
    let _plugin = node.start(Mode::Process).await;
    let mut capabilities = BTreeSet::new();
    for device in [&small, &large] {
        let claim = NewClaim::of(device, device).create(&node.api);
        let devices = node.kubelet.prepare(&claim).await.unwrap();
        let nodes = node.own_nodes(&devices);
        assert!(nodes.contains(&node.gpus.node(0)), "{nodes:?}");
        assert_eq!(nodes.len(), 3, "the GPU, its GPU instance and its compute instance: {nodes:?}");
        capabilities.extend(nodes);
        let found = statuses(&node, device, 1).await;
        assert_eq!(found[0]["data"]["parentUUID"], node.gpus.state().gpus[0].uuid, "{found:?}");
    }
    assert_eq!(capabilities.len(), 5, "one node is common, no capability is: {capabilities:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_several_requests_and_first_available_keep_their_requests_apart() {
    let node = Node::new("t4:4");
    let _plugin = node.start(Mode::InProcess).await;
    let name = |gpu| node.gpus.name(gpu);
    let claim = NewClaim::new("mixed").device("two", &name(0)).device("two", &name(1)).device("any/large", &name(2));
    let other = json!({"request": "net", "driver": "nic.example.com", "pool": "node-1", "device": "eth0"});
    let claim = claim.result(other).create(&node.api);
    let devices = node.kubelet.prepare(&claim).await.unwrap();
    let of = |request: &str| {
        let asked = devices.iter().filter(|device| device.request_names == [request]).cloned().collect::<Vec<_>>();
        node.own_nodes(&asked)
    };
    assert_eq!(of("two"), [node.gpus.node(0), node.gpus.node(1)].into());
    assert_eq!(of("any"), [node.gpus.node(2)].into());
    assert_eq!(devices.len(), 3, "results of other drivers are theirs: {devices:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_of_several_pods_gives_the_same_answer_and_is_repaired() {
    let node = Node::new("t4:2");
    let _plugin = node.start(Mode::InProcess).await;
    let claim = NewClaim::of("shared", &node.gpus.name(0)).create(&node.api);
    let first = node.kubelet.prepare(&claim).await.unwrap();
    let container = node.container(&first);
    assert_eq!(node.kubelet.prepare(&claim).await.unwrap(), first);
    for entry in fs::read_dir(node.cdi_dir()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert_eq!(node.kubelet.prepare(&claim).await.unwrap(), first);
    assert_eq!(node.container(&first), container);
    assert_eq!(node.api.requests(Verb::Get, Resource::ResourceClaims), 1, "a repeated call reads no claim");
}

#[tokio::test(flavor = "multi_thread")]
async fn monitoring_can_use_a_held_gpu_and_holds_none() {
    let node = Node::new("t4:1");
    let _plugin = node.start(Mode::InProcess).await;
    let gpu = node.gpus.name(0);
    let monitor = NewClaim::new("monitor").admin_device("gpu", &gpu).create(&node.api);
    let devices = node.kubelet.prepare(&monitor).await.unwrap();
    assert_eq!(node.own_nodes(&devices), [node.gpus.node(0)].into());
    let user = NewClaim::of("user", &gpu).create(&node.api);
    node.kubelet.prepare(&user).await.unwrap();
    let second = NewClaim::new("second").admin_device("gpu", &gpu).create(&node.api);
    node.kubelet.prepare(&second).await.unwrap();
    node.kubelet.unprepare(&monitor).await.unwrap();
    assert_eq!(node.own_nodes(&node.kubelet.prepare(&user).await.unwrap()), [node.gpus.node(0)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_claim_of_a_call_has_an_answer_of_its_own() {
    let node = Node::new("t4:8");
    let _plugin = node.start(Mode::Process).await;
    let mut claims: Vec<_> =
        (0..8).map(|gpu| NewClaim::of(&format!("c{gpu}"), &node.gpus.name(gpu)).create(&node.api)).collect();
    claims.push(NewClaim::of("wrong", "gpu-00000000").create(&node.api));
    let answers = node.kubelet.prepare_all(&claims).await.unwrap();
    let prepared: Vec<Device> = answers.values().flatten().flatten().cloned().collect();
    assert_eq!(names(&prepared).len(), 8);
    assert_eq!(node.own_nodes(&prepared).len(), 8);
    assert_eq!(answers.values().filter(|answer| answer.is_err()).count(), 1);
    let undone = node.kubelet.unprepare_all(&claims).await.unwrap();
    assert!(undone.values().all(Result::is_ok), "{undone:?}");
    assert_eq!(node.leftovers(), [].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_start_at_once_with_one_claim_wait_for_each_other() {
    let node = Node::new("t4:1");
    let _plugin = node.start(Mode::InProcess).await;
    let claim = NewClaim::of("shared", &node.gpus.name(0)).create(&node.api);
    let calls = (0..8).map(|_| node.kubelet.prepare(&claim));
    let answers = futures::future::join_all(calls).await;
    assert_eq!(answers[0].as_ref().unwrap().len(), 1);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(node.leftovers().len(), 2);
}
