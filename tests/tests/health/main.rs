// SPDX-License-Identifier: Apache-2.0
//! A GPU that fails is taken out, and comes back when it is proven well: taints, Events, restarts in between.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

mod budgets;
mod daemons;
mod sequences;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dra_proto::health_v1::dra_resource_health_client::DraResourceHealthClient as V1;
use dra_proto::health_v1::{HealthStatus, NodeWatchResourcesRequest, NodeWatchResourcesResponse};
use dra_proto::health_v1alpha1 as v1alpha1;
use dra_proto::health_v1alpha1::dra_resource_health_client::DraResourceHealthClient as V1Alpha1;
use dra_sim::state::Fabric;
use dra_tests::api_server::Resource;
use dra_tests::{Mode, NewClaim, Node};
use serde_json::Value;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

/// Key, value and effect of the taints of the devices of a GPU; each of its devices has the same.
fn taints(slices: &[Value], gpu: &str) -> Option<BTreeSet<(String, String, String)>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let devices = slices.iter().filter_map(|slice| slice["spec"]["devices"].as_array()).flatten();
    let of_gpu = devices.filter(|device| device["name"].as_str().is_some_and(|name| name.starts_with(gpu)));
    let of_device = |device: &Value| -> BTreeSet<(String, String, String)> {
        let taints = device["taints"].as_array().into_iter().flatten();
        taints.map(|taint| (text(&taint["key"]), text(&taint["value"]), text(&taint["effect"]))).collect()
    };
    let mut all = of_gpu.map(of_device);
    let first = all.next()?;
    all.all(|other| other == first).then_some(first)
}

fn one(key: &str, value: &str, effect: &str) -> BTreeSet<(String, String, String)> {
    [(format!("gpu.nvidia.com/{key}"), value.to_owned(), effect.to_owned())].into()
}

async fn until_taints(node: &Node, gpu: usize, wanted: &BTreeSet<(String, String, String)>) {
    let name = node.gpus.name(gpu);
    let published = |slices: &[Value]| (taints(slices, &name).as_ref() == Some(wanted)).then_some(());
    node.api.until(&format!("{name} has the taints {wanted:?}"), Resource::ResourceSlices, published).await;
}

async fn until_event(node: &Node, reason: &str, part: &str) {
    let found = |events: &[Value]| {
        let is_wanted = |event: &Value| {
            event["reason"] == reason
                && event["regarding"]["kind"] == "Node"
                && event["note"].as_str().is_some_and(|note| note.contains(part))
        };
        events.iter().any(is_wanted).then_some(())
    };
    node.api.until(&format!("the Event {reason} with {part:?}"), Resource::Events, found).await;
}

async fn until_published(node: &Node, gpus: usize) {
    let names: Vec<String> = (0..gpus).map(|gpu| node.gpus.name(gpu)).collect();
    let published = |slices: &[Value]| {
        let complete = slices.iter().all(|slice| slice["spec"]["pool"]["resourceSliceCount"] == slices.len());
        (complete && names.iter().all(|name| taints(slices, name) == Some(BTreeSet::new()))).then_some(())
    };
    node.api.until("all GPUs are published", Resource::ResourceSlices, published).await;
}

/// Waits for the condition of the device of the claim `early`.
async fn until_healthy(node: &Node, status: &str, reason: &str) {
    let published = |claims: &[Value]| {
        let claim = claims.iter().find(|claim| claim["metadata"]["name"] == "early")?;
        let conditions = claim["status"]["devices"][0]["conditions"].as_array()?;
        let is_it = |one: &Value| one["type"] == "Healthy" && one["status"] == status && one["reason"] == reason;
        conditions.iter().any(is_it).then_some(())
    };
    node.api.until(&format!("the condition Healthy is {status}"), Resource::ResourceClaims, published).await;
}

/// Generation of the pool, and the number of slices.
fn generations(node: &Node) -> (BTreeSet<String>, usize) {
    let slices = node.api.list(Resource::ResourceSlices);
    (slices.iter().map(|slice| slice["spec"]["pool"]["generation"].to_string()).collect(), slices.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_that_falls_off_the_bus_is_tainted_until_it_is_back() {
    let node = Node::new("h100:3");
    let mut plugin = node.start(Mode::Process).await;
    let _controller = node.start_controller("1");
    until_published(&node, 3).await;
    let before = generations(&node);
    let early = NewClaim::of("early", &node.gpus.name(0)).pod("train-0", "of-the-pod").create(&node.api);
    node.kubelet.prepare(&early).await.unwrap();
    until_healthy(&node, "True", "Healthy").await;
    node.gpus.change(|state| state.lose_gpu(0));
    let unusable = ("gpu.nvidia.com/unusable".to_owned(), "Failing".to_owned(), "NoSchedule".to_owned());
    let mut lost = one("gpu-lost", "lost", "NoExecute");
    lost.insert(unusable);
    until_taints(&node, 0, &lost).await;
    until_taints(&node, 1, &BTreeSet::new()).await;
    let claim = NewClaim::of("late", &node.gpus.name(0)).create(&node.api);
    let refused = node.kubelet.prepare(&claim).await.unwrap_err();
    let expect = "cannot be used: the GPU fell off the bus (XID 79); wait until the GPU is well, or delete the pod to reschedule it";
    assert!(refused.contains(expect), "{refused}");
    until_event(&node, "GpuLost", "the GPU fell off the bus (XID 79). No new claim gets it, and its pods are evicted")
        .await;
    assert_eq!(generations(&node), before, "a taint is one write of one slice");
    until_healthy(&node, "False", "GpuLost").await;
    let of_claim = |events: &[Value]| {
        let is_it = |event: &Value| event["reason"] == "GpuLost" && event["regarding"]["name"] == "early";
        events.iter().any(is_it).then_some(())
    };
    node.api.until("the Event on the claim", Resource::Events, of_claim).await;
    let of_pod = |events: &[Value]| {
        let about = |event: &Value| ["kind", "name", "uid"].map(|field| event["regarding"][field].to_string());
        let pod = ["Pod", "train-0", "of-the-pod"].map(|text| format!("\"{text}\""));
        events.iter().any(|event| event["reason"] == "GpuLost" && about(event) == pod).then_some(())
    };
    node.api.until("the Event on the pod", Resource::Events, of_pod).await;

    // A restart forgets nothing, not even while the GPU is back and not proven well.
    plugin.kill().await;
    node.gpus.change(|state| {
        state.gpus[0].lost = false;
        Ok(())
    });
    let _plugin = node.start(Mode::Process).await;
    until_taints(&node, 0, &one("gpu-lost", "lost", "NoExecute")).await;
    until_event(&node, "GpuRecovered", "is well again, it was reported before that the GPU fell off the bus (XID 79)")
        .await;
    until_taints(&node, 0, &BTreeSet::new()).await;
    until_healthy(&node, "True", "Healthy").await;
    assert_eq!(node.api.list(Resource::ResourceSlices).len(), before.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_event_is_found_by_polls() {
    let node = Node::new("h100:4,t4:1");
    node.gpus.turn_mig_on(3);
    node.gpus.change(|state| {
        state.gpus[0].memory_errors.remap_failed = true;
        for gpu in [1, 4] {
            state.gpus[gpu].memory_errors.remap_pending = true;
        }
        for gpu in [2, 3] {
            state.gpus[gpu].fabric = Fabric::Pending;
        }
        Ok(())
    });
    let _plugin = node.start(Mode::Process).await;
    let _controller = node.start_controller("1");
    until_taints(&node, 0, &one("memory", "remap-failed", "NoSchedule")).await;
    for gpu in [1, 4] {
        until_taints(&node, gpu, &one("reset-advised", "row-remap", "None")).await;
    }
    until_taints(&node, 2, &one("fabric", "pending", "NoSchedule")).await;
    until_taints(&node, 3, &BTreeSet::new()).await;
    until_event(&node, "GpuResetAdvised", "replaces a damaged row of its memory").await;
    node.gpus.change(|state| {
        state.gpus[2].fabric = Fabric::Completed;
        Ok(())
    });
    until_taints(&node, 2, &BTreeSet::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_that_is_lost_while_no_plugin_runs_stays_published() {
    let node = Node::new("h100:2");
    let mut plugin = node.start(Mode::Process).await;
    let _controller = node.start_controller("1");
    until_published(&node, 2).await;
    let generation = generations(&node);
    plugin.kill().await;
    node.gpus.change(|state| state.lose_gpu(1));
    let mut plugin = node.start(Mode::Process).await;
    let unusable = ("gpu.nvidia.com/unusable".to_owned(), "Failing".to_owned(), "NoSchedule".to_owned());
    let mut lost = one("gpu-lost", "lost", "NoExecute");
    lost.insert(unusable);
    until_taints(&node, 1, &lost).await;
    assert_eq!(generations(&node), generation, "it was published all the time");

    // A plugin that ends without a claim leaves nothing behind.
    plugin.stop().await;
    let files = || -> Vec<_> {
        let entries = std::fs::read_dir(node.dir().join("k/plugins/gpu.nvidia.com")).unwrap().flatten();
        entries.map(|entry| entry.file_name()).collect()
    };
    assert_eq!(files(), ["health.json"], "the fault of a GPU is not forgotten");
    assert!(node.start_restore().ended().await.success());
    assert!(!files().contains(&"health.json".into()), "an uninstallation leaves nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_driver_s_advice_takes_a_gpu_out_and_a_fault_of_an_application_does_not() {
    let node = Node::new("h100:2");
    let cut = node.gpus.cut(1, "3g.40gb");
    let plugin = node.start(Mode::Process).await;
    let _controller = node.start_controller("1");
    until_published(&node, 2).await;
    node.gpus.change(|state| {
        state.raise_xid(0, 31, (None, None))?;
        state.gpus[1].recovery_action = 1;
        state.raise_xid(1, 119, (None, None))
    });
    until_taints(&node, 1, &one("recovery", "gpu-reset", "NoSchedule")).await;
    let claim = NewClaim::of("late", &node.gpus.name(0)).create(&node.api);
    node.kubelet.prepare(&claim).await.unwrap();
    let (well, failed) = (node.gpus.name(0), node.gpus.name(1));
    for line in [
        format!("gpu_dra_gpu_xids_total{{device=\"{well}\",xid=\"31\"}} 1"),
        format!("gpu_dra_gpu_xids_total{{device=\"{failed}\",xid=\"119\"}} 1"),
        format!("gpu_dra_gpu_healthy{{device=\"{well}\"}} 1"),
        format!("gpu_dra_gpu_healthy{{device=\"{failed}\"}} 0"),
        format!("gpu_dra_gpu_fault{{device=\"{failed}\",cause=\"recovery\",effect=\"NoSchedule\"}} 1"),
        format!("gpu_dra_gpu_recovery_action{{device=\"{failed}\"}} 1"),
    ] {
        plugin.until_http("/metrics", |_, body| body.contains(&line).then_some(())).await;
    }
    let part = NewClaim::of("part", &cut).create(&node.api);
    let refused = node.kubelet.prepare(&part).await.unwrap_err();
    assert!(refused.contains("cannot be used: the GPU needs a reset (XID 119)"), "{refused}");
    let monitoring = NewClaim::new("monitoring").admin_device("all", &cut).create(&node.api);
    node.kubelet.prepare(&monitoring).await.unwrap();
    until_event(
        &node,
        "GpuNeedsRecovery",
        "the GPU needs a reset (XID 119). No new claim gets it, and running pods stay",
    )
    .await;
    let slices = node.api.list(Resource::ResourceSlices);
    assert_eq!(taints(&slices, &cut), Some(one("recovery", "gpu-reset", "NoSchedule")), "all forms of the GPU");
    assert_eq!(taints(&slices, &node.gpus.name(0)), Some(BTreeSet::new()));

    // An administrator needs no proof, but the GPU has the last word.
    let uuid = node.gpus.state().gpus[1].uuid.clone();
    assert!(node.clear_health(&uuid).await.success());
    until_event(&node, "GpuCleared", &uuid).await;
    until_taints(&node, 1, &one("recovery", "gpu-reset", "NoSchedule")).await;
    node.gpus.change(|state| {
        state.gpus[1].recovery_action = 0;
        Ok(())
    });
    assert!(node.clear_health("all").await.success());
    until_taints(&node, 1, &BTreeSet::new()).await;
    assert!(!node.clear_health("GPU-1").await.success());
}

async fn channel(node: &Node) -> Channel {
    let socket = node.kubelet.until_registered().await.endpoint;
    Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap().connect().await.unwrap()
}

/// Health and message of the devices, by name.
fn by_name(response: NodeWatchResourcesResponse) -> BTreeMap<String, (HealthStatus, String)> {
    let of_device = |device: dra_proto::health_v1::DeviceHealth| {
        assert_eq!(device.health_check_timeout_seconds, 30);
        let health = device.health();
        let identifier = device.device.unwrap();
        assert_eq!(identifier.pool_name, dra_tests::node::NODE);
        (identifier.device_name, (health, device.message))
    };
    response.devices.into_iter().map(of_device).collect()
}

/// As the kubelet asks: it forgets what is not sent again, so the whole state comes at the start, at a change and from time to time.
#[tokio::test(flavor = "multi_thread")]
async fn the_kubelet_gets_the_health_of_every_device() {
    let node = Node::new("h100:2");
    let plugin = node.start(Mode::Process).await;
    plugin.until_http("/readyz", |code, _| (code == 200).then_some(())).await;
    let channel = channel(&node).await;
    let mut stream =
        V1::new(channel.clone()).node_watch_resources(NodeWatchResourcesRequest {}).await.unwrap().into_inner();
    let first = by_name(stream.message().await.unwrap().unwrap());
    let (failed, well) = (node.gpus.name(0), node.gpus.name(1));
    for suffix in ["", "-mps", "-ts", "-mig-19-3"] {
        assert_eq!(
            first[&format!("{failed}{suffix}")],
            (HealthStatus::Healthy, String::new()),
            "{suffix} in {first:?}"
        );
    }
    let again = timeout(Duration::from_secs(15), stream.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(by_name(again), first, "the lease is renewed while nothing changes");
    node.gpus.change(|state| {
        state.gpus[0].recovery_action = 1;
        state.raise_xid(0, 119, (None, None))
    });
    let unhealthy = (HealthStatus::Unhealthy, "the GPU needs a reset (XID 119)".to_owned());
    let changed = loop {
        let next = by_name(timeout(Duration::from_secs(15), stream.message()).await.unwrap().unwrap().unwrap());
        if next[&failed] == unhealthy {
            break next;
        }
    };
    assert_eq!(changed[&format!("{failed}-mig-19-3")], unhealthy);
    assert_eq!(changed[&well].0, HealthStatus::Healthy);
    let request = v1alpha1::NodeWatchResourcesRequest {};
    let mut older = V1Alpha1::new(channel).node_watch_resources(request).await.unwrap().into_inner();
    let older = older.message().await.unwrap().unwrap();
    let of_failed = older.devices.iter().find(|device| device.device.as_ref().unwrap().device_name == failed).unwrap();
    assert_eq!(
        (of_failed.health(), of_failed.message.as_str()),
        (v1alpha1::HealthStatus::Unhealthy, unhealthy.1.as_str())
    );
    let (code, details) = plugin.http("/readyz").await.unwrap();
    let fault = format!("{}: the GPU needs a reset (XID 119) (taint recovery, ", node.gpus.state().gpus[0].uuid);
    assert!(code == 200 && details.starts_with("ok\nGPUs: 2, faults:\n") && details.contains(&fault), "{details}");
}
