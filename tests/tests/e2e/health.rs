// SPDX-License-Identifier: Apache-2.0
//! A GPU that fails under a pod: the real controllers evict, the pod runs elsewhere, and the GPU is given out again when it is back.

use std::process::Command;

use crate::{
    arena::{Arena, checked},
    claims, mig, pods, sharing,
};
use dra_demo::{
    driver, published,
    scenes::{self, GpuFails},
    text,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

crate::case::cases![
    a_pod_moves_from_a_gpu_that_falls_off_the_bus_and_the_gpu_comes_back,
    a_gpu_is_taken_out_by_hand_and_returned,
    the_neighbour_of_a_mig_device_that_fails_runs_on,
    sharers_move_together_while_plugin_or_kubelet_restart,
];

const NODE: &str = "node-1";

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

/// The taints of the devices of a GPU of the node, each once.
fn taints(arena: &Arena, gpu: &str) -> BTreeSet<String> {
    let slices = checked(published::slices(&arena.cluster));
    let devices = slices.iter().filter_map(|slice| slice["spec"]["devices"].as_array()).flatten();
    let of_gpu = devices.filter(|device| text(device, "/attributes/gpuUUID/string") == gpu);
    let taints = of_gpu.filter_map(|device| device["taints"].as_array()).flatten();
    taints.map(|taint| format!("{}:{}", text(taint, "/key"), text(taint, "/effect"))).collect()
}

fn index_of(arena: &Arena, gpu: &str) -> String {
    arena.settings(NODE).into_iter().find(|setting| setting.uuid == gpu).unwrap().index
}

fn until_well(arena: &Arena, gpu: &str) {
    arena.until("the end of the taints", || taints(arena, gpu).is_empty().then_some(()));
}

fn the_neighbour_of_a_mig_device_that_fails_runs_on(arena: &Arena) {
    let small = "device.attributes['gpu.nvidia.com'].profile == '1g.10gb'";
    pods::start(arena, "victim", NODE, &mig::one(small));
    let gpu = checked(arena.stage().saw("victim")).seen.gpus[0].uuid.clone();
    let of_gpu = format!("{small} && device.attributes['gpu.nvidia.com'].gpuUUID == '{gpu}'");
    pods::start(arena, "neighbour", NODE, &mig::one(&of_gpu));
    let neighbour = checked(arena.stage().saw("neighbour")).seen;

    let created = claims::events(arena, "victim", "MigCreated").remove(0);
    let (_, id) = created.split_once("GPU instance ").unwrap();
    let (id, _) = id.split_once(',').unwrap();
    let index = index_of(arena, &gpu);
    checked(arena.node(NODE).gpu_sim("xid", &["--gpu", &index, "--gi", id, "95"]));

    let is_there = |name: &str| arena.list(&["pods"]).iter().any(|pod| text(pod, "/metadata/name") == name);
    arena.until("the eviction of the pod on the MIG device", || (!is_there("victim")).then_some(()));
    assert_eq!(taints(arena, &gpu), ["gpu.nvidia.com/memory:NoExecute".to_owned()].into());
    pods::start(arena, "newcomer", NODE, &mig::one(&of_gpu));
    checked(arena.stage().saw("newcomer"));
    assert_eq!(checked(arena.stage().saw("neighbour")).seen, neighbour);

    let driver_pod = text(&arena.driver_pod(NODE), "/metadata/name").to_owned();
    let clear = ["exec", "-n", driver::NAMESPACE, &driver_pod, "-c", "plugin", "--", "gpu-kubelet-plugin"];
    arena.kubectl(&[&clear[..], &["--clear-health", &gpu]].concat());
    until_well(arena, &gpu);
    arena.kubectl(&["delete", "resourceclaim", "victim", "--timeout=60s"]);
    for name in ["newcomer", "neighbour"] {
        pods::remove(arena, name);
    }
}

fn sharers_move_together_while_plugin_or_kubelet_restart(arena: &Arena) {
    let restart_plugin = || {
        let pod = text(&arena.driver_pod(NODE), "/metadata/name").to_owned();
        arena.kubectl(&["delete", "pod", "-n", driver::NAMESPACE, &pod, "--wait=false"]);
    };
    let restart_kubelet = || checked(arena.node(NODE).restart_kubelet());
    moves_together(arena, "mps.gpu.nvidia.com", &restart_plugin);
    moves_together(arena, sharing::TIME_SLICING, &restart_kubelet);
}

fn moves_together(arena: &Arena, class: &str, restart: &dyn Fn()) {
    let mut share = pods::gpu("device.attributes['gpu.nvidia.com'].architecture == 'Hopper'");
    share["requests"][0]["exactly"]["deviceClassName"] = json!(class);
    pods::with_deployment(arena, "sharers", 2, &share, |before| {
        let saw = checked(arena.stage().all_saw("sharers"));
        let gpus: BTreeSet<&str> = saw.iter().flat_map(|pod| pod.seen.uuids()).collect();
        assert_eq!(gpus.len(), 1, "both have a share of one GPU: {saw:?}");
        let gpu = saw[0].seen.gpus[0].uuid.clone();
        let index = index_of(arena, &gpu);
        checked(arena.node(NODE).gpu_sim("lose", &["--gpu", &index]));
        restart();
        let names: Vec<&str> = before.iter().map(|pod| text(pod, "/metadata/name")).collect();
        arena.until("both pods are replaced", || {
            let pods = arena.list(&["pods", "-l", "app=sharers"]);
            (!pods.iter().any(|pod| names.contains(&text(pod, "/metadata/name")))).then_some(())
        });
        arena.ready_pods("app=sharers", 2);
        let moved = checked(arena.stage().all_saw("sharers"));
        assert!(moved.iter().flat_map(|pod| pod.seen.uuids()).all(|uuid| uuid != gpu), "{class}: {moved:?}");
        checked(driver::wait_for_pods(&arena.cluster));
        arena.until("the reset of the GPU", || arena.node(NODE).gpu_sim("reset", &["--gpu", &index]).ok());
        until_well(arena, &gpu);
    });
}
