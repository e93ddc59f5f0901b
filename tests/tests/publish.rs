// SPDX-License-Identifier: Apache-2.0
//! What the plugin finds is what the controller publishes, through every restart. The controller's own tests have the
//! rest.
#![expect(clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use dra_tests::api_server::{Key, Resource, Verb};
use dra_tests::program::Program;
use dra_tests::{Mode, NewClaim, Node};
use serde_json::Value;
use tokio::time::interval;

/// Longer than every delay of plugin and controller, so that each has grown to its longest.
const LONG_ABSENCE: Duration = Duration::from_mins(1);
/// The longest delay between two tries is five seconds; the rest is for the work and a busy machine.
const CAUGHT_UP: Duration = Duration::from_secs(8);

/// The hardware that is published and exists, without the further forms in which whole GPUs are.
fn devices(slices: &[Value]) -> BTreeMap<String, Value> {
    let devices = slices.iter().filter_map(|slice| slice["spec"]["devices"].as_array()).flatten();
    let is_partition = |device: &Value| device["attributes"]["uuid"]["string"] == "Unknown";
    let is_shared = |device: &Value| device["attributes"]["type"]["string"] == "shared-gpu";
    let hardware = devices.filter(|device| !is_shared(device) && !is_partition(device));
    hardware.map(|device| (device["name"].as_str().unwrap_or_default().to_owned(), device.clone())).collect()
}

async fn until_published(node: &Node, wanted: &[String]) -> BTreeMap<String, Value> {
    let wanted: BTreeSet<&String> = wanted.iter().collect();
    let published = |slices: &[Value]| {
        let devices = devices(slices);
        let complete = slices.iter().all(|slice| slice["spec"]["pool"]["resourceSliceCount"] == slices.len());
        (complete && devices.keys().collect::<BTreeSet<_>>() == wanted).then_some(devices)
    };
    node.api.until(&format!("exactly {wanted:?} are published"), Resource::ResourceSlices, published).await
}

async fn until_ready(controller: &Program) {
    controller.until_http("/readyz", |code, _| (code == 200).then_some(())).await;
}

/// Names and contents, without what the API server adds.
fn specs(node: &Node) -> BTreeMap<String, Value> {
    let slices = node.api.list(Resource::ResourceSlices).into_iter();
    slices.map(|slice| (slice["metadata"]["name"].to_string(), slice["spec"].clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn gpus_and_mig_devices_are_published_as_they_are_and_as_they_change() {
    let node = Node::new("h100:2,t4:1");
    let cut = node.gpus.cut(1, "1g.10gb");
    let _plugin = node.start(Mode::Process).await;
    let _controller = node.start_controller("1");
    let published = until_published(&node, &[node.gpus.name(0), node.gpus.name(2), cut.clone()]).await;
    let state = node.gpus.state();
    let attribute = |device: &str, name: &str| published[device]["attributes"][name].clone();
    assert_eq!(attribute(&node.gpus.name(0), "uuid")["string"], state.gpus[0].uuid);
    assert_eq!(attribute(&cut, "parentUUID")["string"], state.gpus[1].uuid);
    assert_eq!(attribute(&cut, "profile")["string"], "1g.10gb");
    assert_eq!(attribute(&node.gpus.name(2), "resource.kubernetes.io/pciBusID")["string"], state.gpus[2].pci.address());
    assert_eq!(published[&cut]["consumesCounters"].as_array().map(Vec::len), Some(1), "MIG devices share their GPU");

    let second = node.gpus.cut(1, "2g.20gb");
    let first = node.gpus.cut(0, "7g.80gb");
    until_published(&node, &[first, node.gpus.name(2), cut, second]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_of_plugin_and_controller_write_nothing_and_one_of_the_kubelet_brings_everything_back() {
    let node = Node::new("h100:1,t4:1");
    let devices = [node.gpus.name(0), node.gpus.name(1)];
    let mut plugin = node.start(Mode::Process).await;
    let mut controller = node.start_controller("1");
    until_published(&node, &devices).await;
    until_ready(&controller).await;
    let (before, writes) = (specs(&node), node.api.writes(Resource::ResourceSlices));

    plugin.kill().await;
    controller.until_http("/readyz", |code, _| (code == 503).then_some(())).await;
    controller.until_logged("no connection to the kubelet plugin").await;
    plugin = node.start(Mode::Process).await;
    until_ready(&controller).await;
    controller.kill().await;
    controller = node.start_controller("1");
    until_ready(&controller).await;
    assert_eq!(node.api.writes(Resource::ResourceSlices), writes, "nothing changed, so nothing is written");
    assert_eq!(specs(&node), before);

    // A kubelet that starts removes the slices of its node and registers every plugin anew.
    for slice in node.api.list(Resource::ResourceSlices) {
        let name = slice["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        node.api.remove(&Key { resource: Resource::ResourceSlices, namespace: String::new(), name });
    }
    node.kubelet.restart();
    until_published(&node, &devices).await;
    let mut again = specs(&node);
    for (spec, old) in again.values_mut().zip(before.values()) {
        spec["pool"]["generation"] = old["pool"]["generation"].clone();
    }
    assert_eq!(again, before);
    assert!(controller.stop().await && plugin.stop().await, "{}{}", controller.log(), plugin.log());
    let log = controller.log();
    let troubles: Vec<&str> = log.lines().filter(|line| !line.contains(" INFO ")).collect();
    for line in troubles {
        assert_eq!(line.matches("(os error ").count(), 1, "one cause, said once: {line}");
    }
}

/// The one test that takes a minute; it is the only way to see the longest delays of real programs.
#[tokio::test(flavor = "multi_thread")]
async fn a_minute_without_an_api_server_is_caught_up_with_in_seconds_and_leaks_nothing() {
    let mut node = Node::new("h100:3");
    let [held, wanted, changed] = [0, 1, 2].map(|gpu| node.gpus.name(gpu));
    let mut plugin = node.start(Mode::Process).await;
    let mut controller = node.start_controller("1");
    until_published(&node, &[held.clone(), wanted.clone(), changed]).await;
    let [first, second] = [("first", &held), ("second", &wanted)].map(|(name, gpu)| NewClaim::of(name, gpu));
    let (first, second) = (first.create(&node.api), second.create(&node.api));
    let devices = node.kubelet.prepare(&first).await.unwrap();
    let before = node.leftovers();

    node.api.go_down().await;
    let cut = node.gpus.cut(2, "1g.10gb");
    let away = Instant::now();
    let mut pod_syncs = interval(Duration::from_secs(2));
    while away.elapsed() < LONG_ABSENCE {
        pod_syncs.tick().await;
        let error = node.kubelet.prepare(&second).await.unwrap_err();
        assert!(error.contains("Connection refused") && error.contains("the kubelet retries"), "{error}");
        assert_eq!(node.kubelet.prepare(&first).await.unwrap(), devices, "a claim that is ready needs no API server");
        assert_eq!(node.leftovers(), before, "a prepare that failed leaves nothing");
    }

    node.api.come_up();
    let back = Instant::now();
    node.kubelet.prepare(&second).await.unwrap();
    until_published(&node, &[held, wanted, cut]).await;
    assert!(back.elapsed() < CAUGHT_UP, "{:?}", back.elapsed());
    // Said when the watch has lasted for a while, not when the slices are right.
    controller.until_logged("watched again").await;
    until_ready(&controller).await;
    assert_eq!(node.api.requests(Verb::Update, Resource::ResourceSlices), 1, "one slice changed, once");
    for claim in [&first, &second] {
        node.kubelet.unprepare(claim).await.unwrap();
    }
    assert_eq!(node.leftovers(), [].into());
    assert!(controller.stop().await && plugin.stop().await);
    let warnings = controller.log().lines().filter(|line| !line.contains(" INFO ")).count();
    assert_eq!(warnings, 2, "one for the watch and one for the slices: {}", controller.log());
}
