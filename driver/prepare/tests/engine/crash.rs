// SPDX-License-Identifier: Apache-2.0
//! Every effect is cut or fails once, and random lives are cut at random: nothing leaks, nothing is given twice, and the
//! same question gets the same answer.

use std::collections::{BTreeMap, BTreeSet};

use dra_files::faults::Fault;
use dra_model::Claim;
use dra_prepare::{ClaimLookup, PrepareCause, PreparedDevice, Refusal};
use proptest::prelude::*;
use rustix::io::Errno;

use crate::cases::cases;
use crate::node::{Node, allocate};

const FAULTS: [Fault; 3] = [Fault::Crash, Fault::Once(Errno::NOSPC), Fault::FromNowOn(Errno::ROFS)];

fn node_with_claims() -> (Node, Vec<Claim>) {
    let node = Node::new(3);
    node.machine.cut(2, &[0, 4], 0);
    node.redraw();
    let allocations: [&[(&str, &str)]; 5] = [
        &[("gpu", "gpu-00000000")],
        &[("a", "gpu-00000001"), ("b", "gpu-00000002-mig-19-0")],
        &[("gpu", "gpu-00000000"), ("mig", "gpu-00000002-mig-19-4")],
        &[("mig", "gpu-00000002-mig-19-0")],
        &[("gpu", "gpu-00000001")],
    ];
    let claims = allocations.iter().enumerate().map(|(at, devices)| allocate(&format!("c{at}"), devices)).collect();
    (node, claims)
}

/// What a killed process leaves, and what the next one finds: the kernel frees its locks, their files stay.
fn restart_after(node: &mut Node, claim: &Claim, fault: Fault) {
    if fault == Fault::Crash {
        let lock = node.locks_dir().join(format!("claim-{}.lock", claim.reference.uid));
        std::fs::write(lock, "claim ns/dead").unwrap();
        node.restart();
    } else {
        node.files.heal();
    }
}

/// Every spec and lock belongs to a record, and nothing is half there.
fn assert_tidy(node: &Node) {
    let report = node.engine.reconcile(&|_| ClaimLookup::Allocated);
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert!(report.quarantined.is_empty(), "{:?}", report.quarantined);
    let records: BTreeSet<String> = node.names("claims").into_iter().collect();
    assert!(records.iter().all(|name| name.starts_with("uid-")), "{records:?}");
    for name in node.names("cdi") {
        let uid = name.strip_prefix("k8s.gpu.nvidia.com-claim_");
        assert!(uid.is_none_or(|uid| records.contains(uid)), "{name} belongs to no claim");
        assert!(uid.is_some() || name.starts_with("k8s.gpu.nvidia.com-base_"), "{name}");
    }
    assert!(node.claim_locks().is_empty(), "{:?}", node.claim_locks());
}

#[test]
fn prepare_can_crash_at_every_effect() {
    let (node, claims) = node_with_claims();
    let expect = node.prepare(&claims[1]).unwrap();
    let effects = node.files.effects();
    for fault in FAULTS {
        for at in 0..effects {
            let (mut node, claims) = node_with_claims();
            let made = node.files.effects();
            node.files.fail_after(at, fault);
            let outcome = node.prepare(&claims[1]);
            if made + at >= node.files.effects() {
                break;
            }
            restart_after(&mut node, &claims[1], fault);
            assert_tidy(&node);
            if let Ok(answer) = outcome {
                assert_eq!(answer, expect);
            }
            assert_eq!(node.prepare(&claims[1]).unwrap(), expect, "{fault:?} at {at}");
            node.engine.unprepare(&claims[1].reference).unwrap();
            assert!(node.names("claims").is_empty());
            assert_tidy(&node);
        }
    }
}

#[test]
fn unprepare_can_be_cut_at_every_effect_and_right_after_a_cut_prepare() {
    for fault in FAULTS {
        for at in 0..6 {
            let (mut node, claims) = node_with_claims();
            let expect = node.prepare(&claims[1]).unwrap();
            node.files.fail_after(at, fault);
            let outcome = node.engine.unprepare(&claims[1].reference);
            restart_after(&mut node, &claims[1], fault);
            assert_tidy(&node);
            if outcome.is_ok() {
                assert!(node.names("claims").is_empty(), "{fault:?} at {at}");
            }
            assert_eq!(node.prepare(&claims[1]).unwrap(), expect, "{fault:?} at {at}");
            node.engine.unprepare(&claims[1].reference).unwrap();
            assert_tidy(&node);
            assert!(node.names("claims").is_empty());
        }
    }
}

#[test]
fn a_repair_can_crash_at_every_effect_and_never_releases_the_device() {
    for fault in FAULTS {
        for at in 0..8 {
            let (mut node, claims) = node_with_claims();
            node.prepare(&claims[1]).unwrap();
            std::fs::remove_file(node.claim_spec_path(&claims[1])).unwrap();
            node.machine.cut(2, &[0, 4], 1);
            node.redraw();
            node.files.fail_after(at, fault);
            node.prepare(&claims[1]).ok();
            restart_after(&mut node, &claims[1], fault);
            let refused = node.prepare(&claims[3]).unwrap_err();
            assert!(matches!(&*refused.cause, PrepareCause::Refused(Refusal::Held { .. })), "{refused}");
            assert_tidy(&node);
            let answer = node.prepare(&claims[1]).unwrap();
            assert_eq!(node.prepare(&claims[1]).unwrap(), answer, "{fault:?} at {at}");
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Prepare(usize),
    Unprepare(usize),
    Restart,
    Reboot,
    Reconcile,
}

fn act() -> impl Strategy<Value = (Act, Option<(u64, usize)>)> {
    let act = prop_oneof![
        5 => (0_usize..5).prop_map(Act::Prepare),
        4 => (0_usize..5).prop_map(Act::Unprepare),
        1 => Just(Act::Restart),
        1 => Just(Act::Reboot),
        1 => Just(Act::Reconcile),
    ];
    (act, prop::option::weighted(0.5, (0_u64..9, 0_usize..3)))
}

/// What must be true of the claims, kept beside the engine.
#[derive(Default)]
struct Model {
    /// Reported as usable, with the answer, which holds for one boot.
    usable: BTreeMap<usize, Option<Vec<PreparedDevice>>>,
    /// A call to prepare or unprepare it failed: it may hold its devices or not.
    maybe: BTreeSet<usize>,
}

impl Model {
    fn conflicts(claims: &[Claim], one: usize, other: usize) -> bool {
        let names = |at: usize| claims[at].devices.iter().map(|device| &device.device);
        one != other && names(one).any(|name| names(other).any(|other| other == name))
    }

    fn after_prepare(
        &mut self,
        claims: &[Claim],
        at: usize,
        fault: bool,
        outcome: Result<Vec<PreparedDevice>, String>,
    ) {
        let held_by_usable = self.usable.keys().any(|other| Self::conflicts(claims, at, *other));
        let held_by_maybe = self.maybe.iter().any(|other| Self::conflicts(claims, at, *other));
        match outcome {
            Ok(answer) => {
                assert!(!held_by_usable, "claim {at} got a device that another one has");
                if let Some(Some(before)) = self.usable.get(&at) {
                    assert_eq!(&answer, before, "another answer for the same question");
                }
                self.usable.insert(at, Some(answer));
                self.maybe.remove(&at);
            }
            Err(error) => {
                assert!(fault || held_by_usable || held_by_maybe, "claim {at} was refused for no reason: {error}");
                if !self.usable.contains_key(&at) && fault {
                    self.maybe.insert(at);
                }
            }
        }
    }

    fn after_unprepare(&mut self, at: usize, fault: bool, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => {
                self.maybe.remove(&at);
            }
            Err(error) => {
                assert!(fault, "claim {at} was not unprepared without a reason: {error}");
                self.maybe.insert(at);
            }
        }
        self.usable.remove(&at);
    }

    /// A prepared claim keeps its devices, whose instance ids may differ after a reboot.
    fn after_reboot(&mut self) {
        self.usable.values_mut().for_each(|answer| *answer = None);
    }
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn random_scenarios_with_random_crashes_leak_nothing_and_allocate_nothing_twice(acts in prop::collection::vec(act(), 1..16)) {
        let (mut node, claims) = node_with_claims();
        let mut model = Model::default();
        for (act, cut) in acts {
            let fault = cut.map(|(at, kind)| (at, FAULTS[kind]));
            if let Some((at, fault)) = fault {
                node.files.fail_after(at, fault);
            }
            match act {
                Act::Prepare(at) => {
                    let outcome = node.prepare(&claims[at]).map_err(|error| error.to_string());
                    model.after_prepare(&claims, at, cut.is_some(), outcome);
                }
                Act::Unprepare(at) => {
                    let outcome = node.engine.unprepare(&claims[at].reference).map_err(|error| error.to_string());
                    model.after_unprepare(at, cut.is_some(), outcome);
                }
                Act::Restart => node.restart(),
                Act::Reboot => {
                    node.reboot();
                    model.after_reboot();
                }
                Act::Reconcile => { node.engine.reconcile(&|_| ClaimLookup::Unknown); }
            }
            if let (Some((_, fault)), Act::Prepare(at) | Act::Unprepare(at)) = (fault, act) {
                restart_after(&mut node, &claims[at], fault);
            }
            node.files.heal();
            assert_tidy(&node);
            // Whatever has a record still has a claim that asked for it.
            let records = node.names("claims").len();
            prop_assert!(records <= model.usable.len() + model.maybe.len());
            prop_assert!(records >= model.usable.len());
        }
        for claim in &claims {
            node.engine.unprepare(&claim.reference).unwrap();
        }
        assert_tidy(&node);
        prop_assert!(node.names("claims").is_empty());
        prop_assert!(node.names("cdi").iter().all(|name| name.contains("-base_")));
    }
}
