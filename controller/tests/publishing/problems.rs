// SPDX-License-Identifier: Apache-2.0
//! Problems of a node and its GPUs: what is published then, and the Events about it.

use dra_controller::publisher::RoundOutcome;
use dra_model::{Cause, Effect, Failure, Fault, Finding, GpuEntry, Inventory, Verdict};
use serde_json::{Value, json};

use super::api_server::{self, ApiServer};
use super::{COUNTERS, DEVICES, Running, Stepped, node, received, unavailable, without_mig};

#[tokio::test]
async fn problems_of_a_node_are_reported_once_per_change() {
    let server = ApiServer::start().await;
    let broken: Inventory =
        serde_json::from_str(include_str!("../../../driver/resource/testdata/b200-and-broken.json")).unwrap();
    let missing = Inventory::without_driver("libnvidia-ml.so.1 not found".to_owned());
    let mut controller = Running::start(&server, received(broken.clone()));
    let reported = |count: usize| move |world: &api_server::World| world.events.len() == count;
    server.until("the broken GPU is reported", reported(1)).await;
    controller.report.send_replace(unavailable());
    controller.until_not_ready().await;
    controller.report.send_replace(received(broken));
    controller.until_ready().await;
    controller.report.send_replace(received(missing));
    server.until("the missing driver is reported", reported(3)).await;
    let events = server.with(|world| world.events.clone());
    let reasons: Vec<_> = events.iter().map(|event| event["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["GPUUnavailable", "NVIDIADriverUnavailable", "GPUAvailable"]);
    let note = events[0]["note"].as_str().unwrap();
    assert!(note.starts_with("GPU 1 (GPU-") && note.contains("GPU is lost"), "{note}");
    assert_eq!(
        events[1]["note"],
        "No GPU of this node is published: libnvidia-ml.so.1 not found; install or load the NVIDIA driver, or correct \
         the driver root"
    );
    assert_eq!(events[2]["note"], format!("Resolved: {note}"));
    server.until("the empty slice is published", |world| world.slices[COUNTERS]["spec"]["devices"].is_null()).await;
}

#[tokio::test]
async fn a_gpu_in_mig_mode_without_devices_is_reported_with_advice() {
    let server = ApiServer::start().await;
    let mut controller = Running::start(&server, received(without_mig(node())));
    server.until("both GPUs are reported", |world| world.events.len() == 2).await;
    controller.until_ready().await;
    controller.report.send_replace(received(node()));
    server.until("both problems are resolved", |world| world.events.len() == 4).await;
    let events = server.with(|world| world.events.clone());
    let reasons: Vec<_> = events.iter().map(|event| event["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["MIGDevicesMissing", "MIGDevicesMissing", "MIGDevicesFound", "MIGDevicesFound"]);
    let cut: Vec<_> = node().usable_gpus().filter(|gpu| !gpu.mig_devices().is_empty()).cloned().collect();
    for gpu in cut {
        let (uuid, pci) = (&gpu.uuid, gpu.pci);
        let expect = format!(
            "{uuid} at {pci} has no devices: MIG mode is enabled, but no MIG device exists; on the node, create MIG devices with \
             `nvidia-smi mig -i {pci} -cgi PROFILES -C`, or disable MIG mode with `nvidia-smi -i {pci} -mig 0`"
        );
        assert_eq!(events.iter().filter(|event| event["note"] == expect).count(), 1, "{events:?}");
    }
}

#[tokio::test]
async fn unanswered_nvml_queries_are_reported_with_fitting_advice() {
    let server = ApiServer::start().await;
    let mut inventory = node();
    inventory.gpus.truncate(4);
    let uuids: Vec<_> = inventory.usable_gpus().map(|gpu| gpu.uuid.clone()).collect();
    for (entry, (index, fault)) in inventory.gpus.iter_mut().zip([(0, Fault::Unsupported), (1, Fault::Denied)]) {
        let failure = Failure { reason: format!("{fault:?}"), fault };
        *entry = GpuEntry::Unidentified { index, uuid: None, pci: None, failure };
    }
    let GpuEntry::Known { gpu, .. } = &mut inventory.gpus[2] else { panic!("it is known") };
    (gpu.product_name, gpu.compute_capability, gpu.memory) = (None, None, None);
    let mut controller = Running::start(&server, received(inventory));
    controller.until_ready().await;
    server.until("all problems are reported", |world| world.events.len() == 3).await;
    let events = server.with(|world| world.events.clone());
    let notes: Vec<_> = events.iter().map(|event| event["note"].as_str().unwrap()).collect();
    assert!(notes.iter().all(|note| !note.contains("reset or replace")), "{notes:?}");
    let missing_details = events.iter().find(|event| event["reason"] == "GPUDetailsMissing").unwrap();
    let note = missing_details["note"].as_str().unwrap();
    assert!(note.starts_with(uuids[2].as_str()), "{note}");
    for what in ["productName is Unknown", "cudaComputeCapability", "memory", "needs no reset"] {
        assert!(note.contains(what), "{note}");
    }
    let devices = server.with(|world| world.slices[DEVICES]["spec"]["devices"].clone());
    let mut gpus = devices.as_array().unwrap().iter().map(|device| &device["attributes"]["gpuUUID"]["string"]);
    assert!(gpus.any(|gpu| gpu == uuids[2].as_str()), "{devices}");
}

/// Its running pods stay, and no new claim gets it.
#[tokio::test]
async fn a_gpu_that_cannot_be_read_is_tainted_or_left_out_where_taints_are_dropped() {
    let tainted = json!([{ "key": "gpu.nvidia.com/unusable", "value": "Failing", "effect": "NoSchedule" }]);
    let left_out = "and is not published, because the API server v1.37.0 drops taints of devices; enable its feature gate \
                    DRADeviceTaints";
    for (dropped, expect, effect) in
        [(&[][..], vec![tainted], "and gets no new claims"), (&["taints"], vec![], left_out)]
    {
        let server = ApiServer::start().await;
        server.with(|world| world.dropped = dropped);
        let mut inventory = node();
        let GpuEntry::Known { gpu, .. } = inventory.gpus[0].clone() else { panic!("it is known") };
        let failure = Failure { reason: "GPU is lost".to_owned(), fault: Fault::Failing };
        inventory.gpus[0] = GpuEntry::unusable(gpu.clone(), failure);
        let mut controller = Running::start(&server, received(inventory.clone()));
        controller.until_ready().await;
        let devices = server.with(|world| world.slices[DEVICES]["spec"]["devices"].clone());
        let of_gpu = |device: &&Value| device["attributes"]["gpuUUID"]["string"] == gpu.uuid.as_str();
        let taints: Vec<Value> =
            devices.as_array().unwrap().iter().filter(of_gpu).map(|device| device["taints"].clone()).collect();
        assert_eq!(taints, expect);
        server.until("the GPU is reported", |world| !world.events.is_empty()).await;
        let note = server.with(|world| world.events[0]["note"].clone());
        let advice = "reset or replace the GPU";
        assert_eq!(note, format!("GPU 0 ({}, {}) failed {effect}: GPU is lost; {advice}", gpu.uuid, gpu.pci));
        let round = Stepped::new(&server, received(inventory)).round().await.unwrap();
        assert_eq!(round, RoundOutcome::UpToDate { writes: 0 });
    }
}

/// Before the first fault, so that an administrator can act in time.
#[tokio::test]
async fn a_server_without_taints_is_reported_and_gets_what_else_there_is() {
    for (minor, dropped, why) in [
        (35, &[][..], "the API server is v1.35.0, and taints of devices need Kubernetes 1.36; upgrade Kubernetes"),
        (37, &["taints"], "the API server v1.37.0 drops taints of devices; enable its feature gate DRADeviceTaints"),
    ] {
        let server = ApiServer::start().await;
        server.with(|world| (world.minor, world.dropped) = (minor, dropped));
        let mut controller = Running::start(&server, received(node()));
        controller.until_ready().await;
        let is_it = |event: &&Value| event["reason"] == "DeviceTaintsUnavailable";
        server.until("the Event is recorded", |world| world.events.iter().any(|event| is_it(&event))).await;
        let note = server.with(|world| world.events.iter().find(is_it).unwrap()["note"].clone());
        let effect = "claims for it fail when their pods start, and its pods are not evicted";
        assert_eq!(note, format!("Slices do not show that a GPU failed: {effect}: {why}"));

        let mut failed = node();
        let gpu = failed.usable_gpus().next().unwrap().uuid.clone();
        failed.findings.insert(gpu, vec![lost()]);
        controller.report.send_replace(received(failed.clone()));
        let round = Stepped::new(&server, received(failed)).round().await.unwrap();
        assert_eq!(round, RoundOutcome::UpToDate { writes: 0 }, "the fault changes no slice");
    }
}

fn lost() -> Finding {
    Finding {
        cause: Cause::GpuLost,
        value: "lost".to_owned(),
        effect: Effect::NoExecute,
        verdict: Verdict::Unhealthy,
        scope: None,
        message: "the GPU fell off the bus".to_owned(),
        since: 1,
    }
}
