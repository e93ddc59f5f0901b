// SPDX-License-Identifier: Apache-2.0
//! The two interfaces of the engine return the same: NVML through the library, and the simulator in this process.

use std::time::Duration;

use dra_hardware::{
    GpuCondition, GpuError, GpuEvent, GpuProcess, GpuSelector, HealthMachine, Machine, MigMachine, MigState, NvmlCode,
    NvmlMachine,
};
use dra_model::{Gpu, MigIdentity, Partition, Slowdown};
use dra_sim::state::{Fault, Process, Setup};
use dra_sim::{Code, Simulator, State, catalog};

use crate::node::Node;

/// Every board of the catalog, through nvml-wrapper and the C interface, and in memory.
fn faces() -> (Node, NvmlMachine, Simulator) {
    let models = catalog::models();
    let gpus: Vec<String> = models.iter().map(|model| format!("{}:1", model.id)).collect();
    let node = Node::new(&gpus.join(","));
    let machine = NvmlMachine::new(node.dir(), &node.path("proc"));
    let setup =
        Setup { seed: "test".to_owned(), gpus: models.iter().collect(), driver_version: node.state().driver_version };
    (node, machine, Simulator::new(&setup))
}

fn change<T>(node: &Node, sim: &Simulator, change: impl Fn(&mut State) -> T) -> T {
    dra_sim::store::Store::new(node.dir()).update(|state| drop(change(state))).unwrap();
    sim.poke(|state| change(state))
}

#[track_caller]
fn assert_alike(library: &NvmlMachine, sim: &Simulator) {
    assert_eq!(library.driver(), sim.driver());
    assert_eq!(library.gpu_count(), sim.gpu_count());
    for index in 0..=library.gpu_count().unwrap_or(0) {
        assert_eq!(library.shape(index), sim.shape(index), "{index}");
        let which = GpuSelector::Index(index);
        assert_eq!(library.gpu(which), sim.gpu(which), "{which}");
        if let Ok(facts) = sim.gpu(which) {
            let by_uuid = GpuSelector::Uuid(&facts.uuid);
            assert_eq!(library.gpu(by_uuid), sim.gpu(by_uuid));
        }
    }
}

#[test]
fn library_and_simulator_give_the_same_answers_for_every_model() {
    let (node, library, sim) = faces();
    assert_alike(&library, &sim);
    change(&node, &sim, |state| {
        for gpu in 0..state.gpus.len() {
            if state.set_mig_mode(gpu, true).is_ok() {
                state.reset_gpu(gpu).unwrap();
                let big = state.create_gpu_instance(gpu, 9, None).unwrap();
                state.create_compute_instance(big, 0, None).unwrap();
                state.create_compute_instance(big, 1, None).unwrap_err();
                let small = state.create_gpu_instance(gpu, 20, None).unwrap();
                state.create_compute_instance(small, 0, None).unwrap();
            }
        }
    });
    assert_alike(&library, &sim);
}

#[test]
fn both_faces_fail_alike() {
    let (node, library, sim) = faces();
    let fault = |call: &str, gpu: usize, code: u32| {
        let fault = Fault { call: call.to_owned(), gpu: Some(gpu), skip: 0, times: None, code: Code(code) };
        move |state: &mut State| state.faults.push(fault.clone())
    };
    change(&node, &sim, fault("nvmlDeviceGetName", 1, 999));
    change(&node, &sim, fault("nvmlDeviceGetMigMode", 2, 17));
    change(&node, &sim, fault("nvmlDeviceGetUUID", 3, 999));
    change(&node, &sim, |state| state.lose_gpu(4).unwrap());
    assert_alike(&library, &sim);
}

/// Every partition of every model is made and removed, and the answers are those of the simulator.
#[test]
fn both_faces_divide_alike() {
    let (node, library, sim) = faces();
    for index in 0..sim.gpu_count().unwrap() {
        let gpu = gpu(&sim, index);
        assert_eq!(library.set_mig_mode(&gpu.uuid, true), sim.set_mig_mode(&gpu.uuid, true));
        assert_alike(&library, &sim);
        change(&node, &sim, |state| {
            let gpu = usize::try_from(index).unwrap();
            state.set_mig_mode(gpu, true).ok();
            state.reset_gpu(gpu).unwrap();
        });
        let gpu = self::gpu(&sim, index);
        for partition in gpu.partitions() {
            let mig = partition.identity(&gpu.uuid);
            assert_eq!(library.create_gpu_instance(&mig), sim.create_gpu_instance(&mig));
            assert_eq!(library.create_gpu_instance(&mig), sim.create_gpu_instance(&mig), "occupied");
            let ids = library.create_compute_instance(&mig);
            assert_eq!(ids, sim.create_compute_instance(&mig));
            let made = self::gpu(&sim, index).mig_devices().to_vec();
            assert_eq!(made.iter().map(dra_model::MigDevice::ids).collect::<Vec<_>>(), [ids.unwrap()]);
            assert_eq!((&made[0].identity, &made[0].profile), (&mig, &partition.profile.name));
            assert_eq!(library.destroy_gpu_instance(&mig), sim.destroy_gpu_instance(&mig), "it has a compute instance");
            assert_eq!(removed(&library, &mig), Ok(()));
            assert_eq!(removed(&sim, &mig), Ok(()));
        }
        assert_alike(&library, &sim);
    }
}

#[test]
fn what_a_process_holds_stays() {
    let (node, library, sim) = faces();
    let index = (0..sim.gpu_count().unwrap()).find(|index| gpu(&sim, *index).architecture == "Hopper").unwrap();
    let gpu = gpu(&sim, index);
    let mig = gpu.partitions().first().map(|first: &Partition<'_>| first.identity(&gpu.uuid)).unwrap();
    for machine in machines(&library, &sim) {
        machine.set_mig_mode(&gpu.uuid, true).unwrap();
        machine.create_gpu_instance(&mig).unwrap();
        machine.create_compute_instance(&mig).unwrap();
    }
    let at = usize::try_from(index).unwrap();
    let gpu_instance = change(&node, &sim, |state| {
        let gpu_instance = state.gpus[at].instances.keys().next().copied();
        state.gpus[at].processes.push(Process { pid: 4711, gpu_instance, memory_mib: None });
        gpu_instance
    });
    for machine in machines(&library, &sim) {
        assert_eq!(machine.processes(&gpu.uuid), Ok(vec![GpuProcess { id: 4711, gpu_instance }]));
        assert_eq!(machine.mig_state(&gpu.uuid), Ok(MigState { is_on: true, minor: gpu.minor }));
        assert!(machine.destroy_compute_instances(&mig).unwrap_err().is_in_use());
        assert_eq!(self::gpu(machine, index).mig_devices().len(), 1);
    }
    change(&node, &sim, |state| state.gpus[at].processes.clear());
    for machine in machines(&library, &sim) {
        removed(machine, &mig).unwrap();
        assert_eq!(removed(machine, &mig), Ok(()), "what is gone needs no destroying");
    }
    change(&node, &sim, |state| state.gpus[at].clients = 1);
    for machine in machines(&library, &sim) {
        let refused = machine.set_mig_mode(&gpu.uuid, false).unwrap_err();
        assert!(matches!(refused, GpuError::MigModePending { on: false, .. }) && refused.is_in_use(), "{refused}");
        let expect = dra_sim::state::MigMode { current: true, pending: true };
        assert_eq!((node.state().gpus[at].mig, sim.peek(|state| state.gpus[at].mig)), (Some(expect), Some(expect)));
    }
}

fn machines<'a>(library: &'a NvmlMachine, sim: &'a Simulator) -> [&'a dyn Machine; 2] {
    [library, sim]
}

fn removed(machine: &dyn Machine, mig: &MigIdentity) -> Result<(), GpuError> {
    machine.destroy_compute_instances(mig)?;
    machine.destroy_gpu_instance(mig)
}

fn gpu(machine: &dyn Machine, index: u32) -> Gpu {
    let facts = machine.gpu(GpuSelector::Index(index)).unwrap();
    dra_hardware::discover::complete(facts, std::path::Path::new("/nonexistent"))
}

/// One event per wait, each with its own data, and the recovery action when it is asked for.
#[test]
fn events_and_condition_are_the_same_through_both_interfaces() {
    let (node, library, sim) = faces();
    let uuid: dra_model::GpuUuid = node.state().gpus[1].uuid.parse().unwrap();
    let both: [&dyn Machine; 2] = [&library, &sim];
    let mut events = both.map(|machine| machine.events(&uuid).unwrap());
    let condition = |action| Ok(GpuCondition { recovery_action: Some(action), ..GpuCondition::default() });
    assert_eq!(both.map(|machine| machine.condition(&uuid)), [condition(0), condition(0)]);
    change(&node, &sim, |state| {
        state.raise_xid(0, 13, (None, None)).unwrap();
        state.raise_xid(1, 31, (None, None)).unwrap();
        state.raise_xid(1, 94, (Some(2), Some(0))).unwrap();
        state.gpus[1].recovery_action = 1;
        // Thermal slowdown, power brake and the power limit.
        state.gpus[1].load.throttle = 0xc4;
    });
    let soon = Duration::from_millis(200);
    for events in &mut events {
        let xid = |xid, gpu_instance| Ok(Some(GpuEvent::Xid { xid, gpu_instance }));
        let seen = [(); 3].map(|()| events.wait(soon));
        assert_eq!(seen, [xid(31, None), xid(94, Some(2)), Ok(None)], "of this GPU, in order");
    }
    let throttled = || {
        let slowdown = Slowdown { is_thermal: true, is_power_brake: true };
        Ok(GpuCondition { recovery_action: Some(1), slowdown, ..GpuCondition::default() })
    };
    assert_eq!(both.map(|machine| machine.condition(&uuid)), [throttled(), throttled()]);
    change(&node, &sim, |state| state.lose_gpu(1).unwrap());
    for (events, machine) in events.iter_mut().zip(both) {
        assert_eq!(events.wait(soon), Ok(Some(GpuEvent::Xid { xid: 79, gpu_instance: None })));
        let lost = |error: GpuError| matches!(error, GpuError::Failed { code, .. } if code == NvmlCode(15));
        assert!(lost(events.wait(soon).unwrap_err()) && lost(machine.condition(&uuid).unwrap_err()));
        assert!(machine.events(&uuid).is_err());
    }
    // The set of another GPU goes on.
    let other: dra_model::GpuUuid = node.state().gpus[0].uuid.parse().unwrap();
    assert_eq!(library.events(&other).unwrap().wait(Duration::ZERO), Ok(None));
}
