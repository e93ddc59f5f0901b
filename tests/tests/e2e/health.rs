// SPDX-License-Identifier: Apache-2.0
//! A GPU that fails under a pod: the real controllers evict, the pod runs elsewhere, and the GPU is given out again when it is back.

use crate::{
    arena::{Arena, checked},
    pods,
};
use dra_demo::{published, text};
use serde_json::Value;
use std::time::Instant;

crate::case::cases![a_pod_moves_from_a_gpu_that_falls_off_the_bus_and_the_gpu_comes_back];

const NODE: &str = "node-1";
const HOPPER: &str = "device.attributes['gpu.nvidia.com'].architecture == 'Hopper'";

/// The UUID of the GPU that a pod sees.
fn uuid_of(arena: &Arena, pod: &str) -> String {
    checked(arena.stage().saw(pod)).seen.gpus.first().unwrap().uuid.clone()
}

fn name(pod: &Value) -> &str {
    text(pod, "/metadata/name")
}

/// The effects of the taints of the form `gpu` of a GPU.
fn effects(arena: &Arena, uuid: &str) -> Vec<String> {
    let device = uuid.replace("GPU-", "gpu-").chars().take(12).collect::<String>();
    let slices = checked(published::slices(&arena.cluster));
    let devices = slices.iter().filter_map(|slice| slice.pointer("/spec/devices")?.as_array()).flatten();
    let it = devices.filter(|one| text(one, "/name") == device);
    let taints = it.filter_map(|device| device["taints"].as_array()).flatten();
    taints.map(|taint| format!("{}:{}", text(taint, "/key"), text(taint, "/effect"))).collect()
}

fn a_pod_moves_from_a_gpu_that_falls_off_the_bus_and_the_gpu_comes_back(arena: &Arena) {
    pods::with_deployment(arena, "worker", 1, &pods::gpu(HOPPER), |before| {
        let (first, first_uuid) = (name(&before[0]).to_owned(), uuid_of(arena, name(&before[0])));
        let query = ["--query-gpu=uuid", "--format=csv,noheader"];
        let uuids = checked(arena.node(NODE).nvidia_smi(&query));
        let index = uuids.lines().position(|line| line.trim() == first_uuid).unwrap().to_string();
        let began = Instant::now();
        checked(arena.node(NODE).gpu_sim("lose", &["--gpu", &index]));
        arena.until("the taint", || {
            effects(arena, &first_uuid).iter().any(|one| one == "gpu.nvidia.com/gpu-lost:NoExecute").then_some(())
        });
        let tainted = began.elapsed();
        let second = arena.until("another pod on another GPU", || {
            let pods = arena.list(&["pods", "-l", "app=worker"]);
            let is_other = |pod: &&Value| name(pod) != first && crate::arena::is_ready(pod);
            pods.iter().find(is_other).map(|pod| name(pod).to_owned())
        });
        println!(
            "taint after {} ms, the pod runs elsewhere after {} ms",
            tainted.as_millis(),
            began.elapsed().as_millis()
        );
        assert_ne!(uuid_of(arena, &second), first_uuid);
        let about = |reason: &str, part: &str| {
            let selector = format!("reason={reason}");
            let events = arena.list(&["events", "--all-namespaces", "--field-selector", &selector]);
            events.iter().any(|event| text(event, "/message").contains(part)).then_some(())
        };
        arena.until("the Event of the driver", || about("GpuLost", "the GPU fell off the bus (XID 79)"));
        arena.until("the Event of the eviction", || about("DeviceTaintManagerEviction", "Marking for deletion"));

        checked(arena.node(NODE).gpu_sim("reset", &["--gpu", &index]));
        arena.until("the end of the taints", || effects(arena, &first_uuid).is_empty().then_some(()));
        arena.until("the Event of the recovery", || about("GpuRecovered", "is well again"));
        let same = pods::gpu(&format!("device.attributes['gpu.nvidia.com'].uuid == '{first_uuid}'"));
        pods::start(arena, "again", NODE, &same);
        assert_eq!(uuid_of(arena, "again"), first_uuid);
        pods::remove(arena, "again");
    });
}
