// SPDX-License-Identifier: Apache-2.0
//! Every scene of the demo as an assertion.

use crate::arena::{Arena, checked};
use dra_demo::{published::Device, scenes};
use dra_model::Bytes;
use std::{collections::BTreeSet, time::Duration};

crate::case::cases![
    every_node_publishes_its_gpus,
    a_pod_gets_one_gpu_by_a_template,
    an_idle_gpu_is_divided_for_three_pods_and_whole_again_after_them,
    mig_devices_an_administrator_makes_are_published_within_two_seconds measures,
    a_mig_device_is_claimed_by_its_profile,
    ten_pods_get_ten_different_gpus_on_both_nodes,
    a_gpu_is_claimed_by_model_and_memory,
    two_pods_share_one_claim,
    an_old_deployment_gets_its_gpu_without_a_claim,
    several_requests_reach_their_containers,
    three_namespaces_share_a_gpu_by_mps_with_limits,
    four_pods_share_a_gpu_by_time_slicing_beside_a_pod_with_a_gpu_of_its_own,
    pods_of_a_claim_share_its_mps_daemon_on_a_gpu_and_on_a_mig_device,
    a_claim_requests_a_longer_time_slice,
    a_claim_with_admin_access_gets_all_gpus_of_a_node_and_reserves_none,
    slices_describe_what_can_be_asked,
    the_status_of_a_claim_names_its_hardware,
    the_event_of_a_claim_that_cannot_be_satisfied_names_the_reason,
    helm_test_passes,
    a_clean_run_logs_neither_errors_nor_warnings,
];

/// The published device of this UUID.
fn published(arena: &Arena, node: &str, uuid: &str) -> Device {
    let pools = arena.pools();
    pools[node].device(uuid).unwrap_or_else(|| panic!("{uuid} is not in the slices of {node}: {pools:?}")).clone()
}

fn every_node_publishes_its_gpus(arena: &Arena) {
    let pools = arena.pools();
    assert_eq!(pools.keys().collect::<Vec<_>>(), ["node-1", "node-2"]);
    let h100s = "8 x NVIDIA H100 80GB HBM3, 81559Mi";
    // The driver keeps 480 MiB of each, which no share can have.
    let less = "8 x NVIDIA H100 80GB HBM3, 81047Mi";
    let shares = ["MPS", "TimeSlicing"].map(|strategy| format!("{less}, or shares of it by {strategy}"));
    let profiles = "1g.10gb, 1g.10gb+me, 1g.20gb, 2g.20gb, 3g.40gb, 4g.40gb, 7g.80gb";
    let on_demand = format!("MIG devices on demand: {profiles}");
    assert_eq!(pools["node-1"].to_string(), format!("{h100s}\n{}\n{on_demand}", shares.join("\n")));
    assert_eq!(pools["node-1"].partitions().count(), 8 * 25);
    assert_eq!(pools["node-2"].partitions().count(), 0, "an A100 is divided in MIG mode only");
    let devices = |model: &str| pools["node-2"].of_kind("gpu").filter(|gpu| gpu.product_name == model).count();
    assert_eq!((devices("NVIDIA A100-SXM4-40GB"), devices("Tesla T4")), (2, 2), "{:?}", pools["node-2"]);
    let uuids: BTreeSet<_> = pools.values().flat_map(|pool| pool.of_kind("gpu")).map(|gpu| &gpu.uuid).collect();
    assert_eq!(uuids.len(), 12);
}

fn a_pod_gets_one_gpu_by_a_template(arena: &Arena) {
    let saw = checked(scenes::one_gpu(&arena.stage()));
    let uuids = saw.seen.uuids();
    assert_eq!(uuids.len(), 1, "{saw}");
    assert_eq!(published(arena, &saw.node, uuids[0]).product_name, saw.seen.gpus[0].name);
}

fn an_idle_gpu_is_divided_for_three_pods_and_whole_again_after_them(arena: &Arena) {
    let on_demand = checked(scenes::mig_on_demand(&arena.stage()));
    let profiles: Vec<&str> =
        on_demand.slices.iter().flat_map(|pod| pod.seen.migs()).map(|mig| mig.profile.as_str()).collect();
    assert_eq!(profiles, ["1g.10gb", "2g.20gb", "3g.40gb"], "{on_demand}");
    let gpus: BTreeSet<&str> =
        on_demand.slices.iter().flat_map(|pod| &pod.seen.gpus).map(|gpu| gpu.uuid.as_str()).collect();
    assert_eq!(gpus.into_iter().collect::<Vec<_>>(), on_demand.whole.seen.uuids(), "one GPU for all of them");
    for profile in profiles {
        assert!(on_demand.during.contains(&format!("MIG {profile}")), "{profile}: {on_demand}");
    }
    assert!(on_demand.waits.contains("cannot allocate all claims"), "{on_demand}");
    assert!(!on_demand.after.contains("MIG 1g"), "{on_demand}");
}

fn mig_devices_an_administrator_makes_are_published_within_two_seconds(arena: &Arena) {
    let cut = checked(scenes::cut_into_mig(&arena.stage()));
    assert!(cut.visible_after < Duration::from_secs(2), "{:?}", cut.visible_after);
    assert_eq!((cut.before.of_kind("gpu").count(), cut.before.of_kind("mig").count()), (8, 0));
    assert_eq!(cut.after.of_kind("gpu").count(), 6, "a GPU that is cut is no longer offered whole");
    let mut profiles: Vec<_> = cut.after.of_kind("mig").filter_map(|mig| mig.profile.as_deref()).collect();
    profiles.sort_unstable();
    assert_eq!(profiles, ["1g.10gb", "1g.10gb", "2g.20gb", "3g.40gb", "3g.40gb", "3g.40gb"]);
}

fn a_mig_device_is_claimed_by_its_profile(arena: &Arena) {
    arena.ensure_mig();
    let saw = checked(scenes::mig_by_profile(&arena.stage()));
    let migs: Vec<_> = saw.seen.migs().collect();
    assert_eq!((saw.seen.gpus.len(), migs.len()), (1, 1), "{saw}");
    assert_eq!(migs[0].profile, "1g.10gb");
}

fn ten_pods_get_ten_different_gpus_on_both_nodes(arena: &Arena) {
    arena.ensure_mig();
    let ten = checked(scenes::ten_gpus(&arena.stage()));
    assert_eq!(ten.pods.len(), 10);
    assert!(ten.pods.iter().all(|pod| pod.seen.uuids().len() == 1), "{:?}", ten.pods);
    let pools = arena.pools();
    let offered = pools.values().flat_map(|pool| pool.of_kind("gpu")).map(|gpu| gpu.uuid.as_str());
    assert_eq!(ten.uuids(), offered.collect(), "all whole GPUs, each once");
    assert_eq!(ten.pods.iter().map(|pod| pod.node.as_str()).collect::<BTreeSet<_>>().len(), 2);
    for pod in &ten.pods {
        published(arena, &pod.node, pod.seen.uuids()[0]);
    }
}

fn a_gpu_is_claimed_by_model_and_memory(arena: &Arena) {
    let saw = checked(scenes::by_model_and_memory(&arena.stage()));
    assert_eq!(saw.node, "node-2");
    let names: Vec<_> = saw.seen.gpus.iter().map(|gpu| gpu.name.as_str()).collect();
    assert_eq!(names, ["NVIDIA A100-SXM4-40GB"]);
}

fn two_pods_share_one_claim(arena: &Arena) {
    let [a, b] = checked(scenes::shared_claim(&arena.stage())).pods;
    assert_eq!((&a.node, &a.seen), (&b.node, &b.seen));
    assert_eq!(a.seen.uuids().len(), 1);
}

fn an_old_deployment_gets_its_gpu_without_a_claim(arena: &Arena) {
    let old = checked(scenes::old_deployment(&arena.stage()));
    assert_eq!(old.pod.seen.uuids().len(), 1);
    assert!(old.claim.contains("extended-resources"), "{}", old.claim);
}

fn several_requests_reach_their_containers(arena: &Arena) {
    arena.ensure_mig();
    let saw = checked(scenes::several_requests(&arena.stage()));
    let (pair, slice, best) = (&saw.train.seen, &saw.serve.seen, &saw.extra.seen);
    assert_eq!((pair.uuids().len(), slice.uuids().len(), best.uuids().len()), (2, 1, 1), "{saw}");
    assert_eq!(pair.gpus[0].name, pair.gpus[1].name, "the constraint wants one model");
    assert_eq!(slice.migs().map(|mig| mig.profile.as_str()).collect::<Vec<_>>(), ["1g.10gb"]);
    let all: BTreeSet<_> = [pair, slice, best].into_iter().flat_map(|seen| seen.uuids()).collect();
    assert_eq!(all.len(), 4, "no device twice");
}

fn three_namespaces_share_a_gpu_by_mps_with_limits(arena: &Arena) {
    let clients = checked(scenes::mps_shares(&arena.stage())).clients;
    let uuids: BTreeSet<_> = clients.iter().flat_map(|client| client.pod.seen.uuids()).collect();
    assert_eq!((clients.len(), uuids.len()), (3, 1), "{clients:?}");
    let pool = &arena.pools()[&clients[0].pod.node];
    let mut shared = pool.of_kind("shared-gpu").filter(|gpu| gpu.uuid == clients[0].pod.seen.uuids()[0]);
    let memory = &shared.next().expect("the GPU is published for shares").memory;
    let tenth = memory.parse::<Bytes>().unwrap().mib() / 10;
    // The one that asked for nothing has a tenth.
    let asked = [(50, 8 << 10), (25, 4 << 10), (10, tenth)];
    for (client, (threads, mebibytes)) in clients.iter().zip(asked) {
        let expect = [
            format!("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE={threads}"),
            format!("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0={mebibytes}M"),
            "CUDA_MPS_PIPE_DIRECTORY=/tmp/nvidia-mps/pipe".to_owned(),
        ];
        assert_eq!(client.environment, expect, "{client}");
        assert_eq!(client.threads, "100.0", "the daemon itself has no limit");
    }
}

fn four_pods_share_a_gpu_by_time_slicing_beside_a_pod_with_a_gpu_of_its_own(arena: &Arena) {
    let side_by_side = checked(scenes::side_by_side(&arena.stage()));
    let time_sliced: BTreeSet<_> = side_by_side.time_slicing.iter().flat_map(|pod| pod.seen.uuids()).collect();
    assert_eq!((side_by_side.time_slicing.len(), time_sliced.len()), (4, 1), "{side_by_side}");
    assert_eq!(side_by_side.time_slicing[0].node, side_by_side.exclusive.node);
    let exclusive = side_by_side.exclusive.seen.uuids();
    assert!(exclusive.len() == 1 && !time_sliced.contains(exclusive[0]), "{side_by_side}");
    for setting in &side_by_side.settings {
        let is_exclusive = setting.uuid == exclusive[0];
        assert_eq!(setting.compute_mode, if is_exclusive { "Exclusive_Process" } else { "Default" }, "{setting}");
    }
}

fn pods_of_a_claim_share_its_mps_daemon_on_a_gpu_and_on_a_mig_device(arena: &Arena) {
    arena.ensure_mig();
    let clients = checked(scenes::mps_claims(&arena.stage())).clients;
    let (gpu, mig) = clients.split_at(3);
    for (clients, threads) in [(gpu, "30.0"), (mig, "50.0")] {
        let uuids: BTreeSet<_> = clients.iter().flat_map(|client| client.pod.seen.uuids()).collect();
        assert_eq!(uuids.len(), 1, "{clients:?}");
        for client in clients {
            let environment = ["CUDA_MPS_PIPE_DIRECTORY=/tmp/nvidia-mps/pipe"];
            assert_eq!(
                (client.threads.as_str(), &client.environment[..]),
                (threads, &environment.map(str::to_owned)[..])
            );
        }
    }
    assert_eq!(mig[0].pod.seen.migs().count(), 1, "{mig:?}");
}

fn a_claim_requests_a_longer_time_slice(arena: &Arena) {
    let stage = arena.stage();
    let (saw, policies) = checked(stage.with("time-slicing-claim.yaml", || {
        let saw = [stage.saw("time-slicing-claim-a")?, stage.saw("time-slicing-claim-b")?];
        Ok((saw, stage.run_in("default", "time-slicing-claim-b", "nvidia-smi compute-policy -l")?))
    }));
    assert_eq!(saw[0].seen, saw[1].seen);
    assert!(policies.contains("Long"), "{policies}");
}

fn a_claim_with_admin_access_gets_all_gpus_of_a_node_and_reserves_none(arena: &Arena) {
    arena.ensure_mig();
    let stage = arena.stage();
    let (saw, ten) = checked(stage.with("admin-access.yaml", || {
        Ok((stage.saw_in("gpu-admin", "admin-access", "main")?, scenes::ten_gpus(&stage)?))
    }));
    let pools = arena.pools();
    let offered = pools[&saw.node].of_kind("gpu").map(|gpu| gpu.uuid.as_str());
    assert_eq!(saw.seen.uuids().into_iter().collect::<BTreeSet<_>>(), offered.collect());
    assert_eq!(ten.uuids().len(), 10, "ten pods still get ten GPUs");
}

fn slices_describe_what_can_be_asked(arena: &Arena) {
    arena.ensure_mig();
    let text = checked(scenes::described_slices(&arena.stage()));
    for part in
        ["Product Name:", "NVIDIA H100 80GB HBM3", "1g.10gb", "Tesla T4", "Driver Version:", "pcieRoot", "numaNode"]
    {
        assert!(text.to_lowercase().contains(&part.to_lowercase()), "{part} is missing in\n{text}");
    }
}

fn the_status_of_a_claim_names_its_hardware(arena: &Arena) {
    arena.ensure_mig();
    let described = checked(scenes::described_claim(&arena.stage()));
    let uuid = described.pod.seen.uuids()[0];
    for part in [uuid, described.pod.seen.gpus[0].uuid.as_str(), "1g.10gb", "Ready", "DevicesPrepared", "mig"] {
        assert!(described.text.contains(part), "{part} is missing in\n{}", described.text);
    }
}

fn the_event_of_a_claim_that_cannot_be_satisfied_names_the_reason(arena: &Arena) {
    let unsatisfied = checked(scenes::cannot_be_satisfied(&arena.stage()));
    assert!(unsatisfied.message.contains("cannot allocate all claims"), "{}", unsatisfied.message);
    assert!(unsatisfied.text.contains(&unsatisfied.message), "{}", unsatisfied.text);
}

fn helm_test_passes(arena: &Arena) {
    let args = ["test", dra_demo::driver::RELEASE, "--namespace", dra_demo::driver::NAMESPACE, "--timeout", "90s"];
    checked(arena.cluster.helm(&args));
}

fn a_clean_run_logs_neither_errors_nor_warnings(arena: &Arena) {
    for node in ["node-1", "node-2"] {
        for container in ["plugin", "controller"] {
            let log = arena.driver_log(node, container);
            let bad: Vec<_> = log.lines().filter(|line| line.contains(" ERROR ") || line.contains(" WARN ")).collect();
            assert!(bad.is_empty(), "{container} on {node}:\n{}", bad.join("\n"));
        }
    }
}
