// SPDX-License-Identifier: Apache-2.0
//! A GPU that fails under a pod: the real controllers evict, the pod runs elsewhere, and the GPU is given out again when it is back.

use std::process::Command;

use crate::{
    arena::{Arena, checked},
    pods,
};
use dra_demo::scenes::{self, GpuFails};
use serde_json::Value;

crate::case::cases![
    a_pod_moves_from_a_gpu_that_falls_off_the_bus_and_the_gpu_comes_back,
    a_gpu_is_taken_out_by_hand_and_returned,
];

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

/// The commands that the chart's README prints below a heading.
fn commands(heading: &str) -> Vec<String> {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/chart/README.md")).unwrap();
    let section = readme.split("\n## ").find(|section| section.starts_with(heading)).unwrap().to_owned();
    let fences = section.split("```sh\n").skip(1);
    fences.map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// Runs a printed command with other values of its variables.
fn run(arena: &Arena, command: &str, variables: &str) -> String {
    let script = command.replacen("GPU=GPU-... EFFECT=None", "", 1);
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", &format!("{variables}\n{script}")]);
    let output = arena.cluster.equip(&mut shell).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn a_gpu_is_taken_out_by_hand_and_returned(arena: &Arena) {
    let commands = commands("Take a GPU out of service");
    let [apply, count, remove] = &commands[..] else { panic!("{commands:?}") };
    pods::start(arena, "victim", "node-1", &pods::gpu(""));
    let gpu = checked(arena.stage().saw("victim")).seen.gpus[0].uuid.clone();
    run(arena, apply, &format!("GPU={gpu} EFFECT=None"));
    let variables = format!("GPU={gpu}");
    arena.until("the dry run counts the pod", || {
        run(arena, count, &variables).contains("1 pod would be evicted in 1 namespace").then_some(())
    });
    assert_eq!(arena.list(&["pods"]).iter().filter(|pod| pod["metadata"]["name"] == "victim").count(), 1);

    run(arena, apply, &format!("GPU={gpu} EFFECT=NoExecute"));
    arena.until("the pod is deleted", || {
        let is_victim = |pod: &Value| pod["metadata"]["name"] == "victim";
        (!arena.list(&["pods"]).iter().any(is_victim)).then_some(())
    });
    arena.kubectl(&["delete", "resourceclaim", "victim", "--timeout=60s"]);
    let same = pods::gpu(&format!("device.attributes['gpu.nvidia.com'].uuid == '{gpu}'"));
    pods::start(arena, "waits", "node-1", &same);
    arena.until("the scheduler passes over the GPU", || {
        let pod = arena.list(&["pods"]).into_iter().find(|pod| pod["metadata"]["name"] == "waits")?;
        let conditions = pod["status"]["conditions"].as_array()?;
        conditions.iter().any(|one| one["reason"] == "Unschedulable").then_some(())
    });
    run(arena, remove, &variables);
    assert_eq!(checked(arena.stage().saw("waits")).seen.gpus[0].uuid, gpu);
    pods::remove(arena, "waits");
}
