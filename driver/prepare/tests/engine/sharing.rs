// SPDX-License-Identifier: Apache-2.0
//! Strategies and shares: what a GPU has while claims use it, and that it is as it was when they have gone.

use dra_files::faults::Fault;
use dra_hardware::MultiUser;
use dra_model::{Bytes, Claim, ComputeMode, DaemonId, Interval, Placement, ShareLimits};
use dra_prepare::{ClaimLookup, DaemonDevice, PrepareCause, PreparedSharing, Refusal};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::machine::gpu_uuid;
use crate::node::{Node, allocate, request_sharing, share, shares};

pub(crate) type Found = (Option<ComputeMode>, Option<Interval>);

pub(crate) const DEFAULT: Found = (Some(ComputeMode::Default), Some(Interval::Default));

pub(crate) fn exclusive(interval: Interval) -> Found {
    (Some(ComputeMode::ExclusiveProcess), Some(interval))
}

pub(crate) fn time_slicing(interval: &str) -> Value {
    json!({"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": interval}})
}

pub(crate) fn request_gpu_sharing(name: &str, sharing: &Value) -> Claim {
    request_sharing(allocate(name, &[("gpu", "gpu-00000000")]), &[], "GpuConfig", sharing)
}

pub(crate) fn ts_share(name: &str, mib: u64) -> Claim {
    shares(name, vec![share("some", "gpu-00000000-ts", &format!("s-{name}"), mib, None)])
}

pub(crate) fn mps_share(name: &str, mib: u64, percent: u64) -> Claim {
    shares(name, vec![share("some", "gpu-00000000-mps", &format!("s-{name}"), mib, Some(percent))])
}

pub(crate) fn is_tidy(node: &Node) {
    let report = node.engine.reconcile(&|_| ClaimLookup::Allocated);
    assert!(report.problems.is_empty() && report.drifted.is_empty(), "{report:?}");
    assert!(node.names("gpus").is_empty(), "{:?}", node.names("gpus"));
    assert!(node.daemons.running().is_empty(), "{:?}", node.daemons.running());
}

#[test]
fn a_strategy_sets_what_it_needs_for_the_time_of_the_claim() {
    let admin: Found = (Some(ComputeMode::Prohibited), Some(Interval::Long));
    for found in [DEFAULT, admin] {
        for (sharing, during) in [
            (json!({"strategy": "Exclusive"}), (Some(ComputeMode::ExclusiveProcess), found.1)),
            (json!({"strategy": "TimeSlicing"}), (Some(ComputeMode::Default), Some(Interval::Default))),
            (time_slicing("Short"), (Some(ComputeMode::Default), Some(Interval::Short))),
            (json!({"strategy": "MPS"}), (Some(ComputeMode::ExclusiveProcess), found.1)),
            (Value::Null, found),
        ] {
            let mut node = Node::new(1);
            node.machine.configure(0, found.0, found.1);
            let claim = request_gpu_sharing("a", &sharing);
            let answer = node.prepare(&claim).unwrap();
            assert_eq!(node.machine.settings(0), during, "{sharing}");
            node.restart();
            assert_eq!(node.prepare(&claim).unwrap(), answer, "without the configurations");
            node.engine.unprepare(&claim.reference).unwrap();
            assert_eq!(node.machine.settings(0), found, "{sharing}");
            is_tidy(&node);
        }
    }
}

#[test]
fn a_mig_device_is_shared_by_time_slicing_without_settings_or_by_a_daemon_of_its_own() {
    let node = Node::new(1);
    node.machine.cut(0, &[0, 4], 1);
    node.redraw();
    let claim = allocate("a", &[("one", "gpu-00000000-mig-19-0"), ("two", "gpu-00000000-mig-19-4")]);
    let claim = request_sharing(claim, &["one"], "MigDeviceConfig", &json!({"strategy": "TimeSlicing"}));
    let claim = request_sharing(
        claim,
        &["two"],
        "MigDeviceConfig",
        &json!({"strategy": "MPS", "mpsConfig": {"multiUser": true}}),
    );
    let answer = node.prepare(&claim).unwrap();
    let limits = ShareLimits::default();
    assert_eq!(answer[0].sharing, PreparedSharing::TimeSlicing { interval: Interval::Default, limits });
    assert!(answer.iter().all(|device| device.settings.compute_mode.is_none() && device.settings.interval.is_none()));
    let running = node.daemons.running();
    let [daemon] = &*running.values().collect::<Vec<_>>() else { panic!("{running:?}") };
    assert_eq!((daemon.id.as_str(), daemon.multi_user), ("claim-uid-a-1", MultiUser::On));
    assert_eq!(daemon.devices, ["MIG-00000001-0004-0000-0000-000000000000"]);
    let device = DaemonDevice { gpu: gpu_uuid(0), placement: Some(Placement { start: 4, size: 1 }) };
    assert_eq!(node.engine.devices_of_daemons().unwrap(), [(daemon.id.clone(), [device].into())].into());
    assert_eq!(node.machine.interval_calls(), 0);
    node.engine.unprepare(&claim.reference).unwrap();
    is_tidy(&node);
}

#[test]
fn a_daemon_of_a_claim_has_the_limits_of_its_devices_by_their_places() {
    let node = Node::new(4);
    let claim = allocate("a", &[("other", "gpu-00000003"), ("pair", "gpu-00000002"), ("pair", "gpu-00000000")]);
    let config = json!({
        "defaultActiveThreadPercentage": 50, "defaultPinnedDeviceMemoryLimit": "10Gi",
        "defaultPerDevicePinnedMemoryLimit": {"0": "5Gi", gpu_uuid(2).as_str(): "1Gi", "1": "2Gi"},
    });
    let claim = request_sharing(claim, &["pair"], "GpuConfig", &json!({"strategy": "MPS", "mpsConfig": config}));
    let answer = node.prepare(&claim).unwrap();
    let running = node.daemons.running();
    let [daemon] = &*running.values().collect::<Vec<_>>() else { panic!("{running:?}") };
    assert_eq!((daemon.id.as_str(), daemon.multi_user), ("claim-uid-a-1", MultiUser::Off));
    assert_eq!(daemon.devices, [gpu_uuid(0).to_string(), gpu_uuid(2).to_string()]);
    assert_eq!(daemon.memory, [(0, Bytes(5 << 30)), (1, Bytes(1 << 30))].into(), "the UUID goes before the place");
    let threads = Some(50.try_into().unwrap());
    assert_eq!(daemon.threads, threads);
    let limits = ShareLimits { memory: Some(Bytes(1 << 30)), threads };
    assert_eq!(answer[1].sharing, PreparedSharing::Mps { daemon: daemon.id.clone(), limits });
    let edits = node.spec_edits(&claim);
    assert!(edits[0].get("env").is_none(), "no sharing was requested: {}", edits[0]);
    assert_eq!(edits[1]["env"], json!(["CUDA_MPS_PIPE_DIRECTORY=/tmp/nvidia-mps/pipe"]), "the daemon has the limits");
    assert_eq!(edits[1]["mounts"][1]["hostPath"], "/run/gpu-dra/mps/claim-uid-a-1/shm");
    assert_eq!(node.machine.settings(3), DEFAULT);
    assert_eq!(node.engine.claims_of_daemon(&daemon.id).unwrap(), [(claim.reference.clone(), answer)]);
    let devices = [0, 2].map(|gpu| DaemonDevice { gpu: gpu_uuid(gpu), placement: None });
    assert_eq!(node.engine.devices_of_daemons().unwrap(), [(daemon.id.clone(), devices.into())].into());
    node.engine.unprepare(&claim.reference).unwrap();
    is_tidy(&node);
}

#[test]
fn time_sliced_shares_have_the_interval_of_the_first_and_the_last_unprepare_restores() {
    let node = Node::new(1);
    node.machine.configure(0, Some(ComputeMode::Prohibited), Some(Interval::Medium));
    let first = request_sharing(ts_share("first", 1000), &[], "GpuConfig", &time_slicing("Long"));
    node.prepare(&first).unwrap();
    let calls = node.machine.interval_calls();
    let answer = node.prepare(&ts_share("second", 1000)).unwrap();
    let limits = ShareLimits { memory: Some(Bytes::from_mib(1000)), threads: None };
    assert_eq!(answer[0].sharing, PreparedSharing::TimeSlicing { interval: Interval::Long, limits });
    assert_eq!(answer[0].share_id.as_ref().map(ToString::to_string).as_deref(), Some("s-second"));
    assert_eq!(answer[0].cdi_ids[0], "k8s.gpu.nvidia.com/claim=uid-second-gpu-00000000-ts-s-second");
    assert_eq!(node.machine.interval_calls(), calls, "no program is run for a later share");
    let during = (Some(ComputeMode::Default), Some(Interval::Long));
    let prepared = node.engine.prepared_shares().unwrap();
    assert_eq!((prepared[0].device.as_str(), prepared[0].count), ("gpu-00000000-ts", 2));
    assert_eq!((prepared.len(), prepared[0].memory), (1, Bytes::from_mib(2000)));
    for name in ["first", "second"] {
        assert_eq!(node.machine.settings(0), during);
        node.engine.unprepare(&ts_share(name, 0).reference).unwrap();
    }
    assert_eq!(node.machine.settings(0), (Some(ComputeMode::Prohibited), Some(Interval::Medium)));
    is_tidy(&node);
}

#[test]
fn shares_by_mps_have_one_daemon_and_their_limits_in_the_environment() {
    let node = Node::new(1);
    let claims = ["a", "b", "c"].map(|name| mps_share(name, 8155, 10));
    for claim in &claims {
        node.prepare(claim).unwrap();
    }
    let id = DaemonId::of_gpu(&gpu_uuid(0));
    assert_eq!((node.daemons.running().into_keys().collect::<Vec<_>>(), node.daemons.starts()), (vec![id.clone()], 1));
    assert_eq!(node.daemons.running()[&id].multi_user, MultiUser::IfKnown);
    let edits = node.spec_edits(&claims[1]);
    let env = [
        "CUDA_MPS_PIPE_DIRECTORY=/tmp/nvidia-mps/pipe",
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=8155M",
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=10",
    ];
    assert_eq!(edits[0]["env"], json!(env));
    assert_eq!(edits[0]["deviceNodes"][0]["path"], "/dev/nvidia0");
    assert_eq!(node.engine.claims_of_daemon(&id).unwrap().len(), 3);
    let device = DaemonDevice { gpu: gpu_uuid(0), placement: None };
    assert_eq!(node.engine.devices_of_daemons().unwrap(), [(id.clone(), [device].into())].into());
    for claim in &claims {
        assert_eq!(node.machine.settings(0), exclusive(Interval::Default));
        assert_eq!(node.daemons.running().len(), 1);
        node.engine.unprepare(&claim.reference).unwrap();
    }
    assert_eq!(node.machine.settings(0), DEFAULT);
    is_tidy(&node);
}

/// A GPU with unified memory does not tell how much it has, so that the scheduler counts threads alone.
#[test]
fn shares_without_consumed_memory_have_no_memory_limit() {
    let node = Node::new(1);
    let mut claim = mps_share("a", 1, 30);
    claim.devices[0].consumed.memory = None;
    node.prepare(&claim).unwrap();
    let env = ["CUDA_MPS_PIPE_DIRECTORY=/tmp/nvidia-mps/pipe", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=30"];
    assert_eq!(node.spec_edits(&claim)[0]["env"], json!(env));
    let mut time_sliced = ts_share("b", 1);
    time_sliced.devices[0].consumed.memory = None;
    node.engine.unprepare(&claim.reference).unwrap();
    node.prepare(&time_sliced).unwrap();
    node.engine.unprepare(&time_sliced.reference).unwrap();
    is_tidy(&node);
}

#[test]
fn a_daemon_is_informed_of_each_claim_that_starts_or_ends_to_share_it() {
    let node = Node::new(1);
    let claims = ["a", "b"].map(|name| mps_share(name, 8155, 10));
    let about = |claim: &Claim| (DaemonId::of_gpu(&gpu_uuid(0)), claim.reference.uid.clone());
    for claim in &claims {
        node.prepare(claim).unwrap();
        assert_eq!(node.daemons.joined(), [about(claim)]);
    }
    node.engine.unprepare(&claims[0].reference).unwrap();
    assert_eq!(node.daemons.left(), [about(&claims[0])]);
    // With the daemon goes all of its shared memory.
    node.engine.unprepare(&claims[1].reference).unwrap();
    assert_eq!((node.daemons.joined(), node.daemons.left()), (vec![], vec![]));
    is_tidy(&node);
}

#[test]
fn one_claim_may_have_several_shares_of_a_gpu_and_each_counts() {
    let node = Node::new(1);
    let two = vec![
        share("one", "gpu-00000000-mps", "s1", 40_000, Some(50)),
        share("two", "gpu-00000000-mps", "s2", 41_000, Some(50)),
    ];
    let claim = shares("a", two.clone());
    let answer = node.prepare(&claim).unwrap();
    assert_ne!(answer[0].cdi_ids[0], answer[1].cdi_ids[0]);
    assert_eq!(node.spec_edits(&claim).len(), 2);
    node.engine.unprepare(&claim.reference).unwrap();
    let three = [two, vec![share("three", "gpu-00000000-mps", "s3", 600, None)]].concat();
    let error = node.prepare(&shares("b", three)).unwrap_err();
    assert!(matches!(&*error.cause, PrepareCause::Refused(Refusal::NotEnoughLeft { .. })), "{error}");
    is_tidy(&node);
}

#[test]
fn admin_access_sets_nothing_and_is_no_share() {
    let node = Node::new(1);
    let whole = request_gpu_sharing("whole", &json!({"strategy": "Exclusive"}));
    node.prepare(&whole).unwrap();
    let mut admin = mps_share("admin", 80_000, 100);
    admin.devices[0].admin_access = true;
    let answer = node.prepare(&admin).unwrap();
    assert_eq!(answer[0].sharing, PreparedSharing::Plain);
    assert!(node.spec_edits(&admin)[0].get("env").is_none());
    node.engine.unprepare(&whole.reference).unwrap();
    assert_eq!(node.machine.settings(0), DEFAULT);
    assert!(node.daemons.running().is_empty() && node.engine.prepared_shares().unwrap().is_empty());
    node.prepare(&mps_share("user", 80_000, 100)).unwrap();
}

#[test]
fn preparing_and_unpreparing_can_be_cut_at_every_effect() {
    let claims: [fn() -> Claim; 4] = [
        || request_gpu_sharing("a", &json!({"strategy": "Exclusive"})),
        || request_gpu_sharing("a", &json!({"strategy": "MPS"})),
        || mps_share("a", 1000, 10),
        || request_sharing(ts_share("a", 1000), &[], "GpuConfig", &time_slicing("Long")),
    ];
    for claim in claims.map(|make| make()) {
        for fault in [Fault::Crash, Fault::Once(Errno::NOSPC), Fault::FromNowOn(Errno::ROFS)] {
            let mut node = Node::new(1);
            node.machine.configure(0, Some(ComputeMode::Prohibited), Some(Interval::Medium));
            let before = node.machine.settings(0);
            for at in 0.. {
                let made = node.files.effects();
                node.files.fail_after(at, fault);
                let outcome = node.prepare(&claim);
                let was_cut = made + at < node.files.effects();
                node.restart();
                node.prepare(&claim).unwrap();
                node.engine.unprepare(&claim.reference).unwrap();
                assert_eq!(node.machine.settings(0), before, "prepare {fault:?} at {at}");
                node.prepare(&claim).unwrap();
                node.files.fail_after(at, fault);
                node.engine.unprepare(&claim.reference).ok();
                node.restart();
                node.engine.unprepare(&claim.reference).unwrap();
                node.engine.reconcile(&|_| ClaimLookup::Allocated);
                assert_eq!(node.machine.settings(0), before, "unprepare {fault:?} at {at}");
                is_tidy(&node);
                if !was_cut {
                    // Taking back has fewer effects.
                    outcome.unwrap();
                    break;
                }
            }
        }
    }
}
