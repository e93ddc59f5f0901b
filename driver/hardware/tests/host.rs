// SPDX-License-Identifier: Apache-2.0
//! When the host reads what: an in-memory machine counts the questions.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test that cannot go on should stop")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use dra_hardware::{
    DriverVersions, GpuError, GpuFacts, GpuSelector, GpuShape, Host, Machine, MachineError, NvmlCode, Roots, Setting,
};
use dra_model::{Bytes, ComputeMode, DriverState, GpuEntry, GpuUuid, Interval, MigMode, PciAddress, Version};

/// A machine made of values.
#[derive(Debug, Default)]
struct Twin(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    gpus: Vec<Result<GpuFacts, GpuError>>,
    driver_gone: bool,
    asked: BTreeMap<&'static str, u32>,
}

impl Twin {
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

impl Machine for Twin {
    fn driver(&self) -> Result<DriverVersions, MachineError> {
        let version = |major, minor| Version { major, minor, patch: 0 };
        self.ask("driver", |_| DriverVersions { driver: version(550, 54), cuda: Some(version(12, 4)) })
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

/// It still tells who it is, and nothing else.
fn half_dead(number: u8) -> GpuError {
    let facts = facts(number);
    let (uuid, pci) = (Some(facts.uuid), Some(facts.pci));
    GpuError::Failed { call: "nvmlDeviceGetName", which: "GPU 1".to_owned(), code: NvmlCode(999), uuid, pci }
}

fn host(gpus: Vec<Result<GpuFacts, GpuError>>) -> (Arc<Twin>, Host) {
    let twin = Arc::new(Twin::default());
    twin.change(|state| state.gpus = gpus);
    let nowhere = PathBuf::from("/nonexistent");
    let roots = Roots { driver: nowhere.clone(), driver_on_host: nowhere.clone(), proc: nowhere.clone(), sys: nowhere };
    (Arc::clone(&twin), Host::new(twin, roots))
}

#[test]
fn an_unchanged_machine_costs_two_questions_and_one_for_each_gpu() {
    let (twin, host) = host(vec![Ok(facts(1)), Ok(facts(2))]);
    assert_eq!(host.latest().driver, DriverState::Missing { reason: "not read yet".to_owned() });
    assert!(host.refresh_if_changed());
    assert_eq!(host.latest().good_gpus().count(), 2);
    assert_eq!(twin.asked(), BTreeMap::from([("driver", 2), ("gpu_count", 2), ("shape", 2), ("gpu", 2)]));
    for _ in 0..3 {
        assert!(!host.refresh_if_changed());
    }
    assert_eq!(twin.asked(), BTreeMap::from([("driver", 3), ("gpu_count", 3), ("shape", 6)]));
}

#[test]
fn a_gpu_that_comes_or_goes_is_noticed_once() {
    let (twin, host) = host(vec![Ok(facts(1))]);
    host.refresh();
    twin.change(|state| state.gpus.push(Ok(facts(2))));
    assert_eq!((host.refresh_if_changed(), host.refresh_if_changed()), (true, false));
    assert_eq!(host.latest().good_gpus().count(), 2);
}

/// Slices would change with each such answer.
#[test]
fn what_a_gpu_told_under_the_same_driver_stays_known() {
    let told = GpuFacts {
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
        ..told.clone()
    };
    let (twin, host) = host(vec![Ok(told), Ok(facts(2))]);
    let before = host.refresh();
    twin.change(|state| state.gpus[0] = Ok(untold));
    assert_eq!(host.refresh(), before);
    twin.change(|state| state.driver_gone = true);
    host.refresh();
    twin.change(|state| state.driver_gone = false);
    assert_eq!(host.refresh().good_gpus().next().unwrap().memory, None, "what another driver told says nothing");
}

#[test]
fn a_broken_gpu_is_asked_alone_until_it_recovers() {
    let (twin, host) = host(vec![Ok(facts(1)), Err(half_dead(2)), Ok(facts(3))]);
    let inventory = host.refresh();
    let GpuEntry::Broken { index, uuid, reason, .. } = &inventory.gpus[1] else { panic!("it answered") };
    assert_eq!((*index, uuid.as_ref()), (1, Some(&facts(2).uuid)));
    assert_eq!(reason, "nvmlDeviceGetName failed on GPU 1: unknown error (NVML code 999)");
    assert_eq!(inventory.good_gpus().count(), 2);
    twin.asked();
    assert!(!host.refresh_if_changed());
    assert_eq!(twin.asked(), BTreeMap::from([("driver", 1), ("gpu_count", 1), ("shape", 3), ("gpu", 1)]));
    twin.change(|state| state.gpus[1] = Ok(facts(2)));
    assert_eq!((host.refresh_if_changed(), host.refresh_if_changed()), (true, false));
    assert_eq!(host.latest().good_gpus().count(), 3);
}

#[test]
fn a_driver_that_goes_and_comes_back_is_noticed_each_time() {
    let (twin, host) = host(vec![Ok(facts(1))]);
    let before = host.refresh();
    twin.change(|state| state.driver_gone = true);
    assert_eq!((host.refresh_if_changed(), host.refresh_if_changed()), (true, false));
    let reason = "the NVIDIA driver does not respond: nvmlInitWithFlags returned driver not loaded (NVML code 9); check nvidia-smi on this node";
    assert_eq!(host.latest().driver, DriverState::Missing { reason: reason.to_owned() });
    assert!(matches!(host.gpu(&facts(1).uuid), Err(GpuError::Machine { .. })));
    twin.change(|state| state.driver_gone = false);
    assert!(host.refresh_if_changed());
    assert_eq!(host.latest(), before);
    assert!(matches!(host.gpu(&facts(9).uuid), Err(GpuError::NotFound { .. })));
}

#[test]
fn a_gpu_that_cannot_say_who_it_is_any_more_is_the_one_that_was_there() {
    let lost = || GpuError::Failed {
        call: "nvmlDeviceGetHandleByIndex_v2",
        which: "GPU 1".to_owned(),
        code: NvmlCode(15),
        uuid: None,
        pci: None,
    };
    let named = |host: &Host| match &host.latest().gpus[1] {
        GpuEntry::Broken { uuid, pci, .. } => (uuid.clone(), *pci),
        GpuEntry::Good(_) => panic!("it is lost"),
    };
    let (twin, host) = host(vec![Ok(facts(1)), Ok(facts(2))]);
    host.refresh();
    for _ in 0..2 {
        twin.change(|state| state.gpus[1] = Err(lost()));
        host.refresh();
        assert_eq!(named(&host), (Some(facts(2).uuid), Some(facts(2).pci)));
    }
    // Another one in its place, or fewer of them: no guess.
    twin.change(|state| state.gpus = vec![Ok(facts(2)), Err(lost())]);
    host.refresh();
    assert_eq!(named(&host), (None, None));
    twin.change(|state| state.gpus = vec![Ok(facts(1)), Err(lost()), Ok(facts(3))]);
    host.refresh();
    assert_eq!(named(&host), (None, None));
}
