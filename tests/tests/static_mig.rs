// SPDX-License-Identifier: Apache-2.0
//! The static MIG devices of a mig-parted configuration: created before anything is published, and reported on the Node.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;
use std::fs;

use dra_tests::api_server::Resource;
use dra_tests::wait::until;
use dra_tests::{Mode, NewClaim, Node};
use serde_json::Value;

/// Two GPUs of three, and nothing for a model that the node lacks.
const LAYOUTS: &str = "\
version: v1
mig-configs:
  halves:
    - devices: all
      mig-enabled: false
    - devices: [0, 1]
      mig-enabled: true
      mig-devices: {3g.40gb: 2}
    - device-filter: '0x20B510DE'
      devices: all
      mig-enabled: true
      mig-devices: {1g.10gb: 7}
  whole:
    - devices: all
      mig-enabled: false
";

fn node(boards: &str, layouts: &str, config: &str) -> Node {
    let mut node = Node::new(boards);
    let file = node.dir().join("layouts.yaml");
    fs::write(&file, layouts).unwrap();
    node.flags = vec![format!("--static-mig-file={}", file.display()), format!("--static-mig-config={config}")];
    node
}

/// Profile id, start and number of compute instances, by GPU.
fn instances(node: &Node) -> Vec<Vec<(u32, u32, usize)>> {
    let of_gpu = |gpu: &dra_sim::state::Gpu| {
        let mut all: Vec<_> =
            gpu.instances.values().map(|one| (one.profile_id, one.placement.start, one.compute.len())).collect();
        all.sort_unstable();
        all
    };
    node.gpus.state().gpus.iter().map(of_gpu).collect()
}

async fn event(node: &Node, reason: &str) -> String {
    let found = |events: &[Value]| {
        let is_wanted = |event: &&Value| event["reason"] == reason && event["regarding"]["kind"] == "Node";
        Some(events.iter().find(is_wanted)?["note"].as_str().unwrap_or_default().to_owned())
    };
    node.api.until("an Event on the Node", Resource::Events, found).await
}

#[tokio::test(flavor = "multi_thread")]
async fn gpus_are_divided_before_they_are_published() {
    let node = node("h100:3", LAYOUTS, "halves");
    let mut plugin = node.start(Mode::Process).await;
    let _controller = node.start_controller("1");
    let halves = vec![(9, 0, 1), (9, 4, 1)];
    let static_names: BTreeSet<String> =
        [0, 1].iter().flat_map(|gpu| [0, 4].map(|start| format!("{}-mig-9-{start}", node.gpus.name(*gpu)))).collect();
    let published = |slices: &[Value]| {
        let complete = slices.iter().all(|slice| slice["spec"]["pool"]["resourceSliceCount"] == slices.len());
        let devices = slices.iter().filter_map(|slice| slice["spec"]["devices"].as_array()).flatten();
        let names: BTreeSet<String> = devices.map(|device| device["name"].as_str().unwrap().to_owned()).collect();
        let generations = slices.iter().map(|slice| slice["spec"]["pool"]["generation"].as_u64()).collect::<Vec<_>>();
        (complete && names.is_superset(&static_names)).then_some((names, generations))
    };
    let (names, generations) =
        node.api.until("the static devices are published", Resource::ResourceSlices, published).await;
    assert!(generations.iter().all(|generation| *generation == Some(1)), "they were published first: {generations:?}");
    let of_gpu = |gpu: usize| names.iter().filter(|name| name.starts_with(&node.gpus.name(gpu))).count();
    assert_eq!([of_gpu(0), of_gpu(1)], [2, 2], "no whole GPU and no room for more: {names:?}");
    assert!(names.contains(&node.gpus.name(2)), "{names:?}");
    assert_eq!(instances(&node), [halves.clone(), halves.clone(), vec![]]);
    let text = event(&node, "StaticMigCreated").await;
    assert!(text.starts_with("Created static MIG devices gpu-") && text.contains("-mig-9-0, gpu-"), "{text}");

    // What an administrator destroys while the plugin runs stays so, and is created at the next start.
    node.gpus.change(|state| {
        let of_first: Vec<u32> = state.gpus[0].instances.keys().copied().collect();
        state.gpus[0].instances.remove(&of_first[0]);
        Ok(())
    });
    plugin.kill().await;
    let _plugin = node.start(Mode::Process).await;
    let wanted = [halves.clone(), halves, vec![]];
    until("the static devices are there again", || (instances(&node) == wanted).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_that_a_claim_uses_is_divided_after_it() {
    let mut node = node("h100:2", LAYOUTS, "halves");
    let flags = std::mem::take(&mut node.flags);
    let mut plugin = node.start(Mode::Process).await;
    let claim = NewClaim::of("busy", &node.gpus.name(0)).create(&node.api);
    node.kubelet.prepare(&claim).await.unwrap();
    plugin.kill().await;
    node.flags = flags;
    let _plugin = node.start(Mode::Process).await;
    let text = event(&node, "StaticMigFailed").await;
    assert!(text.contains("cannot be divided while claim default/busy uses it as a whole; delete its pods"), "{text}");
    let other_only = [vec![], vec![(9, 0, 1), (9, 4, 1)]];
    until("the other GPU is divided", || (instances(&node) == other_only).then_some(())).await;
    node.kubelet.unprepare(&claim).await.unwrap();
    let device = format!("{}-mig-9-4", node.gpus.name(0));
    let created = |events: &[Value]| {
        events.iter().any(|event| event["note"].as_str().is_some_and(|note| note.contains(&device))).then_some(())
    };
    node.api.until("the devices of the other GPU are created", Resource::Events, created).await;
    let part = NewClaim::of("part", &device).create(&node.api);
    node.kubelet.prepare(&part).await.unwrap();
    node.kubelet.unprepare(&part).await.unwrap();
    assert_eq!(instances(&node), vec![vec![(9, 0, 1), (9, 4, 1)]; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_is_invalid_stops_no_claim() {
    let node = node("h100:1", LAYOUTS, "thirds");
    let _plugin = node.start(Mode::Process).await;
    let text = event(&node, "StaticMigFailed").await;
    assert!(
        text.contains(
            "mig-configs has no configuration named \"thirds\", only \"halves\", \"whole\"; choose one of them with"
        ),
        "{text}"
    );
    let claim = NewClaim::of("c", &node.gpus.name(0)).create(&node.api);
    node.kubelet.prepare(&claim).await.unwrap();
    node.kubelet.unprepare(&claim).await.unwrap();
}
