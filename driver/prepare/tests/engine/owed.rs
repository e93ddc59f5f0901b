// SPDX-License-Identifier: Apache-2.0
//! What is owed to a GPU: paid when its last claim goes, and where that fails, by the next claim, the reconciliation, the
//! last instance and the uninstallation.

use dra_files::faults::Fault;
use dra_hardware::Setting;
use dra_model::{ComputeMode, DaemonId, Interval};
use dra_prepare::reconcile::Problem;
use dra_prepare::{ClaimLife, Deed, PrepareCause, Refusal};
use serde_json::{Value, json};

use crate::daemons::Mood;
use crate::node::{Node, allocate, share, shares, wish};
use crate::sharing::{DEFAULT, exclusive, gpu_wish, is_tidy, mps_share, time_slicing, ts_share};
use crate::twin::gpu_uuid;

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

/// Each claim needs a compute mode, and the last one an interval; both were set by it, or were right before.
#[test]
fn what_was_found_comes_back_whatever_was_changed_and_changed_back_meanwhile() {
    let long = wish(ts_share("a", 1000), &[], "GpuConfig", &time_slicing("Long"));
    let exclusively = gpu_wish("a", &json!({"strategy": "Exclusive"}));
    for (claim, needs_interval) in [(exclusively, false), (mps_share("a", 1000, 10), false), (long, true)] {
        for found in [DEFAULT, exclusive(Interval::Long), (Some(ComputeMode::Default), Some(Interval::Long))] {
            for is_changed_back in [true, false] {
                let node = Node::new(1);
                node.machine.configure(0, found.0, found.1);
                node.prepare(&claim).unwrap();
                let during = node.machine.settings(0);
                let mode = if during.0 == DEFAULT.0 { ComputeMode::ExclusiveProcess } else { ComputeMode::Default };
                node.machine.configure(0, Some(mode), if needs_interval { Some(Interval::Default) } else { found.1 });
                node.engine.reconcile(&|_| ClaimLife::Alive);
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
fn what_was_changed_is_told_although_the_ledger_is_lost() {
    let node = Node::new(1);
    let claim = wish(ts_share("a", 1000), &[], "GpuConfig", &time_slicing("Long"));
    node.prepare(&claim).unwrap();
    std::fs::remove_file(gpu_file(&node)).unwrap();
    node.machine.configure(0, Some(ComputeMode::Default), Some(Interval::Short));
    let drifted = node.engine.reconcile(&|_| ClaimLife::Alive).drifted;
    assert_eq!(drifted.iter().map(|it| it.setting).collect::<Vec<_>>(), [Setting::Interval]);
    node.prepare(&claim).unwrap();
    assert_eq!(node.machine.settings(0).1, Some(Interval::Long));
    node.engine.unprepare(&claim.reference).unwrap();
    assert_eq!(node.machine.settings(0).1, Some(Interval::Short), "what is found then is given back");
    is_tidy(&node);
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
fn shares_of_a_gpu_that_is_lost_leave_and_it_has_back_what_it_had_when_it_returns() {
    for claim in [mps_share("a", 1000, 10), wish(ts_share("a", 1000), &[], "GpuConfig", &time_slicing("Long"))] {
        let mut node = Node::new(2);
        node.machine.configure(0, Some(ComputeMode::Prohibited), Some(Interval::Medium));
        node.prepare(&claim).unwrap();
        node.machine.set_broken(0, true);
        let problems = node.engine.reconcile(&|_| ClaimLife::Alive).problems;
        assert!(
            problems.iter().any(|it| matches!(it, Problem::Debt { gpu, .. } if *gpu == gpu_uuid(0))),
            "{problems:?}"
        );
        node.prepare(&allocate("other", &[("gpu", "gpu-00000001")])).unwrap();
        node.prepare(&ts_share("late", 1000)).unwrap_err();
        node.engine.unprepare(&claim.reference).unwrap();
        assert!(node.daemons.running().is_empty() && !node.claim_spec_path(&claim).exists());
        node.restart();
        node.machine.set_broken(0, false);
        assert_eq!(node.engine.reconcile(&|_| ClaimLife::Alive).restored, [gpu_uuid(0)]);
        assert_eq!(node.machine.settings(0), (Some(ComputeMode::Prohibited), Some(Interval::Medium)));
        is_tidy(&node);
    }
}

#[test]
fn the_reconciliation_the_last_instance_and_the_uninstallation_pay_what_is_owed() {
    let ways: [fn(&Node); 4] = [
        |node| assert_eq!(node.engine.restore_unused().restored, [gpu_uuid(0)]),
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
    std::fs::remove_dir_all(node.cdi_dir()).unwrap();
    assert_eq!(node.engine.reconcile(&|_| ClaimLife::Alive).problems.len(), 2, "the claim misses it");
    assert!(node.claim_spec_path(&claim).exists(), "and has again what needs no daemon");
    node.engine.unprepare(&claim.reference).unwrap();
    assert_eq!(node.machine.settings(0), DEFAULT);
    let next = allocate("b", &[("gpu", "gpu-00000000")]);
    node.prepare(&next).unwrap();
    node.daemons.set(Mood::Willing);
    node.engine.reconcile(&|_| ClaimLife::Alive);
    assert!(node.daemons.running().is_empty(), "ended when it can be");
}

#[test]
fn daemons_that_died_with_their_host_are_started_again() {
    let node = Node::new(1);
    node.prepare(&mps_share("a", 1000, 10)).unwrap();
    node.daemons.die();
    let report = node.engine.reconcile(&|_| ClaimLife::Alive);
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!(node.daemons.running().into_keys().collect::<Vec<_>>(), [DaemonId::of_gpu(&gpu_uuid(0))]);
}

#[test]
fn daemons_of_nobody_end_at_the_second_look_unless_they_have_clients() {
    let mut node = Node::new(1);
    let claim = mps_share("a", 1000, 10);
    node.prepare(&claim).unwrap();
    let own = DaemonId::of_gpu(&gpu_uuid(0));
    let [idle, used]: [DaemonId; 2] = [DaemonId::of_gpu(&gpu_uuid(7)), "claim-uid-lost-0".parse().unwrap()];
    node.daemons.add(idle.clone());
    node.daemons.add(used.clone());
    node.daemons.set_used(&used, true);
    let look = |node: &Node| {
        let report = node.engine.reconcile(&|_| ClaimLife::Alive);
        (node.daemons.running().into_keys().collect::<Vec<_>>(), report.problems.len())
    };
    assert_eq!(look(&node), (vec![used.clone(), own.clone(), idle.clone()], 0), "its first client may be on its way");
    assert_eq!(look(&node), (vec![used.clone(), own.clone()], 1), "the one that stays is told");
    node.daemons.set_used(&used, false);
    assert_eq!(look(&node), (vec![own.clone()], 0));
    std::fs::remove_dir_all(node.state_dir()).unwrap();
    node.restart();
    assert_eq!(look(&node).0, std::slice::from_ref(&own), "what the state directory knew is lost");
    node.prepare(&claim).unwrap();
    assert_eq!((look(&node).0, node.daemons.starts()), (vec![own], 1), "the kubelet asks for the claim again");
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
    std::fs::write(gpu_file(&node), "garbage").unwrap();
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
    node.prepare(&other).unwrap();
    node.engine.unprepare(&other.reference).unwrap();
    node.engine.reconcile(&|_| ClaimLife::Alive);
    assert_eq!((node.machine.settings(0), node.daemons.running().len()), (exclusive(Interval::Default), 1));
    let error = node.prepare(&other).unwrap_err();
    let in_doubt = matches!(&*error.cause, PrepareCause::Refused(Refusal::HeldInDoubt { .. }));
    assert!(in_doubt, "what is left of the GPU is not known: {error}");
    node.prepare(&lost).unwrap();
    node.prepare(&other).unwrap();
    node.engine.unprepare(&other.reference).unwrap();
    node.engine.unprepare(&lost.reference).unwrap();
    assert_eq!((node.machine.settings(0), node.daemons.starts()), (DEFAULT, 1));
    is_tidy(&node);
}

/// A driver that was gone back from, or runs on beside this one during an upgrade.
#[test]
fn what_a_newer_driver_wrote_is_left_for_it_and_keeps_no_claim_from_leaving() {
    let mut node = Node::new(2);
    let (theirs, ours) = (mps_share("theirs", 1000, 10), mps_share("ours", 1000, 10));
    node.prepare(&theirs).unwrap();
    node.prepare(&ours).unwrap();
    let files = [node.state_dir().join("claims/uid-theirs.json"), gpu_file(&node)];
    let newer = files.clone().map(|path| {
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.replacen("dra-claim 2 ", "dra-claim 9 ", 1).replacen("gpu-ledger 1 ", "gpu-ledger 9 ", 1);
        std::fs::write(&path, &text).unwrap();
        text
    });
    node.restart();
    let report = node.engine.reconcile(&|_| ClaimLife::Alive);
    assert_eq!(report.quarantined[0].path, files[0]);
    assert!(report.problems.iter().any(|problem| matches!(problem, Problem::Debt { .. })), "{:?}", report.problems);
    assert_eq!(node.daemons.running().len(), 1);
    node.engine.unprepare(&ours.reference).unwrap();
    assert_eq!(files.clone().map(|path| std::fs::read_to_string(path).unwrap()), newer);
    assert_eq!((node.machine.settings(0), node.daemons.stops()), (exclusive(Interval::Default), 0));
    node.prepare(&ours).unwrap_err();
    node.prepare(&allocate("other", &[("gpu", "gpu-00000001")])).unwrap();
    node.engine.unprepare(&theirs.reference).unwrap();
    assert!(!files[0].exists());
    let error = node.prepare(&ours).unwrap_err();
    assert!(matches!(&*error.cause, PrepareCause::Debt { .. }), "{error}");
    std::fs::remove_file(&files[1]).unwrap();
    node.prepare(&ours).unwrap();
}

fn gpu_file(node: &Node) -> std::path::PathBuf {
    node.state_dir().join("gpus").join(format!("{}.json", gpu_uuid(0)))
}

#[test]
fn a_claim_in_doubt_that_is_prepared_again_keeps_its_daemon_and_its_settings() {
    let claims = [mps_share("a", 1000, 10), gpu_wish("a", &json!({"strategy": "MPS"}))];
    for claim in claims {
        let mut node = Node::new(1);
        node.machine.configure(0, Some(ComputeMode::Prohibited), Some(Interval::Default));
        let answer = node.prepare(&claim).unwrap();
        std::fs::write(node.state_dir().join("claims/uid-a.json"), "garbage").unwrap();
        node.restart();
        assert_eq!(node.prepare(&claim).unwrap(), answer);
        assert_eq!(node.daemons.starts(), 1, "its clients go on");
        assert_eq!(node.daemons.stops(), 0);
        assert_eq!(node.machine.settings(0), exclusive(Interval::Default));
        node.engine.unprepare(&claim.reference).unwrap();
        assert_eq!(node.machine.settings(0).0, Some(ComputeMode::Prohibited), "as it was found before all of that");
        is_tidy(&node);
    }
}

#[test]
fn a_full_disk_keeps_no_claim_from_leaving_and_no_gpu_from_getting_back_what_it_had() {
    let claims = [
        gpu_wish("a", &json!({"strategy": "Exclusive"})),
        gpu_wish("a", &json!({"strategy": "MPS"})),
        mps_share("a", 1000, 10),
        wish(ts_share("a", 1000), &[], "GpuConfig", &time_slicing("Long")),
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
            node.engine.reconcile(&|_| ClaimLife::Alive);
            is_tidy(&node);
        }
    }
}

#[test]
fn an_mps_host_that_hangs_costs_a_call_one_patience_and_counts_as_one_whose_daemons_live() {
    let node = Node::new(3);
    let claims: Vec<_> = (0_u32..)
        .zip(["a", "b", "c"])
        .map(|(gpu, name)| shares(name, vec![share("some", &format!("gpu-{gpu:08x}-mps"), "s1", 1000, Some(10))]))
        .collect();
    for claim in &claims {
        node.prepare(claim).unwrap();
    }
    node.daemons.set(Mood::Silent);
    assert_eq!(node.engine.reconcile(&|_| ClaimLife::Alive).problems.len(), 4, "each claim and the daemons are told");
    assert_eq!(node.daemons.unanswered(), 1);
    node.prepare(&claims[0]).unwrap_err();
    assert_eq!(node.daemons.unanswered(), 1);
    node.engine.unprepare(&claims[0].reference).unwrap();
    assert_eq!(node.daemons.unanswered(), 1);
    assert_eq!(node.machine.settings(0), DEFAULT);
    let next = allocate("next", &[("gpu", "gpu-00000000")]);
    let error = node.prepare(&next).unwrap_err();
    assert!(matches!(&*error.cause, PrepareCause::Debt { .. }), "its daemon may have the GPU: {error}");
    node.daemons.set(Mood::Willing);
    node.prepare(&next).unwrap();
    assert_eq!(node.daemons.running().len(), 2);
    for claim in claims.iter().chain([&next]) {
        node.engine.unprepare(&claim.reference).unwrap();
    }
    is_tidy(&node);
}
