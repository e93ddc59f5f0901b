// SPDX-License-Identifier: Apache-2.0
//! Which queries the host makes: an in-memory machine counts them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test that cannot go on should stop")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use dra_hardware::{
    Creations, DriverVersions, GpuError, GpuFacts, GpuSelector, GpuShape, HealthMachine, Host, Machine, MachineError,
    MigMachine, NvmlCode, Ownership, ProcessRoots, Roots, Setting,
};
use dra_model::{
    Bytes, ComputeMode, ComputeShare, DriverState, Engines, Gpu, GpuEntry, GpuInstance, GpuUuid, Health, Interval,
    Inventory, MigDevice, MigIdentity, MigMode, MigOrigin, PciAddress, Placement, Version,
};

/// A machine made of values.
#[derive(Debug, Default)]
struct MemoryMachine(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    gpus: Vec<Result<GpuFacts, GpuError>>,
    driver_gone: bool,
    driver_minor: u32,
    asked: BTreeMap<&'static str, u32>,
}

impl MemoryMachine {
    fn ask<T>(&self, what: &'static str, answer: impl FnOnce(&State) -> T) -> Result<T, MachineError> {
        let mut state = self.0.lock().unwrap();
        *state.asked.entry(what).or_default() += 1;
        if state.driver_gone {
            return Err(MachineError::NotAnswering { call: "nvmlInitWithFlags", code: NvmlCode(9) });
        }
        Ok(answer(&state))
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap());
    }

    fn asked(&self) -> BTreeMap<&'static str, u32> {
        std::mem::take(&mut self.0.lock().unwrap().asked)
    }
}

impl MigMachine for MemoryMachine {}

impl HealthMachine for MemoryMachine {}

impl Machine for MemoryMachine {
    fn driver(&self) -> Result<DriverVersions, MachineError> {
        let version = |major, minor| Version { major, minor, patch: 0 };
        self.ask("driver", |state| DriverVersions {
            driver: version(550, 54 + state.driver_minor),
            cuda: Some(version(12, 4)),
        })
    }

    fn gpu_count(&self) -> Result<u32, MachineError> {
        self.ask("gpu_count", |state| u32::try_from(state.gpus.len()).unwrap())
    }

    fn gpu(&self, which: GpuSelector<'_>) -> Result<GpuFacts, GpuError> {
        let answer = self.ask("gpu", |state| match which {
            GpuSelector::Index(index) => state.gpus[usize::try_from(index).unwrap()].clone(),
            GpuSelector::Uuid(uuid) => {
                let found = state.gpus.iter().flatten().find(|gpu| gpu.uuid == *uuid).cloned();
                found.ok_or_else(|| GpuError::NotFound { which: which.to_string() })
            }
        });
        answer.map_err(|source| GpuError::Machine { which: which.to_string(), source })?
    }

    fn shape(&self, index: u32) -> Result<GpuShape, MachineError> {
        self.ask("shape", |state| match &state.gpus[usize::try_from(index).unwrap()] {
            Ok(gpu) => GpuShape { uuid: Some(gpu.uuid.clone()), answers: true, ..GpuShape::silent() },
            Err(_) => GpuShape::silent(),
        })
    }

    fn compute_mode(&self, _gpu: &GpuUuid) -> Result<Option<ComputeMode>, GpuError> {
        Ok(None)
    }

    fn set_compute_mode(&self, gpu: &GpuUuid, _mode: ComputeMode) -> Result<(), GpuError> {
        Err(GpuError::Unsupported { gpu: gpu.clone(), setting: Setting::ComputeMode })
    }

    fn interval(&self, _gpu: &GpuUuid) -> Result<Option<Interval>, GpuError> {
        Ok(None)
    }

    fn set_interval(&self, gpu: &GpuUuid, _interval: Interval) -> Result<(), GpuError> {
        Err(GpuError::Unsupported { gpu: gpu.clone(), setting: Setting::Interval })
    }
}

fn facts(number: u8) -> GpuFacts {
    GpuFacts {
        uuid: format!("GPU-00000000-0000-0000-0000-0000000000{number:02x}").parse().unwrap(),
        minor: number.into(),
        pci: PciAddress { domain: 0, bus: number, device: 0, function: 0 },
        product_name: Some("Tesla T4".to_owned()),
        brand: "Nvidia".to_owned(),
        architecture: "Turing".to_owned(),
        compute_capability: Some(Version { major: 7, minor: 5, patch: 0 }),
        memory: None,
        reserved: None,
        addressing_mode: None,
        mig: MigMode::Unsupported,
    }
}

/// A GPU that reports its identity and nothing else.
fn partly_broken(number: u8) -> GpuError {
    let facts = facts(number);
    let (uuid, pci) = (Some(facts.uuid), Some(facts.pci));
    GpuError::Failed { call: "nvmlDeviceGetName", which: "GPU 1".to_owned(), code: NvmlCode(999), uuid, pci }
}

fn host(gpus: Vec<Result<GpuFacts, GpuError>>) -> (Arc<MemoryMachine>, Host) {
    let machine = Arc::new(MemoryMachine::default());
    machine.change(|state| state.gpus = gpus);
    let nowhere = PathBuf::from("/nonexistent");
    let roots = Roots {
        driver: nowhere.clone(),
        driver_on_host: nowhere.clone(),
        proc: nowhere.clone(),
        sys: nowhere,
        processes: ProcessRoots::default(),
    };
    (Arc::clone(&machine), Host::new(machine, roots))
}

#[test]
fn an_unchanged_machine_costs_two_queries_and_one_for_each_gpu() {
    let (machine, host) = host(vec![Ok(facts(1)), Ok(facts(2))]);
    assert_eq!(host.latest().driver, DriverState::Missing { reason: "not read yet".to_owned() });
    assert!(host.refresh_if_changed());
    assert_eq!(host.latest().usable_gpus().count(), 2);
    assert_eq!(machine.asked(), BTreeMap::from([("driver", 2), ("gpu_count", 2), ("shape", 2), ("gpu", 2)]));
    for _ in 0..3 {
        assert!(!host.refresh_if_changed());
    }
    assert_eq!(machine.asked(), BTreeMap::from([("driver", 3), ("gpu_count", 3), ("shape", 6)]));
}

#[test]
fn a_gpu_that_appears_or_disappears_is_noticed_once() {
    let (machine, host) = host(vec![Ok(facts(1))]);
    host.refresh();
    machine.change(|state| state.gpus.push(Ok(facts(2))));
    assert_eq!((host.refresh_if_changed(), host.refresh_if_changed()), (true, false));
    assert_eq!(host.latest().usable_gpus().count(), 2);
}

/// Slices would change with each such answer.
#[test]
fn values_of_a_gpu_are_remembered_under_the_same_driver() {
    let reported = GpuFacts {
        memory: Some(Bytes::from_mib(15_360)),
        reserved: Some(Bytes::from_mib(448)),
        addressing_mode: Some("HMM".to_owned()),
        ..facts(1)
    };
    let untold = GpuFacts {
        product_name: None,
        compute_capability: None,
        memory: None,
        reserved: None,
        addressing_mode: None,
        ..reported.clone()
    };
    let (machine, host) = host(vec![Ok(reported), Ok(facts(2))]);
    let before = host.refresh();
    machine.change(|state| state.gpus[0] = Ok(untold));
    assert_eq!(host.refresh(), before);
    machine.change(|state| state.driver_gone = true);
    host.refresh();
    machine.change(|state| state.driver_gone = false);
    assert_eq!(host.refresh().usable_gpus().next().unwrap().memory, None, "values of another driver are discarded");
}

#[test]
fn only_an_unusable_gpu_is_queried_until_it_recovers() {
    let (machine, host) = host(vec![Ok(facts(1)), Err(partly_broken(2)), Ok(facts(3))]);
    let inventory = host.refresh();
    let GpuEntry::Unidentified { index, uuid, failure, .. } = &inventory.gpus[1] else { panic!("it answered") };
    assert_eq!((*index, uuid.as_ref()), (1, Some(&facts(2).uuid)));
    assert_eq!(failure.reason, "nvmlDeviceGetName failed on GPU 1: unknown error (NVML code 999)");
    assert_eq!(inventory.usable_gpus().count(), 2);
    machine.asked();
    assert!(!host.refresh_if_changed());
    assert_eq!(machine.asked(), BTreeMap::from([("driver", 1), ("gpu_count", 1), ("shape", 3), ("gpu", 1)]));
    machine.change(|state| state.gpus[1] = Ok(facts(2)));
    assert_eq!((host.refresh_if_changed(), host.refresh_if_changed()), (true, false));
    assert_eq!(host.latest().usable_gpus().count(), 3);
}

#[test]
fn an_unloaded_and_a_reloaded_driver_are_noticed_each_time() {
    let (machine, host) = host(vec![Ok(facts(1))]);
    let before = host.refresh();
    machine.change(|state| state.driver_gone = true);
    assert_eq!((host.refresh_if_changed(), host.refresh_if_changed()), (true, false));
    let reason = "the NVIDIA driver does not respond: nvmlInitWithFlags returned driver not loaded (NVML code 9)";
    assert_eq!(host.latest().driver, DriverState::Missing { reason: reason.to_owned() });
    assert!(matches!(host.gpu(&facts(1).uuid), Err(GpuError::Machine { .. })));
    machine.change(|state| state.driver_gone = false);
    assert!(host.refresh_if_changed());
    assert_eq!(host.latest(), before);
    assert!(matches!(host.gpu(&facts(9).uuid), Err(GpuError::NotFound { .. })));
}

fn lost() -> GpuError {
    GpuError::Failed {
        call: "nvmlDeviceGetHandleByIndex_v2",
        which: "GPU 1".to_owned(),
        code: NvmlCode(15),
        uuid: None,
        pci: None,
    }
}

/// A device that leaves its slice cannot evict pods, and all that is known of a lost GPU is what was reported before.
#[test]
fn a_gpu_that_cannot_be_read_any_more_stays_as_it_was_known() {
    let (machine, host) = host(vec![Ok(facts(1)), Ok(facts(2))]);
    let before = host.refresh();
    for error in [lost(), partly_broken(2), lost()] {
        machine.change(|state| state.gpus[1] = Err(error));
        host.refresh();
        let now = host.latest();
        let GpuEntry::Known { gpu, health: Health::Unusable(failure) } = &now.gpus[1] else { panic!("{now:?}") };
        assert_eq!(GpuEntry::usable(gpu.clone()), before.gpus[1]);
        assert!(failure.reason.contains("NVML code"), "{failure:?}");
        assert_eq!((now.usable_gpus().count(), now.known_gpus().count()), (1, 2));
    }
    machine.change(|state| state.gpus[1] = Ok(facts(2)));
    assert_eq!(host.refresh(), before);
}

#[test]
fn a_lost_gpu_is_the_one_at_its_position_only_if_the_others_are_where_they_were() {
    let named = |host: &Host| {
        let entry = host.latest().gpus[1].clone();
        entry.failure().unwrap();
        (entry.uuid().cloned(), entry.pci())
    };
    let (machine, host) = host(vec![Ok(facts(1)), Ok(facts(2))]);
    host.refresh();
    for _ in 0..2 {
        machine.change(|state| state.gpus[1] = Err(lost()));
        host.refresh();
        assert_eq!(named(&host), (Some(facts(2).uuid), Some(facts(2).pci)));
    }
    // Another GPU at its position, or another number of GPUs: no identity.
    machine.change(|state| state.gpus = vec![Ok(facts(2)), Err(lost())]);
    host.refresh();
    assert_eq!(named(&host), (None, None));
    machine.change(|state| state.gpus = vec![Ok(facts(1)), Err(lost()), Ok(facts(3))]);
    host.refresh();
    assert_eq!(named(&host), (None, None));
}

#[test]
fn under_another_driver_a_gpu_that_cannot_be_read_has_its_identity_and_nothing_else() {
    let (machine, host) = host(vec![Ok(facts(1))]);
    host.refresh();
    machine.change(|state| (state.gpus[0], state.driver_minor) = (Err(lost()), 1));
    let GpuEntry::Unidentified { uuid, pci, .. } = &host.refresh().gpus[0] else { panic!("it is of another driver") };
    assert_eq!((uuid.as_ref(), *pci), (Some(&facts(1).uuid), Some(facts(1).pci)));
}

#[test]
fn what_the_records_name_belongs_to_this_driver_unless_its_uuid_differs() {
    let identity = |start| MigIdentity {
        parent: facts(1).uuid,
        profile_id: 19,
        placement: Placement { start, size: 1 },
        share: ComputeShare { start: 0, slices: 1, of: 1 },
    };
    let device = |start| MigDevice {
        identity: identity(start),
        uuid: format!("MIG-00000000-0000-0000-0000-00000000000{start}").parse().unwrap(),
        gpu_instance: start,
        compute_instance: 0,
        profile: "1g.10gb".to_owned(),
        memory: Bytes::from_mib(9_984),
        engines: Engines::default(),
        origin: MigOrigin::default(),
    };
    let instance = |start| GpuInstance {
        id: start,
        profile_id: 19,
        placement: Placement { start, size: 1 },
        origin: MigOrigin::default(),
    };
    // The last GPU instance has no compute instance yet.
    let (devices, gpu_instances) = ((0..4).map(device).collect(), (0..5).map(instance).collect());
    let mig = MigMode::On { layout: None, devices, gpu_instances, origin: MigOrigin::default() };
    let (_machine, host) = host(vec![Ok(GpuFacts { mig, ..facts(1) })]);
    let origins = |gpu: &Gpu| -> Vec<MigOrigin> {
        let devices = gpu.mig_devices().iter().map(|device| device.origin);
        devices.chain(gpu.gpu_instances().iter().map(|instance| instance.origin)).collect()
    };
    let known = |inventory: &Inventory| origins(inventory.gpu(&facts(1).uuid).unwrap());
    assert_eq!(known(&host.refresh()), [MigOrigin::Administrator; 9]);
    let mig_devices = [
        (identity(1), None),
        (identity(2), Some(device(2).uuid)),
        (identity(3), Some(device(0).uuid)),
        (identity(4), None),
    ];
    let creations = Creations { mig_devices: mig_devices.into(), mig_modes: [facts(1).uuid].into() };
    host.set_ownership(Arc::new(Records(creations)));
    let (own, other) = (MigOrigin::ThisDriver, MigOrigin::Administrator);
    let expect = [other, own, own, other, other, own, own, other, own];
    assert_eq!(known(&host.refresh()), expect);
    assert_eq!(origins(&host.gpu(&facts(1).uuid).unwrap()), expect);
    assert!(matches!(host.gpu(&facts(1).uuid).unwrap().mig, MigMode::On { origin, .. } if origin == own));
}

#[derive(Debug)]
struct Records(Creations);

impl Ownership for Records {
    fn creations(&self, _boot_id: Option<&str>) -> Creations {
        self.0.clone()
    }
}
