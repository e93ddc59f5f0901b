// SPDX-License-Identifier: Apache-2.0
//! Random operations on GPUs that are used in every form, with crashes, reboots and administrators: no two prepared claims
//! overlap, the instances of administrators stay, and when every claim is gone the GPUs are as the administrators left them.

use std::collections::{BTreeMap, BTreeSet};

use dra_files::faults::Fault;
use dra_model::{Claim, LiveIdentity};
use dra_prepare::{ClaimLookup, PreparedDevice};
use dra_sim::catalog::Placement;
use dra_sim::state::MigUuids;
use proptest::prelude::*;

use crate::cases::cases;
use crate::mig_node::MigNode;
use crate::node::{allocate, share, shares};

/// Two H100, and an A100 that an administrator has put into MIG mode.
const MODELS: [&str; 3] = ["h100", "h100", "a100-40"];

/// GPU, profile, start and size of what claims and administrators want.
const PLACES: [(usize, u32, u32, u32); 12] = [
    (0, 9, 0, 4),
    (0, 9, 4, 4),
    (0, 19, 0, 1),
    (0, 19, 6, 1),
    (0, 20, 5, 1),
    (0, 14, 2, 2),
    (0, 0, 0, 8),
    (1, 15, 6, 2),
    (1, 5, 0, 4),
    (2, 9, 0, 4),
    (2, 19, 6, 1),
    (2, 14, 4, 2),
];

/// Claims for one place each, for two at once, and for whole GPUs, alone and shared.
const CLAIMS: usize = PLACES.len() + 6;

#[derive(Debug, Clone, Copy)]
enum Act {
    Prepare(usize),
    Unprepare(usize),
    Restart,
    Reboot,
    Reconcile,
    /// An administrator creates what is at a place, or destroys it, also that of a claim.
    AdminCreates(usize),
    AdminDestroys(usize),
    AdminReplaces(usize),
}

/// After how many changes of GPUs or writes the process is killed.
#[derive(Debug, Clone, Copy)]
enum Kill {
    Changes(u64),
    Writes(u64),
}

fn act() -> impl Strategy<Value = (Act, Option<Kill>)> {
    let act = prop_oneof![
        10 => (0..CLAIMS).prop_map(Act::Prepare),
        7 => (0..CLAIMS).prop_map(Act::Unprepare),
        1 => Just(Act::Restart),
        1 => Just(Act::Reboot),
        2 => Just(Act::Reconcile),
        2 => (0..PLACES.len()).prop_map(Act::AdminCreates),
        2 => (0..PLACES.len()).prop_map(Act::AdminDestroys),
        2 => (0..PLACES.len()).prop_map(Act::AdminReplaces),
    ];
    let kill = prop_oneof![(1_u64..6).prop_map(Kill::Changes), (0_u64..12).prop_map(Kill::Writes)];
    (act, prop::option::weighted(0.3, kill))
}

fn claim(node: &MigNode, at: usize) -> Claim {
    let place = |(gpu, profile, start, _): (usize, u32, u32, u32)| format!("{}-mig-{profile}-{start}", node.gpu(gpu));
    let name = format!("c{at}");
    let share_of = |suffix: &str| {
        let device = format!("{}{suffix}", node.gpu(1));
        shares(&name, vec![share("r", &device, &format!("00000000-0000-0000-0000-{at:012}"), 1000, Some(10))])
    };
    match at.checked_sub(PLACES.len()) {
        None => allocate(&name, &[("r", &place(PLACES[at]))]),
        Some(0) => allocate(&name, &[("a", &place(PLACES[1])), ("b", &place(PLACES[5]))]),
        Some(1) => allocate(&name, &[("a", &place(PLACES[4])), ("b", &place(PLACES[8]))]),
        Some(2) => allocate(&name, &[("r", &node.gpu(0))]),
        Some(3) => allocate(&name, &[("r", &node.gpu(1))]),
        Some(4) => share_of("-mps"),
        Some(_) => share_of("-ts"),
    }
}

/// What must be true, kept beside the engine.
#[derive(Default)]
struct Model {
    /// The answers of prepared claims.
    prepared: BTreeMap<usize, Vec<PreparedDevice>>,
    /// Claims of which a call failed or was killed.
    uncertain: BTreeSet<usize>,
    /// GPU and incarnation of the instances of administrators.
    foreign: BTreeSet<(usize, u64)>,
    /// H100 that an administrator turned MIG mode on for.
    theirs: BTreeSet<usize>,
}

impl Model {
    fn forget_boot(&mut self) {
        self.uncertain.extend(std::mem::take(&mut self.prepared).into_keys());
        self.foreign.clear();
        self.theirs.clear();
    }

    /// An administrator waits for the end of calls on the GPU: nothing distinguishes an instance that is created at the placement
    /// of a call which was killed. The same holds for one that replaces that of a claim and has the same UUID.
    fn may_create(&self, node: &MigNode, (gpu, profile, start, _): (usize, u32, u32, u32)) -> bool {
        let name = format!("{}-mig-{profile}-{start}", node.gpu(gpu));
        let is_fresh = node.sim.peek(|state| state.mig_uuids == MigUuids::Fresh);
        if !is_fresh && self.prepared.values().flatten().any(|device| device.device.as_str() == name) {
            return false;
        }
        let is_of_gpu = |at: &usize| {
            claim(node, *at).devices.iter().any(|device| device.device.as_str().starts_with(&node.gpu(gpu)))
        };
        !self.uncertain.iter().any(is_of_gpu)
    }

    fn check(&self, node: &MigNode) {
        let existing: BTreeSet<(usize, u64)> = node.sim.peek(|state| {
            let of_gpu = |(gpu, one): (usize, &dra_sim::state::Gpu)| {
                one.instances.values().map(|instance| (gpu, instance.incarnation)).collect::<Vec<_>>()
            };
            state.gpus.iter().enumerate().flat_map(of_gpu).collect()
        });
        assert!(self.foreign.is_subset(&existing), "an instance of an administrator is gone");
        let devices: Vec<&PreparedDevice> = self.prepared.values().flatten().collect();
        for (at, one) in devices.iter().enumerate() {
            for other in &devices[..at] {
                assert!(!overlap(&one.identity, &other.identity), "{one:?} and {other:?}");
            }
        }
    }
}

fn overlap(one: &LiveIdentity, other: &LiveIdentity) -> bool {
    match (one, other) {
        (LiveIdentity::Mig { identity: one, .. }, LiveIdentity::Mig { identity: other, .. }) => {
            one.parent == other.parent && one.placement.overlaps(other.placement)
        }
        (LiveIdentity::Shared { uuid: one, form }, LiveIdentity::Shared { uuid: other, form: other_form }) => {
            one == other && form != other_form
        }
        (one, other) => one.gpu() == other.gpu(),
    }
}

fn perform(node: &mut MigNode, model: &mut Model, act: Act, kill: Option<Kill>) {
    match kill {
        Some(Kill::Changes(after)) => node.sim.cut_after(after),
        Some(Kill::Writes(after)) => node.files.fail_after(after, Fault::Crash),
        None => {}
    }
    match act {
        Act::Prepare(at) => match node.prepare(&claim(node, at)) {
            Ok(answer) if !node.is_killed() => {
                model.uncertain.remove(&at);
                model.prepared.insert(at, answer);
            }
            // A claim that was prepared stays so: its containers may run.
            Ok(_) | Err(_) => drop(model.uncertain.insert(at)),
        },
        Act::Unprepare(at) => {
            model.prepared.remove(&at);
            match node.engine.unprepare(&claim(node, at).reference) {
                Ok(()) if !node.is_killed() => drop(model.uncertain.remove(&at)),
                Ok(()) | Err(_) => drop(model.uncertain.insert(at)),
            }
        }
        Act::Reconcile => {
            drop(node.reconcile(ClaimLookup::Allocated));
            if node.is_killed() {
                // Any claim may have been repaired.
                model.uncertain.extend(model.prepared.keys());
            }
        }
        Act::Restart | Act::Reboot | Act::AdminCreates(_) | Act::AdminDestroys(_) | Act::AdminReplaces(_) => {}
    }
    if node.is_killed() || matches!(act, Act::Restart) {
        node.restart();
    }
    node.files.heal();
    node.sim.restart();
    match act {
        Act::Reboot => {
            node.reboot();
            node.sim.poke(|state| state.set_mig_mode(2, true).unwrap());
            model.forget_boot();
        }
        Act::AdminCreates(place) => admin_creates(node, model, PLACES[place]),
        Act::AdminDestroys(place) => admin_destroys(node, model, PLACES[place]),
        Act::AdminReplaces(place) => {
            admin_destroys(node, model, PLACES[place]);
            admin_creates(node, model, PLACES[place]);
        }
        Act::Prepare(_) | Act::Unprepare(_) | Act::Reconcile | Act::Restart => {}
    }
}

fn admin_creates(node: &MigNode, model: &mut Model, place: (usize, u32, u32, u32)) {
    let (gpu, profile, start, size) = place;
    if !model.may_create(node, place) || uses_whole(node, model, gpu) {
        return;
    }
    let created = node.sim.poke(|state| {
        let was_on = state.mig_mode(gpu).unwrap().current;
        state.set_mig_mode(gpu, true).unwrap();
        let instance = state.create_gpu_instance(gpu, profile, Some(Placement { start, size }));
        let Ok(instance) = instance else {
            state.set_mig_mode(gpu, was_on).ok();
            return None;
        };
        let whole = state.profile_of(instance).unwrap();
        let compute = whole.compute.iter().find(|compute| compute.slices == whole.slices).unwrap().id;
        state.create_compute_instance(instance, compute, None).unwrap();
        Some((instance.incarnation, was_on))
    });
    if let Some((incarnation, was_on)) = created {
        model.foreign.insert((gpu, incarnation));
        if !was_on {
            model.theirs.insert(gpu);
        }
    }
}

fn uses_whole(node: &MigNode, model: &Model, gpu: usize) -> bool {
    let uuid = node.sim.peek(|state| state.gpus[gpu].uuid.clone());
    let is_whole = |device: &PreparedDevice| !matches!(device.identity, LiveIdentity::Mig { .. });
    model.prepared.values().flatten().any(|device| is_whole(device) && device.identity.gpu().as_str() == uuid)
}

fn admin_destroys(node: &MigNode, model: &mut Model, (gpu, profile, start, _): (usize, u32, u32, u32)) {
    let gone = node.sim.poke(|state| {
        let all = &mut state.gpus[gpu].instances;
        let id =
            all.iter().find(|(_, one)| (one.profile_id, one.placement.start) == (profile, start)).map(|(id, _)| *id);
        id.and_then(|id| all.remove(&id)).map(|instance| instance.incarnation)
    });
    if let Some(incarnation) = gone {
        model.foreign.remove(&(gpu, incarnation));
    }
}

/// Ends every claim, and compares the GPUs with what administrators left.
fn finish(node: &MigNode, model: &Model) {
    for at in 0..CLAIMS {
        node.engine.unprepare(&claim(node, at).reference).unwrap();
    }
    let report = node.reconcile(ClaimLookup::Gone);
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    for gpu in 0..MODELS.len() {
        let found: BTreeSet<u64> =
            node.sim.peek(|state| state.gpus[gpu].instances.values().map(|one| one.incarnation).collect());
        let theirs = model.foreign.iter().filter(|(of, _)| *of == gpu).map(|(_, incarnation)| *incarnation);
        assert_eq!(found, theirs.collect(), "instances of GPU {gpu}");
        let is_theirs = gpu == 2 || model.theirs.contains(&gpu);
        if found.is_empty() && !is_theirs {
            assert!(!node.is_mig_on(gpu), "MIG mode of GPU {gpu}");
        }
        if !found.is_empty() || is_theirs {
            assert!(node.is_mig_on(gpu), "MIG mode of GPU {gpu}");
        }
    }
    assert_eq!(node.names_of_claims(), Vec::<String>::new());
    assert!(node.daemons.running().is_empty());
}

/// Every partition that is published can be created beside what exists, unless a claim has its slices or engines.
fn check_published(node: &MigNode, model: &Model) {
    let inventory = node.host.refresh();
    for (index, gpu) in inventory.usable_gpus().enumerate() {
        let foreign: Vec<_> = gpu.foreign_mig_devices().map(|mig| mig.identity.placement).collect();
        let expect = model.foreign.iter().filter(|(of, _)| *of == index).count();
        assert_eq!(foreign.len(), expect, "published as an administrator's on GPU {index}");
        for partition in gpu.partitions() {
            assert!(!foreign.iter().any(|placement| placement.overlaps(partition.placement)), "{partition:?}");
        }
    }
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn claims_never_overlap_and_administrators_lose_nothing(
        acts in prop::collection::vec(act(), 1..40), fresh: bool,
    ) {
        let mut node = MigNode::new(&MODELS);
        let uuids = if fresh { MigUuids::Fresh } else { MigUuids::Stable };
        node.sim.poke(|state| {
            state.mig_uuids = uuids;
            state.set_mig_mode(2, true).unwrap();
            state.reset_gpu(2).unwrap();
        });
        let mut model = Model::default();
        for (act, kill) in acts {
            perform(&mut node, &mut model, act, kill);
            model.check(&node);
        }
        check_published(&node, &model);
        finish(&node, &model);
    }
}
