// SPDX-License-Identifier: Apache-2.0
//! Strategies and shares: what a GPU has while claims use it, and that it is as it was when they have gone.

use dra_checkpoint::files::faults::Fault;
use dra_hardware::{MultiUser, Setting};
use dra_model::{Bytes, Claim, ComputeMode, DaemonId, Interval, ShareLimits};
use dra_prepare::{ClaimLife, Deed, PrepareCause, PreparedSharing, Refusal};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::daemons::Mood;
use crate::node::{Node, allocate, share, shares, wish};
use crate::twin::gpu_uuid;

type Found = (Option<ComputeMode>, Option<Interval>);

const DEFAULT: Found = (Some(ComputeMode::Default), Some(Interval::Default));

fn exclusive(interval: Interval) -> Found {
    (Some(ComputeMode::ExclusiveProcess), Some(interval))
}

fn time_slicing(interval: &str) -> Value {
    json!({"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": interval}})
}

fn gpu_wish(name: &str, sharing: &Value) -> Claim {
    wish(allocate(name, &[("gpu", "gpu-00000000")]), &[], "GpuConfig", sharing)
}

fn ts_share(name: &str, mib: u64) -> Claim {
    shares(name, vec![share("some", "gpu-00000000-ts", &format!("s-{name}"), mib, None)])
}

fn mps_share(name: &str, mib: u64, percent: u64) -> Claim {
    shares(name, vec![share("some", "gpu-00000000-mps", &format!("s-{name}"), mib, Some(percent))])
}

fn is_tidy(node: &Node) {
    let report = node.engine.reconcile(&|_| ClaimLife::Alive);
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
            let claim = gpu_wish("a", &sharing);
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
fn a_mig_device_shares_by_turns_without_any_setting_and_by_a_daemon_of_its_own() {
    let node = Node::new(1);
    node.machine.cut(0, &[0, 4], 1);
    node.redraw();
    let claim = allocate("a", &[("one", "gpu-00000000-mig-19-0"), ("two", "gpu-00000000-mig-19-4")]);
    let claim = wish(claim, &["one"], "MigDeviceConfig", &json!({"strategy": "TimeSlicing"}));
    let claim = wish(claim, &["two"], "MigDeviceConfig", &json!({"strategy": "MPS", "mpsConfig": {"multiUser": true}}));
    let answer = node.prepare(&claim).unwrap();
    let limits = ShareLimits::default();
    assert_eq!(answer[0].sharing, PreparedSharing::TimeSlicing { interval: Interval::Default, limits });
    assert!(answer.iter().all(|device| device.settings.compute_mode.is_none() && device.settings.interval.is_none()));
    let running = node.daemons.running();
    let [daemon] = &*running.values().collect::<Vec<_>>() else { panic!("{running:?}") };
    assert_eq!((daemon.id.as_str(), daemon.multi_user), ("claim-uid-a-1", MultiUser::On));
    assert_eq!(daemon.devices, ["MIG-00000001-0004-0000-0000-000000000000"]);
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
    let claim = wish(claim, &["pair"], "GpuConfig", &json!({"strategy": "MPS", "mpsConfig": config}));
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
    assert!(edits[0].get("env").is_none(), "nothing was wished for it: {}", edits[0]);
    assert_eq!(edits[1]["env"], json!(["CUDA_MPS_PIPE_DIRECTORY=/tmp/nvidia-mps/pipe"]), "the daemon has the limits");
    assert_eq!(edits[1]["mounts"][1]["hostPath"], "/run/gpu-dra/mps/claim-uid-a-1/shm");
    assert_eq!(node.machine.settings(3), DEFAULT);
    assert_eq!(node.engine.users_of(&daemon.id).unwrap(), [(claim.reference.clone(), answer)]);
    node.engine.unprepare(&claim.reference).unwrap();
    is_tidy(&node);
}

#[test]
fn shares_by_turns_have_the_interval_of_the_first_and_the_last_restores() {
    let node = Node::new(1);
    node.machine.configure(0, Some(ComputeMode::Prohibited), Some(Interval::Medium));
    let first = wish(ts_share("first", 1000), &[], "GpuConfig", &time_slicing("Long"));
    node.prepare(&first).unwrap();
    let calls = node.machine.interval_calls();
    let answer = node.prepare(&ts_share("second", 1000)).unwrap();
    let limits = ShareLimits { memory: Some(Bytes::from_mib(1000)), threads: None };
    assert_eq!(answer[0].sharing, PreparedSharing::TimeSlicing { interval: Interval::Long, limits });
    assert_eq!(answer[0].share_id.as_ref().map(ToString::to_string).as_deref(), Some("s-second"));
    assert_eq!(answer[0].cdi_ids[1], "k8s.gpu.nvidia.com/claim=uid-second-gpu-00000000-ts-s-second");
    assert_eq!(node.machine.interval_calls(), calls, "no program is run for a later share");
    let during = (Some(ComputeMode::Default), Some(Interval::Long));
    let promised = node.engine.promised().unwrap();
    assert_eq!((promised[0].device.as_str(), promised[0].shares), ("gpu-00000000-ts", 2));
    assert_eq!((promised.len(), promised[0].memory), (1, Bytes::from_mib(2000)));
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
    assert_eq!(node.engine.users_of(&id).unwrap().len(), 3);
    for claim in &claims {
        assert_eq!(node.machine.settings(0), exclusive(Interval::Default));
        assert_eq!(node.daemons.running().len(), 1);
        node.engine.unprepare(&claim.reference).unwrap();
    }
    assert_eq!(node.machine.settings(0), DEFAULT);
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
    assert_ne!(answer[0].cdi_ids[1], answer[1].cdi_ids[1]);
    assert_eq!(node.spec_edits(&claim).len(), 2);
    node.engine.unprepare(&claim.reference).unwrap();
    let three = [two, vec![share("three", "gpu-00000000-mps", "s3", 600, None)]].concat();
    let error = node.prepare(&shares("b", three)).unwrap_err();
    assert!(matches!(&*error.cause, PrepareCause::Refused(Refusal::Overpromised { .. })), "{error}");
    is_tidy(&node);
}

#[test]
fn admin_access_sets_nothing_and_is_no_share() {
    let node = Node::new(1);
    let whole = gpu_wish("whole", &json!({"strategy": "Exclusive"}));
    node.prepare(&whole).unwrap();
    let mut admin = mps_share("admin", 80_000, 100);
    admin.devices[0].admin_access = true;
    let answer = node.prepare(&admin).unwrap();
    assert_eq!(answer[0].sharing, PreparedSharing::Plain);
    assert!(node.spec_edits(&admin)[0].get("env").is_none());
    node.engine.unprepare(&whole.reference).unwrap();
    assert_eq!(node.machine.settings(0), DEFAULT);
    assert!(node.daemons.running().is_empty() && node.engine.promised().unwrap().is_empty());
    node.prepare(&mps_share("user", 80_000, 100)).unwrap();
}

#[test]
fn what_an_administrator_changed_is_told_and_put_right_by_the_next_prepare() {
    let node = Node::new(1);
    let first = wish(ts_share("first", 1000), &[], "GpuConfig", &time_slicing("Long"));
    node.prepare(&first).unwrap();
    node.machine.configure(0, Some(ComputeMode::Prohibited), Some(Interval::Short));
    for _ in 0..2 {
        let report = node.engine.reconcile(&|_| ClaimLife::Alive);
        let told: Vec<_> =
            report.drifted.iter().map(|it| (it.setting, it.wanted.as_str(), it.found.as_str())).collect();
        assert_eq!(told, [(Setting::ComputeMode, "Default", "Prohibited"), (Setting::Interval, "Long", "Short")]);
        assert_eq!(report.drifted[0].claims, std::slice::from_ref(&first.reference));
        assert!(report.problems.is_empty() && report.repaired.is_empty(), "{report:?}");
        assert_eq!(node.machine.settings(0), (Some(ComputeMode::Prohibited), Some(Interval::Short)));
    }
    node.prepare(&ts_share("second", 1000)).unwrap();
    assert_eq!(node.machine.settings(0), (Some(ComputeMode::Default), Some(Interval::Long)));
    node.machine.configure(0, Some(ComputeMode::Prohibited), Some(Interval::Long));
    node.prepare(&first).unwrap();
    assert_eq!(node.machine.settings(0), (Some(ComputeMode::Default), Some(Interval::Long)), "a repeat looks as well");
    assert_eq!(node.engine.deeds().get(&Deed::PutRight(Setting::ComputeMode)), Some(&1));
}

#[test]
fn a_gpu_that_takes_nothing_now_keeps_nobody_from_leaving_and_the_next_from_coming() {
    let mut node = Node::new(2);
    let claim = gpu_wish("a", &json!({"strategy": "Exclusive"}));
    let next = allocate("b", &[("gpu", "gpu-00000000")]);
    node.prepare(&claim).unwrap();
    node.machine.set_stubborn(0, true);
    node.engine.unprepare(&claim.reference).unwrap();
    assert!(node.names("claims").is_empty());
    node.restart();
    let error = node.prepare(&next).unwrap_err();
    assert!(matches!(&*error.cause, PrepareCause::Debt { .. }), "{error}");
    node.prepare(&allocate("c", &[("gpu", "gpu-00000001")])).unwrap();
    node.machine.set_stubborn(0, false);
    node.prepare(&next).unwrap();
    assert_eq!(node.machine.settings(0), DEFAULT);
    node.engine.unprepare(&next.reference).unwrap();
    is_tidy(&node);
}

#[test]
fn the_reconciliation_the_last_instance_and_the_uninstallation_pay_what_is_owed() {
    let ways: [fn(&Node); 3] = [
        |node| assert_eq!(node.engine.reconcile(&|_| ClaimLife::Alive).restored, [gpu_uuid(0)]),
        |node| assert!(node.engine.retire()),
        |node| assert_eq!(node.engine.restore_all().restored, [gpu_uuid(0)]),
    ];
    for way in ways {
        let mut node = Node::new(1);
        let claim = gpu_wish("a", &json!({"strategy": "MPS"}));
        node.prepare(&claim).unwrap();
        node.machine.set_broken(0, true);
        node.daemons.set(Mood::Clinging);
        node.engine.unprepare(&claim.reference).unwrap();
        assert!(!node.engine.retire(), "something is owed");
        node.restart();
        node.machine.set_broken(0, false);
        node.daemons.set(Mood::Willing);
        way(&node);
        node.restart();
        assert_eq!(node.machine.settings(0), DEFAULT);
        is_tidy(&node);
    }
}

#[test]
fn an_uninstallation_gives_back_what_claims_still_use_and_names_them() {
    let node = Node::new(1);
    let claim = mps_share("a", 1000, 10);
    node.prepare(&claim).unwrap();
    for mood in [Mood::Willing, Mood::Away] {
        node.daemons.set(mood);
        let done = node.engine.restore_all();
        assert_eq!(done.claims, std::slice::from_ref(&claim.reference));
        assert!(done.problems.is_empty(), "{:?}", done.problems);
        assert_eq!(node.machine.settings(0), DEFAULT);
        assert!(node.names("gpus").is_empty());
        node.daemons.set(Mood::Willing);
        node.prepare(&claim).unwrap();
        assert_eq!(node.machine.settings(0), exclusive(Interval::Default), "installed again");
    }
    node.engine.unprepare(&claim.reference).unwrap();
    assert_eq!(node.machine.settings(0), DEFAULT);
    is_tidy(&node);
}

#[test]
fn without_an_mps_host_only_mps_waits_and_its_gpu_is_left_alone() {
    let node = Node::new(1);
    node.daemons.set(Mood::Away);
    let effects = node.files.effects();
    node.prepare(&mps_share("a", 1000, 10)).unwrap_err();
    assert_eq!((node.machine.settings(0), node.names("gpus").len()), (DEFAULT, 0));
    assert!(node.names("claims").is_empty() && node.files.effects() == effects);
    for sharing in [json!({"strategy": "Exclusive"}), time_slicing("Long"), Value::Null] {
        let claim = gpu_wish("b", &sharing);
        node.prepare(&claim).unwrap();
        node.engine.unprepare(&claim.reference).unwrap();
    }
    assert!(node.engine.reconcile(&|_| ClaimLife::Alive).problems.is_empty(), "nobody misses it");
}

#[test]
fn an_mps_host_that_goes_away_keeps_no_claim_and_no_gpu() {
    let node = Node::new(1);
    let claim = mps_share("a", 1000, 10);
    node.prepare(&claim).unwrap();
    node.daemons.set(Mood::Away);
    assert_eq!(node.engine.reconcile(&|_| ClaimLife::Alive).problems.len(), 2, "the claim misses it");
    node.engine.unprepare(&claim.reference).unwrap();
    assert_eq!(node.machine.settings(0), DEFAULT);
    let next = allocate("b", &[("gpu", "gpu-00000000")]);
    node.prepare(&next).unwrap();
    node.daemons.set(Mood::Willing);
    node.engine.reconcile(&|_| ClaimLife::Alive);
    assert!(node.daemons.running().is_empty(), "ended when it can be");
}

#[test]
fn daemons_that_died_with_their_host_are_started_again_and_strange_ones_end() {
    let node = Node::new(1);
    node.prepare(&mps_share("a", 1000, 10)).unwrap();
    node.daemons.die();
    node.daemons.add(DaemonId::of_gpu(&gpu_uuid(7)));
    node.daemons.add("claim-uid-lost-0".parse().unwrap());
    let report = node.engine.reconcile(&|_| ClaimLife::Alive);
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!(node.daemons.running().into_keys().collect::<Vec<_>>(), [DaemonId::of_gpu(&gpu_uuid(0))]);
}

#[test]
fn after_a_reboot_what_is_found_is_read_anew() {
    let mut node = Node::new(1);
    node.machine.configure(0, Some(ComputeMode::Prohibited), Some(Interval::Long));
    let claims = [gpu_wish("a", &json!({"strategy": "Exclusive"})), mps_share("b", 1000, 10), ts_share("c", 1000)];
    for claim in &claims {
        node.prepare(claim).unwrap();
        node.reboot();
        node.prepare(claim).unwrap();
        node.engine.unprepare(&claim.reference).unwrap();
        assert_eq!(node.machine.settings(0), DEFAULT);
        node.prepare(claim).unwrap();
        node.reboot();
        node.engine.unprepare(&claim.reference).unwrap();
        assert_eq!(node.machine.settings(0), DEFAULT);
        is_tidy(&node);
    }
}

#[test]
fn a_gpu_that_is_cut_while_it_is_held_has_nothing_to_get_back() {
    let node = Node::new(1);
    let claim = gpu_wish("a", &json!({"strategy": "Exclusive"}));
    node.prepare(&claim).unwrap();
    node.machine.cut(0, &[0], 1);
    node.engine.unprepare(&claim.reference).unwrap();
    is_tidy(&node);
}

#[test]
fn a_damaged_ledger_is_told_and_its_gpu_gets_what_it_has_after_a_reboot() {
    let node = Node::new(1);
    let claim = mps_share("a", 1000, 10);
    node.prepare(&claim).unwrap();
    let path = node.state_dir().join("gpus").join(format!("{}.json", gpu_uuid(0)));
    std::fs::write(&path, "garbage").unwrap();
    assert_eq!(node.engine.reconcile(&|_| ClaimLife::Alive).problems.len(), 1);
    assert_eq!(node.machine.settings(0), exclusive(Interval::Default));
    node.engine.unprepare(&claim.reference).unwrap();
    assert_eq!(node.machine.settings(0), DEFAULT);
    assert!(node.daemons.running().is_empty());
    assert!(node.engine.reconcile(&|_| ClaimLife::Alive).problems.is_empty());
}

#[test]
fn a_share_in_doubt_keeps_the_settings_and_the_daemon_until_it_is_settled() {
    let mut node = Node::new(1);
    let (lost, other) = (mps_share("lost", 1000, 10), mps_share("other", 1000, 10));
    node.prepare(&lost).unwrap();
    node.prepare(&other).unwrap();
    std::fs::write(node.state_dir().join("claims/uid-lost.json"), "garbage").unwrap();
    node.restart();
    node.engine.unprepare(&other.reference).unwrap();
    node.engine.reconcile(&|_| ClaimLife::Alive);
    assert_eq!((node.machine.settings(0), node.daemons.running().len()), (exclusive(Interval::Default), 1));
    node.prepare(&other).unwrap();
    node.engine.unprepare(&other.reference).unwrap();
    node.engine.unprepare(&lost.reference).unwrap();
    assert_eq!(node.machine.settings(0), DEFAULT);
    is_tidy(&node);
}

#[test]
fn preparing_and_unpreparing_can_be_cut_at_every_effect() {
    let claims: [fn() -> Claim; 4] = [
        || gpu_wish("a", &json!({"strategy": "Exclusive"})),
        || gpu_wish("a", &json!({"strategy": "MPS"})),
        || mps_share("a", 1000, 10),
        || wish(ts_share("a", 1000), &[], "GpuConfig", &time_slicing("Long")),
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
                node.engine.reconcile(&|_| ClaimLife::Alive);
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
