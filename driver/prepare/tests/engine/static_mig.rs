// SPDX-License-Identifier: Apache-2.0
//! Static MIG devices: created beside what exists, once, whatever stops the process between, and an administrator's from then on.

use dra_model::{Claim, MigOrigin, explain};
use dra_prepare::{ClaimLookup, NoPlan, StaticMig, StaticMigError};
use dra_sim::state::Fault;
use dra_sim::{Code, State, catalog};
use proptest::prelude::*;

use crate::cases::cases;
use crate::mig_node::MigNode;
use crate::node::allocate;

/// `1c.3g.40gb` as a profile and its compute slices.
fn wanted(devices: &[(&str, u32)]) -> Vec<StaticMig> {
    let parse = |(name, count): &(&str, u32)| match name.split_once("c.") {
        Some((slices, profile)) => {
            StaticMig { profile: profile.to_owned(), compute_slices: Some(slices.parse().unwrap()), count: *count }
        }
        None => StaticMig { profile: (*name).to_owned(), compute_slices: None, count: *count },
    };
    devices.iter().map(parse).collect()
}

fn create(node: &MigNode, devices: &[(&str, u32)]) -> Result<Vec<String>, StaticMigError> {
    let gpu = node.sim.peek(|state| state.gpus[0].uuid.parse().unwrap());
    let created = node.engine.create_static_mig(&gpu, &wanted(devices));
    let prefix = format!("{}-mig-", node.gpu(0));
    created.map(|names| names.iter().map(|name| name.strip_prefix(&prefix).unwrap().to_owned()).collect())
}

fn refused(node: &MigNode, devices: &[(&str, u32)]) -> String {
    let error = explain(&create(node, devices).unwrap_err());
    let uuid = node.sim.peek(|state| state.gpus[0].uuid.clone());
    error.replace(&uuid, "GPU")
}

fn claim(node: &MigNode, name: &str, suffix: &str) -> Claim {
    allocate(name, &[("r", &format!("{}{suffix}", node.gpu(0)))])
}

fn h100() -> &'static catalog::MigModel {
    catalog::model("h100").unwrap().mig.as_ref().unwrap()
}

fn profile_of(id: u32) -> &'static catalog::GpuProfile {
    h100().profile(id).unwrap()
}

/// An administrator's, with their compute slices.
fn make(state: &mut State, profile: u32, start: Option<u32>, compute: &[u32]) -> Result<(), Code> {
    let size = profile_of(profile).placements.size;
    let placement = start.map(|start| catalog::Placement { start, size });
    let instance = state.create_gpu_instance(0, profile, placement)?;
    for slices in compute {
        let id = state.profile_of(instance)?.compute.iter().find(|one| one.slices == *slices).unwrap().id;
        state.create_compute_instance(instance, id, None)?;
    }
    Ok(())
}

fn fail(node: &MigNode, call: &str, code: u32, skip: u64) {
    let fault = Fault { call: call.to_owned(), gpu: None, skip, times: Some(1), code: Code(code) };
    node.sim.poke(|state| state.faults.push(fault));
}

const BALANCED: [(&str, u32); 3] = [("1g.10gb", 2), ("2g.20gb", 1), ("3g.40gb", 1)];

#[test]
fn an_idle_gpu_gets_its_devices_once_and_they_are_an_administrators() {
    let mut node = MigNode::new(&["h100"]);
    let created = create(&node, &BALANCED).unwrap();
    let instances = node.instances(0);
    assert_eq!((node.is_mig_on(0), created.len(), instances.len()), (true, 4, 4));
    assert!(instances.iter().all(|(.., compute)| *compute == 1), "{instances:?}");
    assert_eq!(node.left(), Vec::<String>::new(), "no record and no ledger names them");
    node.host.refresh();
    let inventory = node.host.latest();
    let gpu = inventory.usable_gpus().next().unwrap();
    assert!(!gpu.is_whole() && gpu.mig_devices().iter().all(|mig| mig.origin == MigOrigin::Administrator));
    assert_eq!(create(&node, &BALANCED).unwrap(), Vec::<String>::new());
    node.restart();
    let claim = claim(&node, "a", &format!("-mig-{}", created[0]));
    node.prepare(&claim).unwrap();
    assert_eq!(create(&node, &BALANCED).unwrap(), Vec::<String>::new());
    node.engine.unprepare(&claim.reference).unwrap();
    node.reconcile(ClaimLookup::Gone);
    assert_eq!((node.instances(0), node.is_mig_on(0)), (instances, true));
}

#[test]
fn after_a_reboot_the_same_devices_are_created_for_the_claims_that_have_them() {
    let mut node = MigNode::new(&["h100"]);
    let created = create(&node, &BALANCED).unwrap();
    let claim = claim(&node, "a", &format!("-mig-{}", created[0]));
    node.prepare(&claim).unwrap();
    node.reboot();
    assert_eq!((node.is_mig_on(0), node.instances(0)), (false, vec![]));
    assert_eq!(create(&node, &BALANCED).unwrap(), created);
    node.prepare(&claim).unwrap();
}

#[test]
fn a_process_that_is_killed_anywhere_leaves_what_the_next_one_completes() {
    let whole = MigNode::new(&["h100"]);
    create(&whole, &[("1c.3g.40gb", 2), ("3g.40gb", 1)]).unwrap();
    for at in 0.. {
        let mut node = MigNode::new(&["h100"]);
        node.sim.cut_after(at + 1);
        let created = create(&node, &[("1c.3g.40gb", 2), ("3g.40gb", 1)]);
        if !node.is_killed() {
            created.unwrap();
            assert!(at > 4, "mode, 2 GPU instances, 3 compute instances: {at}");
            break;
        }
        node.restart();
        node.reconcile(ClaimLookup::Gone);
        create(&node, &[("1c.3g.40gb", 2), ("3g.40gb", 1)]).unwrap();
        assert_eq!(node.instances(0), whole.instances(0), "killed at effect {at}");
        assert_eq!(node.left(), Vec::<String>::new());
    }
}

#[test]
fn compute_instances_of_one_profile_share_gpu_instances() {
    let node = MigNode::new(&["h100"]);
    assert_eq!(create(&node, &[("1c.3g.40gb", 3)]).unwrap(), ["9-4-c0-1", "9-4-c1-1", "9-4-c2-1"]);
    assert_eq!(node.instances(0), [(9, 4, 3)]);
    // A second GPU instance has room for the fourth.
    assert_eq!(create(&node, &[("1c.3g.40gb", 4)]).unwrap(), ["9-0-c0-1"]);
    assert_eq!(node.instances(0), [(9, 0, 1), (9, 4, 3)]);
    let other = MigNode::new(&["h100"]);
    assert_eq!(create(&other, &[("1c.3g.40gb", 1), ("2c.3g.40gb", 1)]).unwrap(), ["9-4-c0-2", "9-4-c2-1"]);
}

#[test]
fn a_claim_that_has_the_whole_gpu_keeps_it() {
    let node = MigNode::new(&["h100"]);
    let claim = claim(&node, "whole", "");
    node.prepare(&claim).unwrap();
    assert_eq!(
        refused(&node, &BALANCED),
        "GPU cannot be divided while claim ns/whole uses it as a whole; delete its pods, or leave the GPU out of the configuration"
    );
    assert!(!node.is_mig_on(0));
    node.engine.unprepare(&claim.reference).unwrap();
    node.assert_untouched();
    assert_eq!(create(&node, &BALANCED).unwrap().len(), 4);
}

#[test]
fn partitions_of_claims_stay_and_their_mode_becomes_the_administrators() {
    let node = MigNode::new(&["h100"]);
    let claim = claim(&node, "a", "-mig-9-0");
    node.prepare(&claim).unwrap();
    assert_eq!(
        refused(&node, &[("3g.40gb", 2)]),
        "GPU cannot be divided as configured: no room for 2 x 3g.40gb beside 1 x 3g.40gb; destroy what is in the way \
         (`nvidia-smi mig -dci` and `-dgi`), or configure less"
    );
    assert_eq!(create(&node, &[("3g.40gb", 1)]).unwrap(), ["9-4"]);
    node.engine.unprepare(&claim.reference).unwrap();
    assert_eq!((node.is_mig_on(0), node.instances(0), node.left()), (true, vec![(9, 4, 1)], vec![]));
    assert_eq!(create(&node, &[("3g.40gb", 2)]).unwrap(), ["9-0"]);
}

/// The undo of a prepare that was killed destroys what is in the place of its partition.
#[test]
fn the_place_of_a_partition_that_may_exist_is_left_free() {
    let mut node = MigNode::new(&["h100"]);
    let claim = claim(&node, "a", "-mig-19-6");
    // MIG mode is on, and the process is killed before the GPU instance.
    node.sim.cut_after(1);
    node.prepare(&claim).unwrap_err();
    assert!(node.is_killed());
    node.restart();
    assert_eq!((node.is_mig_on(0), node.instances(0)), (true, vec![]));
    assert_eq!(create(&node, &[("1g.10gb", 6)]).unwrap().len(), 6);
    assert!(!node.instances(0).contains(&(19, 6, 1)));
    for _ in 0..2 {
        node.reconcile(ClaimLookup::Gone);
    }
    assert_eq!((node.instances(0).len(), node.is_mig_on(0), node.left()), (6, true, vec![]));
}

#[test]
fn what_an_administrator_created_stays_and_counts() {
    let node = MigNode::new(&["h100"]);
    node.sim.poke(|state| {
        state.set_mig_mode(0, true).unwrap();
        make(state, 9, Some(0), &[3]).unwrap();
        // Without a compute instance, as a process leaves it that was killed.
        make(state, 19, Some(6), &[]).unwrap();
    });
    assert_eq!(create(&node, &[("3g.40gb", 1), ("1g.10gb", 2)]).unwrap().len(), 2);
    assert_eq!(node.instances(0).iter().filter(|(_, start, compute)| (*start, *compute) == (6, 1)).count(), 1);
    let before = node.instances(0);
    assert!(
        refused(&node, &[("7g.80gb", 1)]).contains("no room for 1 x 7g.80gb beside 2 x 1g.10gb, 1 x 3g.40gb; destroy")
    );
    assert_eq!(node.instances(0), before);
}

#[test]
fn a_configuration_that_a_gpu_cannot_have_changes_nothing() {
    let node = MigNode::new(&["h100"]);
    assert_eq!(
        refused(&node, &[("1g.5gb", 7)]),
        "GPU cannot be divided as configured: MIG profile 1g.5gb is unknown, the profiles are 7g.80gb, 4g.40gb, 3g.40gb, 2g.20gb, 1g.20gb, 1g.10gb, \
         1g.10gb+me; limit the entry of the configuration to other GPUs with device-filter or devices"
    );
    assert!(matches!(
        create(&node, &[("3g.40gb", 3)]),
        Err(StaticMigError::NoPlan { source: NoPlan::Room { .. }, .. })
    ));
    assert!(matches!(create(&node, &[("1g.10gb", u32::MAX)]), Err(StaticMigError::NoPlan { .. })));
    node.assert_untouched();
    let old = MigNode::new(&["t4"]);
    assert!(refused(&old, &[("1g.10gb", 1)]).starts_with("GPU does not support MIG; limit the entry"));
    assert_eq!(old.left(), Vec::<String>::new());
}

#[test]
fn mig_mode_that_needs_a_reset_is_left_to_the_administrator() {
    let node = MigNode::new(&["a100-40"]);
    assert_eq!(
        refused(&node, &[("1g.5gb", 7)]),
        "MIG mode of GPU is off and is turned on only by a reset; drain the node, then `nvidia-smi -i GPU -mig 1` and `nvidia-smi -i \
         GPU --gpu-reset`, or reboot"
    );
    assert!(!node.sim.peek(|state| state.gpus[0].mig.unwrap().pending));
    node.sim.poke(|state| {
        state.set_mig_mode(0, true).unwrap();
        state.reset_gpu(0).unwrap();
    });
    assert_eq!(create(&node, &[("1g.5gb", 7)]).unwrap().len(), 7);
}

#[test]
fn mig_mode_without_devices_can_be_wanted() {
    let node = MigNode::new(&["h100"]);
    assert_eq!(create(&node, &[]).unwrap(), Vec::<String>::new());
    assert!(node.is_mig_on(0) && node.left().is_empty());
}

#[test]
fn a_failure_leaves_whole_devices_only() {
    let node = MigNode::new(&["h100"]);
    fail(&node, "nvmlDeviceCreateGpuInstanceWithPlacement", 23, 0);
    let text = refused(&node, &BALANCED);
    assert!(
        text.contains("failed to create a static MIG device: failed to create the MIG device of profile 9 at "),
        "{text}"
    );
    node.assert_untouched();
    fail(&node, "nvmlGpuInstanceCreateComputeInstance", 23, 0);
    create(&node, &BALANCED).unwrap_err();
    node.assert_untouched();
    fail(&node, "nvmlGpuInstanceCreateComputeInstance", 23, 1);
    create(&node, &BALANCED).unwrap_err();
    assert_eq!(node.instances(0), [(9, 4, 1)]);
    assert_eq!(create(&node, &BALANCED).unwrap().len(), 3);
}

/// Whether NVML could create GPU instances of these profiles, in any order of placements.
fn can_have(state: &State, profiles: &[u32]) -> bool {
    let Some((profile, others)) = profiles.split_first() else { return true };
    profile_of(*profile).placements.all().any(|placement| {
        let mut next = state.clone();
        next.create_gpu_instance(0, *profile, Some(placement)).is_ok() && can_have(&next, others)
    })
}

proptest! {
    #![proptest_config(cases(64))]

    /// The GPU gets what it can have and nothing else, beside what was there.
    #[test]
    fn everything_is_created_that_the_gpu_can_have(
        existing in prop::collection::vec(0_usize..8, 0..3),
        more in prop::collection::vec(0_usize..8, 1..5),
    ) {
        let node = MigNode::new(&["h100"]);
        let profiles: Vec<(u32, String)> =
            h100().profiles.iter().map(|one| (one.id, one.name.clone())).collect();
        let choose = |at: &usize| profiles[*at % profiles.len()].clone();
        node.sim.poke(|state| {
            state.set_mig_mode(0, true).unwrap();
            for (id, _) in existing.iter().map(choose) {
                let slices = profile_of(id).slices;
                make(state, id, None, &[slices]).ok();
            }
        });
        let before = node.instances(0);
        // Those that exist are wanted as well, so that each further one is missing.
        let existing = before.iter().map(|(id, ..)| profiles.iter().find(|one| one.0 == *id).unwrap().clone());
        let all: Vec<(u32, String)> = existing.chain(more.iter().map(choose)).collect();
        let devices: Vec<(&str, u32)> = all.iter().map(|(_, name)| (name.as_str(), 1)).collect();
        let further: Vec<u32> = more.iter().map(|at| choose(at).0).collect();
        let possible = node.sim.peek(|state| can_have(state, &further));
        let created = create(&node, &devices);
        prop_assert_eq!(created.is_ok(), possible, "{:?} beside {:?}: {:?}", further, before, created);
        let after = node.instances(0);
        prop_assert!(before.iter().all(|one| after.contains(one)));
        prop_assert_eq!(after.len(), if possible { all.len() } else { before.len() });
    }
}
