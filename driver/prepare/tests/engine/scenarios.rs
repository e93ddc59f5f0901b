// SPDX-License-Identifier: Apache-2.0
//! Random lives of claims that share GPUs, cut at random: forms never mix, nothing is prepared twice, every daemon belongs
//! to a claim, and a GPU that no claim uses has what its administrator had set before the first claim that needed anything
//! else, whatever was changed and changed back meanwhile.

mod expected;

use std::collections::{BTreeMap, BTreeSet};

use dra_files::faults::Fault;
use dra_model::{ClaimRef, ComputeMode, Interval};
use dra_prepare::{ClaimLookup, Drift};
use proptest::prelude::*;
use rustix::io::Errno;

use self::expected::{EXCLUSIVE, Expected, expected};
use crate::cases::cases;
use crate::daemons::Mood;
use crate::node::Node;

const FAULTS: [Fault; 3] = [Fault::Crash, Fault::Once(Errno::NOSPC), Fault::FromNowOn(Errno::ROFS)];

/// What an idle H100 has free, as far as it is published.
const MEMORY_MIB: u64 = 81_047;

#[derive(Debug, Clone, Copy)]
enum Act {
    Prepare(usize),
    Unprepare(usize),
    Restart,
    Reboot,
    HostExits,
    /// The record of a claim is cut, or garbage.
    Damage(usize, bool),
    Admin(u32, ComputeMode, Interval),
    Reconcile,
}

/// What is wrong while the act runs.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    Disk(u64, usize),
    Host(Mood),
    Stubborn(u32),
}

fn admin() -> impl Strategy<Value = Act> {
    let mode = prop_oneof![Just(ComputeMode::Default), Just(ComputeMode::Prohibited), Just(EXCLUSIVE)];
    let interval = prop::sample::select(Interval::ALL.to_vec());
    (0_u32..2, mode, interval).prop_map(|(gpu, mode, interval)| Act::Admin(gpu, mode, interval))
}

/// An act, what is wrong meanwhile, and whether the node is looked after before the next act.
fn act() -> impl Strategy<Value = (Act, Option<Trouble>, bool)> {
    let act = prop_oneof![
        8 => (0_usize..12).prop_map(Act::Prepare),
        6 => (0_usize..12).prop_map(Act::Unprepare),
        1 => Just(Act::Restart),
        1 => Just(Act::Reboot),
        1 => Just(Act::HostExits),
        1 => (0_usize..12, any::<bool>()).prop_map(|(at, cut)| Act::Damage(at, cut)),
        3 => admin(),
        1 => Just(Act::Reconcile),
    ];
    let trouble = prop_oneof![
        4 => (0_u64..25, 0_usize..3).prop_map(|(at, fault)| Trouble::Disk(at, fault)),
        1 => prop_oneof![Just(Mood::Away), Just(Mood::Silent), Just(Mood::Refusing), Just(Mood::Clinging)]
            .prop_map(Trouble::Host),
        1 => (0_u32..2).prop_map(Trouble::Stubborn),
    ];
    (act, prop::option::weighted(0.4, trouble), prop::bool::weighted(0.6))
}

/// Values of the settings of a GPU, one of which comes back to it when no claim uses it. There are several only where it is
/// not certain that a claim had set the GPU before an administrator did.
struct Before {
    modes: Vec<ComputeMode>,
    intervals: Vec<Interval>,
}

/// Whether claims have set something of a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Taken {
    No,
    Perhaps,
    Surely,
}

impl Taken {
    /// An administrator changes what was set before the claims, or what will be there after them.
    fn changed<T>(self, before: &mut Vec<T>, now: T) {
        match self {
            Self::No => *before = vec![now],
            Self::Perhaps => before.push(now),
            Self::Surely => {}
        }
    }
}

/// What must be true, kept beside the engine.
struct Model {
    wanted: Vec<Expected>,
    /// Reported as usable, and whether in this boot.
    usable: BTreeMap<usize, bool>,
    /// A call to prepare or unprepare it failed.
    maybe: BTreeSet<usize>,
    /// Those of which the record was damaged.
    damaged: BTreeSet<usize>,
    /// Those of which it is hardly known what they held, and that hold nothing any more.
    ghosts: BTreeSet<usize>,
    /// What comes back to each GPU.
    before: BTreeMap<u32, Before>,
    /// GPUs that an administrator changed since the last prepare, and whether the reconciliation saw it.
    changed: BTreeMap<u32, bool>,
}

impl Model {
    fn new() -> Self {
        let fresh = || Before { modes: vec![ComputeMode::Default], intervals: vec![Interval::Default] };
        let before = (0..3).map(|gpu| (gpu, fresh())).collect();
        Self {
            wanted: expected(),
            usable: BTreeMap::new(),
            maybe: BTreeSet::new(),
            damaged: BTreeSet::new(),
            ghosts: BTreeSet::new(),
            before,
            changed: BTreeMap::new(),
        }
    }

    fn held(&self) -> impl Iterator<Item = &Expected> {
        self.usable.keys().chain(&self.maybe).chain(&self.ghosts).map(|at| &self.wanted[*at])
    }

    fn clear_quarantine(&mut self, at: usize) {
        self.damaged.remove(&at);
        self.ghosts.remove(&at);
    }

    fn users(&self, gpu: u32) -> usize {
        self.held().filter(|wanted| wanted.uses.iter().any(|(used, _)| *used == gpu)).count()
    }

    fn prepared(&mut self, at: usize, is_in_trouble: bool, outcome: Result<(), String>) {
        let is_beside = |other: &&usize| **other != at;
        let known = || self.usable.keys().chain(&self.maybe).chain(&self.ghosts);
        let beside = || known().filter(is_beside).map(|other| &self.wanted[*other]);
        match outcome {
            Ok(()) => {
                let excluded =
                    self.usable.keys().filter(is_beside).any(|it| self.wanted[at].excludes(&self.wanted[*it]));
                assert!(!excluded, "c{at} got a GPU in another form than those who have it");
                self.usable.insert(at, true);
                self.maybe.remove(&at);
                self.clear_quarantine(at);
                for (gpu, _) in &self.wanted[at].uses {
                    // An interval that was changed is set again when the change was seen.
                    self.changed.retain(|changed, seen| changed != gpu || !*seen);
                }
            }
            Err(error) => {
                let uses_same = |other: &Expected| {
                    other.uses.iter().any(|(gpu, _)| self.wanted[at].uses.iter().any(|(own, _)| own == gpu))
                };
                assert!(is_in_trouble || beside().any(uses_same), "c{at} was refused for no reason: {error}");
                if is_in_trouble && !self.usable.contains_key(&at) {
                    self.maybe.insert(at);
                }
            }
        }
    }

    fn unprepared(&mut self, at: usize, is_in_trouble: bool, outcome: Result<(), String>) {
        self.usable.remove(&at);
        match outcome {
            Ok(()) => {
                self.maybe.remove(&at);
                self.clear_quarantine(at);
            }
            Err(error) => {
                assert!(is_in_trouble, "c{at} was not unprepared without a reason: {error}");
                self.maybe.insert(at);
            }
        }
    }

    /// What a record said of an earlier boot, or of a shares that was not kept, need not be known any more: no container
    /// has it.
    fn damaged(&mut self, at: usize) {
        if self.usable.get(&at) == Some(&true) {
            self.damaged.insert(at);
        } else {
            self.usable.remove(&at);
            self.maybe.remove(&at);
            self.ghosts.insert(at);
        }
    }

    fn configured(&mut self, gpu: u32, mode: ComputeMode, interval: Interval) {
        let (mode_is, interval_is) = (self.taken(gpu, |needs| needs.0), self.taken(gpu, |needs| needs.1));
        let before = self.before.get_mut(&gpu).unwrap();
        mode_is.changed(&mut before.modes, mode);
        interval_is.changed(&mut before.intervals, interval);
        if self.users(gpu) > 0 {
            self.changed.insert(gpu, false);
        }
    }

    /// Whether a claim that needs a setting has set it.
    fn taken(&self, gpu: u32, needs: impl Fn((bool, bool)) -> bool) -> Taken {
        let needs_it = |at: &usize| self.wanted[*at].uses.iter().any(|(used, how)| *used == gpu && needs(how.needs()));
        let surely = self.usable.iter().filter(|(at, now)| **now && !self.damaged.contains(at)).map(|(at, _)| at);
        let perhaps = self.usable.keys().chain(&self.maybe).chain(&self.ghosts);
        let surely = surely.filter(|at| needs_it(at)).map(|_| Taken::Surely);
        surely.chain(perhaps.filter(|at| needs_it(at)).map(|_| Taken::Perhaps)).max().unwrap_or(Taken::No)
    }

    fn rebooted(&mut self) {
        let wanted = self.wanted.len();
        let is_damaged = |at: &usize| self.damaged.contains(at);
        *self = Self {
            usable: self.usable.keys().filter(|at| !is_damaged(at)).map(|at| (*at, false)).collect(),
            maybe: self.maybe.iter().copied().filter(|at| !is_damaged(at)).collect(),
            ghosts: self.ghosts.union(&self.damaged).copied().collect(),
            ..Self::new()
        };
        assert_eq!(self.wanted.len(), wanted);
    }

    /// After everything works again and was looked after.
    fn check(&self, node: &Node) {
        self.check_settings(node);
        let prepared = node.engine.prepared_shares().unwrap();
        assert!(prepared.iter().all(|shares| shares.memory.mib() <= MEMORY_MIB), "{prepared:?}");
        for gpu in 0..2 {
            let shares = self.usable.keys().map(|at| &self.wanted[*at]).filter(|it| it.uses[0].0 == gpu);
            assert!(shares.map(|share| share.mib).sum::<u64>() <= MEMORY_MIB);
        }
        let running: BTreeSet<String> = node.daemons.running().into_keys().map(|id| id.to_string()).collect();
        let of = |at: &usize| self.wanted[*at].daemon.clone();
        // One whose record was damaged has its daemon again when it is asked for again.
        let is_known = |(at, now): &(&usize, &bool)| **now && !self.damaged.contains(at);
        let needed: BTreeSet<String> = self.usable.iter().filter(is_known).filter_map(|(at, _)| of(at)).collect();
        let known = self.usable.keys().chain(&self.maybe).chain(&self.ghosts);
        let known: BTreeSet<String> = known.filter_map(of).collect();
        assert!(running.is_superset(&needed), "{needed:?} are needed, {running:?} run");
        assert!(running.is_subset(&known), "{running:?} run, {known:?} are known");
    }

    fn check_settings(&self, node: &Node) {
        for gpu in 0..3 {
            let (mode, interval) = node.machine.settings(gpu);
            let Before { modes, intervals } = &self.before[&gpu];
            if self.users(gpu) == 0 {
                assert!(mode.is_none_or(|mode| modes.contains(&mode)), "{gpu} is {mode:?}, before {modes:?}");
                assert!(intervals.contains(&interval.unwrap()), "{gpu} is {interval:?}, before {intervals:?}");
                continue;
            }
            let usable = self.usable.iter().filter(|(_, now)| **now && !self.changed.contains_key(&gpu));
            let uses = usable.flat_map(|(at, _)| &self.wanted[*at].uses).filter(|(used, _)| *used == gpu);
            for (wanted_mode, wanted_interval) in uses.map(|(_, how)| how.settings()) {
                assert!(wanted_mode.is_none() || wanted_mode == mode, "{gpu} is {mode:?}, not {wanted_mode:?}");
                assert!(wanted_interval.is_none() || wanted_interval == interval, "{gpu} is {interval:?}");
            }
        }
    }
}

fn cause(node: &Node, trouble: Trouble) {
    match trouble {
        Trouble::Disk(at, fault) => node.files.fail_after(at, FAULTS[fault]),
        Trouble::Host(mood) => node.daemons.set(mood),
        Trouble::Stubborn(gpu) => node.machine.set_stubborn(gpu, true),
    }
}

fn end(node: &mut Node, trouble: Trouble) {
    match trouble {
        Trouble::Disk(_, fault) if FAULTS[fault] == Fault::Crash => node.restart(),
        Trouble::Disk(..) => node.files.heal(),
        Trouble::Host(_) => node.daemons.set(Mood::Willing),
        Trouble::Stubborn(gpu) => node.machine.set_stubborn(gpu, false),
    }
}

fn live(node: &mut Node, model: &mut Model, (act, trouble, is_looked_after): (Act, Option<Trouble>, bool)) {
    if let Some(trouble) = trouble {
        cause(node, trouble);
    }
    match act {
        Act::Prepare(at) => {
            let outcome = node.prepare(&model.wanted[at].claim).map(|_| ()).map_err(|error| error.to_string());
            model.prepared(at, trouble.is_some(), outcome);
        }
        Act::Unprepare(at) => {
            let outcome = node.engine.unprepare(&model.wanted[at].claim.reference).map_err(|error| error.to_string());
            model.unprepared(at, trouble.is_some(), outcome);
        }
        Act::Restart => node.restart(),
        Act::Reboot => {
            node.reboot();
            model.rebooted();
        }
        Act::HostExits => node.daemons.exit_all(),
        Act::Damage(at, cut) => {
            let path = node.state_dir().join(format!("claims/uid-c{at}.json"));
            if let Ok(bytes) = std::fs::read(&path) {
                std::fs::write(path, if cut { &bytes[..bytes.len() / 2] } else { b"garbage" }).unwrap();
                model.damaged(at);
            }
        }
        Act::Admin(gpu, mode, interval) => {
            node.machine.configure(gpu, Some(mode), Some(interval));
            model.configured(gpu, mode, interval);
        }
        Act::Reconcile => {
            node.engine.reconcile(&|_| ClaimLookup::Unknown);
        }
    }
    if let Some(trouble) = trouble {
        end(node, trouble);
    } else if !is_looked_after {
        return;
    }
    look_after(node, model);
    model.check(node);
}

fn look_after(node: &Node, model: &mut Model) {
    let report = node.engine.reconcile(&|_| ClaimLookup::Allocated);
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    // A claim whose unprepare failed halfway on a full disk still has a ready record.
    let is_maybe = |claim: &ClaimRef| model.maybe.iter().any(|at| model.wanted[*at].claim.reference == *claim);
    let is_explained = |drift: &Drift| !model.changed.is_empty() || drift.claims.iter().all(is_maybe);
    assert!(report.drifted.iter().all(is_explained), "{:?}", report.drifted);
    model.changed.values_mut().for_each(|seen| *seen = true);
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn random_scenarios_of_shares_mix_no_forms_and_leave_the_original_settings(
        acts in prop::collection::vec(act(), 1..24), changes in prop::collection::vec((admin(), any::<bool>()), 0..4),
    ) {
        let mut node = Node::new(3);
        node.machine.cut(2, &[0], 0);
        node.redraw();
        let mut model = Model::new();
        for act in acts {
            live(&mut node, &mut model, act);
        }
        for (act, is_looked_after) in changes {
            live(&mut node, &mut model, (act, None, is_looked_after));
        }
        for at in 0..model.wanted.len() {
            live(&mut node, &mut model, (Act::Unprepare(at), None, false));
        }
        look_after(&node, &mut model);
        model.check(&node);
        prop_assert!(node.names("claims").is_empty() && node.names("gpus").is_empty());
        prop_assert!(node.daemons.running().is_empty());
    }
}
