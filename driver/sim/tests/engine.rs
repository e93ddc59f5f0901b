// SPDX-License-Identifier: Apache-2.0
//! The rules of the engine, against what real boards were seen to do, and as properties over random use.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;
use std::time::Duration;

use dra_sim::catalog::{self, Placement};
use dra_sim::state::{ComputeMode, EVENT_XID, Fault, MigUuids, Setup};
use dra_sim::{Code, Simulator, State};
use proptest::prelude::*;

fn setup(models: &[&str]) -> Setup {
    let gpus = models.iter().map(|name| catalog::model(name).unwrap()).collect();
    Setup { seed: "test".to_owned(), gpus, driver_version: "580.95.05".to_owned() }
}

/// A machine whose boards are in MIG mode.
fn cut(models: &[&str]) -> State {
    let mut state = State::new(&setup(models));
    for gpu in 0..models.len() {
        state.set_mig_mode(gpu, true).unwrap();
        state.reset_gpu(gpu).unwrap();
    }
    state
}

/// Instance id and start of each instance that `profiles` make, in order of creation.
fn created(state: &mut State, gpu: usize, profiles: &[u32]) -> Vec<(u32, u32)> {
    let mut places = Vec::new();
    for &profile in profiles {
        let made = state.create_gpu_instance(gpu, profile, None).unwrap();
        places.push((made.id, state.gpu_instance(made).unwrap().placement.start));
    }
    places
}

/// Source: examples of the NVIDIA MIG user guide and of users' terminals on A100 and H100. The second board of a machine
/// counts its halves from above.
#[test]
fn ids_and_places_are_those_of_real_boards() {
    for (gpu, profiles, expect) in [
        (0, &[5, 14, 19][..], &[(1, 0), (5, 4), (13, 6)][..]),
        (0, &[9, 14], &[(2, 4), (3, 0)]),
        (0, &[19], &[(13, 6)]),
        (1, &[9, 9], &[(1, 4), (2, 0)]),
        (1, &[19, 19, 19], &[(9, 6), (7, 4), (8, 5)]),
        (0, &[0], &[(0, 0)]),
        (0, &[15, 15, 15, 15], &[(6, 6), (5, 4), (3, 0), (4, 2)]),
    ] {
        let mut state = cut(&["h100", "h100"]);
        assert_eq!(created(&mut state, gpu, profiles), expect, "{profiles:?} on board {gpu}");
    }
}

/// Source: `Free` columns of `nvidia-smi mig -lgip` after the same creations.
#[test]
fn capacity_falls_as_places_are_taken() {
    for (profiles, expect) in [
        (&[][..], [7, 1, 4, 3, 2, 1, 1]),
        (&[9], [4, 1, 2, 2, 1, 1, 0]),
        (&[9, 9], [0, 0, 0, 0, 0, 0, 0]),
        (&[0], [0, 0, 0, 0, 0, 0, 0]),
        (&[20], [6, 0, 3, 3, 1, 1, 0]),
    ] {
        let mut state = cut(&["h100"]);
        created(&mut state, 0, profiles);
        let left = [19, 20, 15, 14, 9, 5, 0].map(|profile| state.remaining(0, profile).unwrap());
        assert_eq!(left, expect, "{profiles:?}");
    }
}

#[test]
fn refusals_have_the_codes_of_nvml() {
    let mut state = cut(&["h100"]);
    let taken = state.create_gpu_instance(0, 9, Some(Placement { start: 0, size: 4 })).unwrap();
    state.create_compute_instance(taken, 2, None).unwrap();
    for (profile, start, size, expect) in [
        (9, 0, 4, Code::INSUFFICIENT_RESOURCES),
        (19, 3, 1, Code::INSUFFICIENT_RESOURCES),
        (9, 1, 4, Code::INVALID_ARGUMENT),
        (9, 4, 3, Code::INVALID_ARGUMENT),
        (99, 4, 4, Code::INVALID_ARGUMENT),
    ] {
        let refused = state.create_gpu_instance(0, profile, Some(Placement { start, size }));
        assert_eq!(refused, Err(expect), "{profile} at {start}:{size}");
    }
    assert_eq!(state.destroy_gpu_instance(taken), Err(Code::IN_USE));
    assert_eq!(state.set_mig_mode(0, false), Err(Code::IN_USE));
    assert_eq!(state.set_compute_mode(0, ComputeMode::ExclusiveProcess), Err(Code::NOT_SUPPORTED));
    assert_eq!(state.create_compute_instance(taken, 2, None), Err(Code::INSUFFICIENT_RESOURCES));
    assert_eq!(state.create_compute_instance(taken, 4, None), Err(Code::INVALID_ARGUMENT));
}

#[test]
fn a_board_without_mig_supports_none_of_it() {
    let mut state = State::new(&setup(&["t4", "h100"]));
    assert_eq!(state.mig_mode(0), Err(Code::NOT_SUPPORTED));
    assert_eq!(state.set_mig_mode(0, true), Err(Code::NOT_SUPPORTED));
    assert_eq!(state.gpu_profile(0, 0).err(), Some(Code::NOT_SUPPORTED));
    assert_eq!(state.create_gpu_instance(1, 19, None), Err(Code::NOT_SUPPORTED), "MIG mode is off");
    assert_eq!(state.gpu_profile(1, 17).err(), Some(Code::INVALID_ARGUMENT));
}

#[test]
fn a_reference_is_invalid_after_its_instance_is_destroyed() {
    let mut state = cut(&["h100"]);
    let place = Some(Placement { start: 2, size: 1 });
    let old = state.create_gpu_instance(0, 19, place).unwrap();
    let old_compute = state.create_compute_instance(old, 0, None).unwrap();
    let uuid = state.compute_instance(old_compute).unwrap().uuid.clone();
    state.destroy_compute_instance(old_compute).unwrap();
    state.destroy_gpu_instance(old).unwrap();
    let new = state.create_gpu_instance(0, 19, place).unwrap();
    let new_compute = state.create_compute_instance(new, 0, None).unwrap();
    assert_eq!(old.id, new.id, "ids are recycled");
    assert_eq!(state.gpu_instance(old), Err(Code::NOT_FOUND));
    assert_eq!(state.compute_instance(old_compute), Err(Code::NOT_FOUND));
    assert_eq!(state.compute_instance(new_compute).unwrap().uuid, uuid, "and so is the UUID");
    state.mig_uuids = MigUuids::Fresh;
    state.destroy_compute_instance(new_compute).unwrap();
    let fresh = state.create_compute_instance(new, 0, None).unwrap();
    assert_ne!(state.compute_instance(fresh).unwrap().uuid, uuid);
}

#[test]
fn mig_mode_becomes_active_as_the_board_allows() {
    for (model, clients, expect, active) in [
        ("h100", 0, None, true),
        ("b200", 0, None, true),
        ("h100", 1, Some(Code::IN_USE), false),
        ("a100", 0, Some(Code::RESET_REQUIRED), false),
    ] {
        let mut state = State::new(&setup(&[model]));
        state.gpus[0].clients = clients;
        assert_eq!(state.set_mig_mode(0, true), Ok(expect), "{model}");
        let mode = state.mig_mode(0).unwrap();
        assert_eq!((mode.current, mode.pending), (active, true), "{model}");
    }
}

/// The in-process face counts calls and changes, and stops at the cut.
#[test]
fn the_power_can_be_cut_between_two_changes() {
    let sim = Simulator::new(&setup(&["h100"]));
    sim.call("nvmlDeviceSetMigMode", Some(0), |state| state.set_mig_mode(0, true)).unwrap();
    sim.cut_after(1);
    let first = || sim.call("nvmlDeviceCreateGpuInstance", Some(0), |state| state.create_gpu_instance(0, 19, None));
    let instance = first().unwrap();
    let compute = |sim: &Simulator| {
        sim.call("nvmlGpuInstanceCreateComputeInstance", Some(0), |state| {
            state.create_compute_instance(instance, 0, None)
        })
    };
    assert_eq!(compute(&sim), Err(Code::UNKNOWN));
    assert!(sim.is_cut());
    assert_eq!(sim.peek(|state| state.gpus[0].instances[&instance.id].compute.len()), 0);
    sim.restart();
    compute(&sim).unwrap();
    assert_eq!(sim.effects(), 3);
    assert_eq!(sim.calls()["nvmlGpuInstanceCreateComputeInstance"], 2);
}

#[test]
fn events_wake_a_waiter() {
    let sim = Simulator::new(&setup(&["h100"]));
    let other = sim.clone();
    let waiter =
        std::thread::spawn(move || other.wait_event(0, Duration::from_secs(20), |event| event.kind == EVENT_XID));
    sim.poke(|state| state.raise_xid(0, 79, (None, None))).unwrap();
    assert_eq!(waiter.join().unwrap().unwrap().data, 79);
    assert!(sim.wait_event(9, Duration::ZERO, |_| true).is_none());
}

#[test]
fn a_fault_counts_its_calls() {
    let sim = Simulator::new(&setup(&["h100", "h100"]));
    let fault = Fault { call: "nvmlDeviceGet*".to_owned(), gpu: Some(1), skip: 1, times: Some(2), code: Code(19) };
    sim.poke(|state| state.faults.push(fault));
    let name = |gpu: usize| sim.call("nvmlDeviceGetName", Some(gpu), |_| Ok(()));
    let results: Vec<_> = (0..4).map(|_| (name(0), name(1))).collect();
    let expect = [Ok(()), Err(Code::IN_USE), Err(Code::IN_USE), Ok(())];
    assert_eq!(results, expect.map(|second| (Ok(()), second)));
}

#[derive(Clone, Debug)]
enum Step {
    Create(usize),
    Destroy(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![3 => (0_usize..7).prop_map(Step::Create), 1 => (0_usize..8).prop_map(Step::Destroy)];
    prop::collection::vec(step, 0..40)
}

proptest! {
    /// Whatever the instances, no slice or engine is allocated twice, and all of them are free again in the end.
    #[test]
    fn a_board_is_never_cut_twice_in_one_place(model in prop::sample::select(vec!["a100-40", "a100-80", "h100", "h200", "b200", "gb200"]), steps in steps()) {
        let mut state = cut(&["h100", model]);
        let mig = catalog::model(model).unwrap().mig.as_ref().unwrap();
        for step in steps {
            match step {
                Step::Create(profile) => {
                    let profile = &mig.profiles[profile];
                    let room = state.remaining(1, profile.id).unwrap();
                    prop_assert_eq!(state.create_gpu_instance(1, profile.id, None).is_ok(), room > 0);
                }
                Step::Destroy(index) => {
                    let id = state.gpus[1].instances.keys().nth(index).copied();
                    if let Some(id) = id {
                        let target = state.gpu_instance_by_id(1, id).unwrap();
                        state.destroy_gpu_instance(target).unwrap();
                    }
                }
            }
            let taken: Vec<Placement> = state.gpus[1].instances.values().map(|instance| instance.placement).collect();
            let slices: BTreeSet<u32> = taken.iter().flat_map(|at| at.start..at.start + at.size).collect();
            let sum: u32 = taken.iter().map(|at| at.size).sum();
            prop_assert_eq!(slices.len(), usize::try_from(sum).unwrap());
            prop_assert!(slices.iter().all(|&slice| slice < mig.memory_slices));
        }
        for id in state.gpus[1].instances.keys().copied().collect::<Vec<_>>() {
            let target = state.gpu_instance_by_id(1, id).unwrap();
            state.destroy_gpu_instance(target).unwrap();
        }
        for profile in &mig.profiles {
            prop_assert_eq!(state.remaining(1, profile.id).unwrap(), profile.max_instances);
        }
    }
}
