// SPDX-License-Identifier: Apache-2.0
//! The two interfaces of the engine return the same: NVML through the library, and the simulator in this process.

use dra_hardware::{GpuSelector, Machine, NvmlMachine};
use dra_sim::state::{Fault, Setup};
use dra_sim::{Code, Simulator, State, catalog};

use crate::node::Node;

/// Every board of the catalog, through nvml-wrapper and the C interface, and in memory.
fn faces() -> (Node, NvmlMachine, Simulator) {
    let models = catalog::models();
    let gpus: Vec<String> = models.iter().map(|model| format!("{}:1", model.id)).collect();
    let node = Node::new(&gpus.join(","));
    let machine = NvmlMachine::new(node.dir());
    let setup =
        Setup { seed: "test".to_owned(), gpus: models.iter().collect(), driver_version: node.state().driver_version };
    (node, machine, Simulator::new(&setup))
}

fn change(node: &Node, sim: &Simulator, change: impl Fn(&mut State)) {
    dra_sim::store::Store::new(node.dir()).update(|state| change(state)).unwrap();
    sim.poke(|state| change(state));
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
