// SPDX-License-Identifier: Apache-2.0
//! Pending restores of a GPU: finished when its last claim is unprepared, or after a failure by the next claim, the
//! reconciliation, the last instance and the uninstallation.

use dra_files::faults::Fault;
use dra_hardware::Setting;
use dra_model::{ComputeMode, DaemonId, Interval};
use dra_prepare::Problem;
use dra_prepare::{ClaimLookup, PrepareCause, Refusal, RestoreOutcome};
use serde_json::{Value, json};

use crate::daemons::Mood;
use crate::machine::gpu_uuid;
use crate::node::{Node, allocate, request_sharing, share, shares};
use crate::sharing::{DEFAULT, exclusive, is_tidy, mps_share, request_gpu_sharing, time_slicing, ts_share};

#[test]
fn a_setting_that_an_administrator_changed_is_reported_and_reset_by_the_next_prepare() {
    let node = Node::new(1);
    let first = request_sharing(ts_share("first", 1000), &[], "GpuConfig", &time_slicing("Long"));
    node.prepare(&first).unwrap();
    node.machine.configure(0, Some(ComputeMode::Prohibited), Some(Interval::Short));
    for _ in 0..2 {
        let report = node.engine.reconcile(&|_| ClaimLookup::Allocated);
        let reported: Vec<_> =
            report.drifted.iter().map(|it| (it.setting, it.wanted.as_str(), it.found.as_str())).collect();
        assert_eq!(reported, [(Setting::ComputeMode, "Default", "Prohibited"), (Setting::Interval, "Long", "Short")]);
        assert_eq!(report.drifted[0].claims, std::slice::from_ref(&first.reference));
        assert!(report.problems.is_empty() && report.repaired.is_empty(), "{report:?}");
        assert_eq!(node.machine.settings(0), (Some(ComputeMode::Prohibited), Some(Interval::Short)));
    }
    node.prepare(&ts_share("second", 1000)).unwrap();
    assert_eq!(node.machine.settings(0), (Some(ComputeMode::Default), Some(Interval::Long)));
    node.machine.configure(0, Some(ComputeMode::Prohibited), Some(Interval::Long));
    node.prepare(&first).unwrap();
    assert_eq!(
        node.machine.settings(0),
        (Some(ComputeMode::Default), Some(Interval::Long)),
        "a repeated prepare checks too"
    );
    assert_eq!(node.engine.restore_outcomes().get(&RestoreOutcome::SettingCorrected(Setting::ComputeMode)), Some(&1));
}

/// Each claim needs a compute mode, and the last one an interval too. The GPU has them before, or the driver sets them.
#[test]
fn the_original_settings_are_restored_also_after_changes_outside_the_driver() {
    let long = request_sharing(ts_share("a", 1000), &[], "GpuConfig", &time_slicing("Long"));
    let exclusively = request_gpu_sharing("a", &json!({"strategy": "Exclusive"}));
    for (claim, needs_interval) in [(exclusively, false), (mps_share("a", 1000, 10), false), (long, true)] {
        for found in [DEFAULT, exclusive(Interval::Long), (Some(ComputeMode::Default), Some(Interval::Long))] {
            for is_changed_back in [true, false] {
                let node = Node::new(1);
                node.machine.configure(0, found.0, found.1);
                node.prepare(&claim).unwrap();
                let during = node.machine.settings(0);
                let mode = if during.0 == DEFAULT.0 { ComputeMode::ExclusiveProcess } else { ComputeMode::Default };
                node.machine.configure(0, Some(mode), if needs_interval { Some(Interval::Default) } else { found.1 });
                node.engine.reconcile(&|_| ClaimLookup::Allocated);
                if is_changed_back {
                    node.machine.configure(0, during.0, during.1);
                }
                node.engine.unprepare(&claim.reference).unwrap();
                assert_eq!(node.machine.settings(0), found, "{:?}, {is_changed_back}", claim.devices);
                is_tidy(&node);
            }
        }
    }
}

#[test]
fn a_changed_setting_is_reported_although_the_ledger_is_lost() {
    let node = Node::new(1);
    let claim = request_sharing(ts_share("a", 1000), &[], "GpuConfig", &time_slicing("Long"));
    node.prepare(&claim).unwrap();
    std::fs::remove_file(gpu_file(&node)).unwrap();
    node.machine.configure(0, Some(ComputeMode::Default), Some(Interval::Short));
    let drifted = node.engine.reconcile(&|_| ClaimLookup::Allocated).drifted;
    assert_eq!(drifted.iter().map(|it| it.setting).collect::<Vec<_>>(), [Setting::Interval]);
    node.prepare(&claim).unwrap();
    assert_eq!(node.machine.settings(0).1, Some(Interval::Long));
    node.engine.unprepare(&claim.reference).unwrap();
    assert_eq!(node.machine.settings(0).1, Some(Interval::Short), "the settings found then are restored");
    is_tidy(&node);
}

#[test]
fn a_gpu_that_refuses_settings_blocks_no_unprepare_and_the_next_prepare() {
    let mut node = Node::new(2);
    let claim = request_gpu_sharing("a", &json!({"strategy": "Exclusive"}));
    let next = allocate("b", &[("gpu", "gpu-00000000")]);
    node.prepare(&claim).unwrap();
    node.machine.set_stubborn(0, true);
    node.engine.unprepare(&claim.reference).unwrap();
    assert!(node.names("claims").is_empty());
    node.restart();
    let error = node.prepare(&next).unwrap_err();
    assert!(matches!(&*error.cause, PrepareCause::PendingRestore { .. }), "{error}");
    node.prepare(&allocate("c", &[("gpu", "gpu-00000001")])).unwrap();
    node.machine.set_stubborn(0, false);
    node.prepare(&next).unwrap();
    assert_eq!(node.machine.settings(0), DEFAULT);
    node.engine.unprepare(&next.reference).unwrap();
    is_tidy(&node);
}

#[test]
fn shares_of_a_lost_gpu_are_unprepared_and_its_settings_are_restored_when_it_is_readable() {
    for claim in
        [mps_share("a", 1000, 10), request_sharing(ts_share("a", 1000), &[], "GpuConfig", &time_slicing("Long"))]
    {
        let mut node = Node::new(2);
        node.machine.configure(0, Some(ComputeMode::Prohibited), Some(Interval::Medium));
        node.prepare(&claim).unwrap();
        node.machine.set_broken(0, true);
        let problems = node.engine.reconcile(&|_| ClaimLookup::Allocated).problems;
        assert!(
            problems.iter().any(|it| matches!(it, Problem::Gpu { gpu, .. } if *gpu == gpu_uuid(0))),
            "{problems:?}"
        );
        node.prepare(&allocate("other", &[("gpu", "gpu-00000001")])).unwrap();
        node.prepare(&ts_share("late", 1000)).unwrap_err();
        node.engine.unprepare(&claim.reference).unwrap();
        assert!(node.daemons.running().is_empty() && !node.claim_spec_path(&claim).exists());
        node.restart();
        node.machine.set_broken(0, false);
        assert_eq!(node.engine.reconcile(&|_| ClaimLookup::Allocated).restored, [gpu_uuid(0)]);
        assert_eq!(node.machine.settings(0), (Some(ComputeMode::Prohibited), Some(Interval::Medium)));
        is_tidy(&node);
    }
}

#[test]
fn the_reconciliation_the_last_instance_and_the_uninstallation_finish_pending_restores() {
    let ways: [fn(&Node); 4] = [
        |node| assert_eq!(node.engine.restore_unused().restored, [gpu_uuid(0)]),
        |node| assert_eq!(node.engine.reconcile(&|_| ClaimLookup::Allocated).restored, [gpu_uuid(0)]),
        |node| assert!(node.engine.retire()),
        |node| assert_eq!(node.engine.restore_all().restored, [gpu_uuid(0)]),
    ];
    for way in ways {
        let mut node = Node::new(1);
        let claim = request_gpu_sharing("a", &json!({"strategy": "MPS"}));
        node.prepare(&claim).unwrap();
        node.machine.set_broken(0, true);
        node.daemons.set(Mood::Clinging);
        node.engine.unprepare(&claim.reference).unwrap();
        assert!(!node.engine.retire(), "a restore is pending");
        assert_eq!(node.engine.pending_restores().unwrap(), [gpu_uuid(0)].into());
        node.restart();
        node.machine.set_broken(0, false);
        node.daemons.set(Mood::Willing);
        way(&node);
        assert!(node.engine.pending_restores().unwrap().is_empty());
        node.restart();
        assert_eq!(node.machine.settings(0), DEFAULT);
        is_tidy(&node);
    }
}

#[test]
fn an_uninstallation_restores_gpus_that_claims_still_use_and_names_the_claims() {
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
        assert!(node.engine.pending_restores().unwrap().is_empty(), "the claim relies on the settings");
        assert_eq!(node.machine.settings(0), exclusive(Interval::Default), "installed again");
    }
    node.engine.unprepare(&claim.reference).unwrap();
    assert_eq!(node.machine.settings(0), DEFAULT);
    is_tidy(&node);
}

#[test]
fn without_an_mps_host_only_mps_claims_fail_and_their_gpu_is_not_changed() {
    let node = Node::new(1);
    node.daemons.set(Mood::Away);
    let effects = node.files.effects();
    node.prepare(&mps_share("a", 1000, 10)).unwrap_err();
    assert_eq!((node.machine.settings(0), node.names("gpus").len()), (DEFAULT, 0));
    assert!(node.names("claims").is_empty() && node.files.effects() == effects);
    for sharing in [json!({"strategy": "Exclusive"}), time_slicing("Long"), Value::Null] {
        let claim = request_gpu_sharing("b", &sharing);
        node.prepare(&claim).unwrap();
        node.engine.unprepare(&claim.reference).unwrap();
    }
    assert!(node.engine.reconcile(&|_| ClaimLookup::Allocated).problems.is_empty(), "no claim needs the MPS host");
}

#[test]
fn an_absent_mps_host_blocks_no_unprepare_and_no_restore() {
    let node = Node::new(1);
    let claim = mps_share("a", 1000, 10);
    node.prepare(&claim).unwrap();
    node.daemons.set(Mood::Away);
    std::fs::remove_dir_all(node.cdi_dir()).unwrap();
    assert_eq!(node.engine.reconcile(&|_| ClaimLookup::Allocated).problems.len(), 2, "the claim needs the MPS host");
    assert!(node.claim_spec_path(&claim).exists(), "the spec needs no daemon");
    node.engine.unprepare(&claim.reference).unwrap();
    assert_eq!(node.machine.settings(0), DEFAULT);
    let next = allocate("b", &[("gpu", "gpu-00000000")]);
    node.prepare(&next).unwrap();
    node.daemons.set(Mood::Willing);
    node.engine.reconcile(&|_| ClaimLookup::Allocated);
    assert!(node.daemons.running().is_empty(), "stopped when the MPS host is back");
}

#[test]
fn daemons_that_exited_with_their_host_are_restarted() {
    let node = Node::new(1);
    node.prepare(&mps_share("a", 1000, 10)).unwrap();
    node.daemons.exit_all();
    let report = node.engine.reconcile(&|_| ClaimLookup::Allocated);
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!(node.daemons.running().into_keys().collect::<Vec<_>>(), [DaemonId::of_gpu(&gpu_uuid(0))]);
}

#[test]
fn daemons_without_a_claim_are_stopped_by_the_second_reconciliation_unless_they_have_clients() {
    let mut node = Node::new(1);
    let claim = mps_share("a", 1000, 10);
    node.prepare(&claim).unwrap();
    let own = DaemonId::of_gpu(&gpu_uuid(0));
    let [idle, used]: [DaemonId; 2] = [DaemonId::of_gpu(&gpu_uuid(7)), "claim-uid-lost-0".parse().unwrap()];
    node.daemons.add(idle.clone());
    node.daemons.add(used.clone());
    node.daemons.set_used(&used, true);
    let reconcile = |node: &Node| {
        let report = node.engine.reconcile(&|_| ClaimLookup::Allocated);
        (node.daemons.running().into_keys().collect::<Vec<_>>(), report.problems.len())
    };
    assert_eq!(reconcile(&node), (vec![used.clone(), own.clone(), idle.clone()], 0), "a client may be about to start");
    assert_eq!(reconcile(&node), (vec![used.clone(), own.clone()], 1), "the daemon that stays is reported");
    node.daemons.set_used(&used, false);
    assert_eq!(reconcile(&node), (vec![own.clone()], 0));
    std::fs::remove_dir_all(node.state_dir()).unwrap();
    node.restart();
    assert_eq!(reconcile(&node).0, std::slice::from_ref(&own), "the state directory is lost");
    node.prepare(&claim).unwrap();
    assert_eq!((reconcile(&node).0, node.daemons.starts()), (vec![own], 1), "the kubelet asks for the claim again");
}

#[test]
fn after_a_reboot_the_original_settings_are_read_again() {
    let mut node = Node::new(1);
    node.machine.configure(0, Some(ComputeMode::Prohibited), Some(Interval::Long));
    let claims =
        [request_gpu_sharing("a", &json!({"strategy": "Exclusive"})), mps_share("b", 1000, 10), ts_share("c", 1000)];
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
fn a_gpu_with_new_mig_devices_while_it_is_held_has_no_pending_restore() {
    let node = Node::new(1);
    let claim = request_gpu_sharing("a", &json!({"strategy": "Exclusive"}));
    node.prepare(&claim).unwrap();
    node.machine.cut(0, &[0], 1);
    node.engine.unprepare(&claim.reference).unwrap();
    is_tidy(&node);
}

#[test]
fn a_damaged_ledger_is_reported_and_its_gpu_gets_the_default_settings() {
    let node = Node::new(1);
    let claim = mps_share("a", 1000, 10);
    node.prepare(&claim).unwrap();
    std::fs::write(gpu_file(&node), "garbage").unwrap();
    assert_eq!(node.engine.reconcile(&|_| ClaimLookup::Allocated).problems.len(), 1);
    assert_eq!(node.machine.settings(0), exclusive(Interval::Default));
    node.engine.unprepare(&claim.reference).unwrap();
    assert_eq!(node.machine.settings(0), DEFAULT);
    assert!(node.daemons.running().is_empty());
    assert!(node.engine.reconcile(&|_| ClaimLookup::Allocated).problems.is_empty());
}

#[test]
fn a_quarantined_share_keeps_the_settings_and_the_daemon_until_its_quarantine_is_cleared() {
    let mut node = Node::new(1);
    let (lost, other) = (mps_share("lost", 1000, 10), mps_share("other", 1000, 10));
    node.prepare(&lost).unwrap();
    node.prepare(&other).unwrap();
    std::fs::write(node.state_dir().join("claims/uid-lost.json"), "garbage").unwrap();
    node.restart();
    node.prepare(&other).unwrap();
    node.engine.unprepare(&other.reference).unwrap();
    node.engine.reconcile(&|_| ClaimLookup::Allocated);
    assert_eq!((node.machine.settings(0), node.daemons.running().len()), (exclusive(Interval::Default), 1));
    let error = node.prepare(&other).unwrap_err();
    let is_quarantined = matches!(&*error.cause, PrepareCause::Refused(Refusal::HeldByQuarantined { .. }));
    assert!(is_quarantined, "the free capacity of the GPU is unknown: {error}");
    node.prepare(&lost).unwrap();
    node.prepare(&other).unwrap();
    node.engine.unprepare(&other.reference).unwrap();
    node.engine.unprepare(&lost.reference).unwrap();
    assert_eq!((node.machine.settings(0), node.daemons.starts()), (DEFAULT, 1));
    is_tidy(&node);
}

/// After a downgrade of the driver, or while both versions run during an upgrade.
#[test]
fn files_of_a_newer_driver_are_not_changed_and_block_no_unprepare() {
    let mut node = Node::new(2);
    let (theirs, ours) = (mps_share("theirs", 1000, 10), mps_share("ours", 1000, 10));
    node.prepare(&theirs).unwrap();
    node.prepare(&ours).unwrap();
    let files = [node.state_dir().join("claims/uid-theirs.json"), gpu_file(&node)];
    let newer = files.clone().map(|path| {
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.replacen("dra-claim 3 ", "dra-claim 9 ", 1).replacen("gpu-ledger 2 ", "gpu-ledger 9 ", 1);
        std::fs::write(&path, &text).unwrap();
        text
    });
    node.restart();
    let report = node.engine.reconcile(&|_| ClaimLookup::Allocated);
    assert_eq!(report.quarantined[0].path, files[0]);
    assert!(report.problems.iter().any(|problem| matches!(problem, Problem::Gpu { .. })), "{:?}", report.problems);
    assert_eq!(node.daemons.running().len(), 1);
    node.engine.unprepare(&ours.reference).unwrap();
    assert_eq!(files.clone().map(|path| std::fs::read_to_string(path).unwrap()), newer);
    assert_eq!((node.machine.settings(0), node.daemons.stops()), (exclusive(Interval::Default), 0));
    node.prepare(&ours).unwrap_err();
    node.prepare(&allocate("other", &[("gpu", "gpu-00000001")])).unwrap();
    node.engine.unprepare(&theirs.reference).unwrap();
    assert!(!files[0].exists());
    let error = node.prepare(&ours).unwrap_err();
    assert!(matches!(&*error.cause, PrepareCause::PendingRestore { .. }), "{error}");
    std::fs::remove_file(&files[1]).unwrap();
    node.prepare(&ours).unwrap();
}

fn gpu_file(node: &Node) -> std::path::PathBuf {
    node.state_dir().join("gpus").join(format!("{}.json", gpu_uuid(0)))
}

#[test]
fn a_quarantined_claim_that_is_prepared_again_keeps_its_daemon_and_its_settings() {
    let claims = [mps_share("a", 1000, 10), request_gpu_sharing("a", &json!({"strategy": "MPS"}))];
    for claim in claims {
        let mut node = Node::new(1);
        node.machine.configure(0, Some(ComputeMode::Prohibited), Some(Interval::Default));
        let answer = node.prepare(&claim).unwrap();
        std::fs::write(node.state_dir().join("claims/uid-a.json"), "garbage").unwrap();
        node.restart();
        assert_eq!(node.prepare(&claim).unwrap(), answer);
        assert_eq!(node.daemons.starts(), 1, "its clients continue");
        assert_eq!(node.daemons.stops(), 0);
        assert_eq!(node.machine.settings(0), exclusive(Interval::Default));
        node.engine.unprepare(&claim.reference).unwrap();
        assert_eq!(node.machine.settings(0).0, Some(ComputeMode::Prohibited), "the original setting");
        is_tidy(&node);
    }
}

#[test]
fn a_full_disk_blocks_no_unprepare_and_no_restore() {
    let claims = [
        request_gpu_sharing("a", &json!({"strategy": "Exclusive"})),
        request_gpu_sharing("a", &json!({"strategy": "MPS"})),
        mps_share("a", 1000, 10),
        request_sharing(ts_share("a", 1000), &[], "GpuConfig", &time_slicing("Long")),
    ];
    for claim in claims {
        let node = Node::new(1);
        node.machine.configure(0, Some(ComputeMode::Prohibited), Some(Interval::Medium));
        for mood in [Mood::Willing, Mood::Clinging] {
            node.prepare(&claim).unwrap();
            node.files.fail_after(0, Fault::Full);
            node.daemons.set(mood);
            node.engine.unprepare(&claim.reference).unwrap();
            assert!(node.names("claims").is_empty() && !node.claim_spec_path(&claim).exists());
            assert_eq!(node.machine.settings(0), (Some(ComputeMode::Prohibited), Some(Interval::Medium)));
            node.daemons.set(Mood::Willing);
            node.files.heal();
            node.engine.reconcile(&|_| ClaimLookup::Allocated);
            is_tidy(&node);
        }
    }
}

#[test]
fn an_mps_host_that_hangs_costs_a_call_one_timeout_and_its_daemons_count_as_running() {
    let node = Node::new(3);
    let claims: Vec<_> = (0_u32..)
        .zip(["a", "b", "c"])
        .map(|(gpu, name)| shares(name, vec![share("some", &format!("gpu-{gpu:08x}-mps"), "s1", 1000, Some(10))]))
        .collect();
    for claim in &claims {
        node.prepare(claim).unwrap();
    }
    node.daemons.set(Mood::Silent);
    assert_eq!(
        node.engine.reconcile(&|_| ClaimLookup::Allocated).problems.len(),
        4,
        "one problem for each claim and one for the daemons"
    );
    assert_eq!(node.daemons.unanswered(), 1);
    node.prepare(&claims[0]).unwrap_err();
    assert_eq!(node.daemons.unanswered(), 1);
    node.engine.unprepare(&claims[0].reference).unwrap();
    assert_eq!(node.daemons.unanswered(), 1);
    assert_eq!(node.machine.settings(0), DEFAULT);
    let next = allocate("next", &[("gpu", "gpu-00000000")]);
    let error = node.prepare(&next).unwrap_err();
    assert!(matches!(&*error.cause, PrepareCause::PendingRestore { .. }), "the daemon may still use the GPU: {error}");
    node.daemons.set(Mood::Willing);
    node.prepare(&next).unwrap();
    assert_eq!(node.daemons.running().len(), 2);
    for claim in claims.iter().chain([&next]) {
        node.engine.unprepare(&claim.reference).unwrap();
    }
    is_tidy(&node);
}
