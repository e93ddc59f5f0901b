// SPDX-License-Identifier: Apache-2.0
//! A GPU that fails under a pod: the real controllers evict, the pod runs elsewhere, and the GPU is given out again when it is back.

use crate::{
    arena::{Arena, checked},
    pods,
};
use dra_demo::scenes::{self, GpuFails};

crate::case::cases![a_pod_moves_from_a_gpu_that_falls_off_the_bus_and_the_gpu_comes_back];

fn a_pod_moves_from_a_gpu_that_falls_off_the_bus_and_the_gpu_comes_back(arena: &Arena) {
    let played = checked(scenes::gpu_fails(&arena.stage()));
    let GpuFails { before, failed, taints, tainted_after, moved, moved_after, events, .. } = &played;
    println!(
        "taint after {} ms, the pod runs elsewhere after {} ms",
        tainted_after.as_millis(),
        moved_after.as_millis()
    );
    assert!(taints.contains(&"gpu.nvidia.com/gpu-lost=lost:NoExecute".to_owned()), "{taints:?}");
    let gpus: Vec<&String> = moved.seen.gpus.iter().map(|gpu| &gpu.uuid).collect();
    assert!(gpus.len() == 1 && gpus[0] != failed && gpus[0] != &before[1].seen.gpus[0].uuid, "{played}");
    let texts: Vec<&str> = events.iter().map(|(_, text)| text.as_str()).collect();
    assert!(
        texts[0].contains("the GPU fell off the bus (XID 79)") && texts[1].contains("Marking for deletion"),
        "{texts:?}"
    );
    let same = pods::gpu(&format!("device.attributes['gpu.nvidia.com'].uuid == '{failed}'"));
    pods::start(arena, "again", "node-1", &same);
    assert_eq!(&checked(arena.stage().saw("again")).seen.gpus[0].uuid, failed);
    pods::remove(arena, "again");
}
