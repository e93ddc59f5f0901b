// SPDX-License-Identifier: Apache-2.0
//! A machine made of memory, with the switches that these tests need.

use std::collections::{BTreeMap, BTreeSet};

use dra_hardware::{
    DriverVersions, GpuError, GpuFacts, GpuSelector, GpuShape, HealthMachine, Machine, MachineError, MigMachine,
    NvmlCode, Setting,
};
use dra_model::{
    Bytes, ComputeMode, ComputeShare, Engines, GpuSettings, GpuUuid, Interval, MigDevice, MigIdentity, MigLayout,
    MigMode, MigOrigin, PciAddress, Placement, Version,
};
use parking_lot::{Condvar, Mutex};

#[derive(Debug)]
pub(crate) struct MemoryMachine {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    driver_loaded: bool,
    gpus: Vec<GpuFacts>,
    /// Of GPUs that have been set, and what a GPU has that has not is [`FRESH`].
    settings: BTreeMap<GpuUuid, GpuSettings>,
    broken: BTreeSet<GpuUuid>,
    /// GPUs that answer with success and keep the settings they have.
    stubborn: BTreeSet<GpuUuid>,
    interval_calls: usize,
    /// GPUs that do not answer until they are let go.
    slow: BTreeSet<GpuUuid>,
    /// GPUs that take no settings until they are let go.
    slow_to_set: BTreeSet<GpuUuid>,
    /// GPUs whose program of the driver does not end until they are let go.
    slow_program: BTreeSet<GpuUuid>,
    /// Calls that wait for a slow GPU.
    waiting: usize,
}

const LAYOUT: MigLayout = MigLayout { memory_slices: 8, engines: NO_ENGINES, resetless: false, profiles: Vec::new() };
const NO_ENGINES: Engines =
    Engines { multiprocessors: 0, copy_engines: 0, decoders: 0, encoders: 0, jpeg_engines: 0, ofa_engines: 0 };

/// A GPU with the default settings.
const FRESH: GpuSettings = GpuSettings { compute_mode: Some(ComputeMode::Default), interval: Some(Interval::Default) };

pub(crate) fn gpu_uuid(index: u32) -> GpuUuid {
    format!("GPU-{index:08x}-1111-2222-3333-444444444444").parse().unwrap()
}

fn switch(gpus: &mut BTreeSet<GpuUuid>, gpu: u32, on: bool) {
    if on {
        gpus.insert(gpu_uuid(gpu))
    } else {
        gpus.remove(&gpu_uuid(gpu))
    };
}

impl MemoryMachine {
    pub(crate) fn new(gpus: u32) -> Self {
        let gpus = (0..gpus).map(gpu).collect();
        let state = State { driver_loaded: true, gpus, ..State::default() };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Turns MIG mode on, with a `1g.10gb` at each start.
    pub(crate) fn cut(&self, gpu: usize, starts: &[u32], boot: u32) {
        let mut state = self.state.lock();
        let parent = state.gpus[gpu].uuid.clone();
        let devices = starts.iter().enumerate().map(|(at, start)| mig(&parent, *start, boot, at)).collect();
        let (gpu_instances, origin) = (Vec::new(), MigOrigin::default());
        state.gpus[gpu].mig = MigMode::On { layout: Some(LAYOUT), devices, gpu_instances, origin };
    }

    pub(crate) fn join(&self, gpu: usize) {
        self.state.lock().gpus[gpu].mig = MigMode::Off(LAYOUT);
    }

    pub(crate) fn set_broken(&self, gpu: u32, broken: bool) {
        switch(&mut self.state.lock().broken, gpu, broken);
    }

    /// Settings live in the driver and go with it.
    pub(crate) fn set_driver_loaded(&self, loaded: bool) {
        let mut state = self.state.lock();
        state.driver_loaded = loaded;
        state.settings.clear();
    }

    /// As a reboot does.
    pub(crate) fn forget_settings(&self) {
        self.state.lock().settings.clear();
    }

    /// What an administrator finds.
    pub(crate) fn settings(&self, gpu: u32) -> (Option<ComputeMode>, Option<Interval>) {
        let GpuSettings { compute_mode, interval } = self.state.lock().settings_of(&gpu_uuid(gpu));
        (compute_mode, interval)
    }

    /// What an administrator does.
    pub(crate) fn configure(&self, gpu: u32, compute_mode: Option<ComputeMode>, interval: Option<Interval>) {
        self.state.lock().settings.insert(gpu_uuid(gpu), GpuSettings { compute_mode, interval });
    }

    /// Whether settings of a GPU can be changed.
    pub(crate) fn set_stubborn(&self, gpu: u32, stubborn: bool) {
        switch(&mut self.state.lock().stubborn, gpu, stubborn);
    }

    /// How often a setting was asked for or set.
    pub(crate) fn interval_calls(&self) -> usize {
        self.state.lock().interval_calls
    }

    pub(crate) fn set_slow(&self, gpu: u32, slow: bool) {
        switch(&mut self.state.lock().slow, gpu, slow);
        self.changed.notify_all();
    }

    pub(crate) fn set_slow_to_set(&self, gpu: u32, slow: bool) {
        switch(&mut self.state.lock().slow_to_set, gpu, slow);
        self.changed.notify_all();
    }

    pub(crate) fn set_slow_program(&self, gpu: u32, slow: bool) {
        switch(&mut self.state.lock().slow_program, gpu, slow);
        self.changed.notify_all();
    }

    /// The interval is the business of a program.
    fn run_program(&self, gpu: &GpuUuid) {
        let mut state = self.state.lock();
        state.waiting += 1;
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |state| state.slow_program.contains(gpu));
        state.waiting -= 1;
    }

    /// Until a call waits for a slow GPU.
    pub(crate) fn wait_until_asked(&self) {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |state| state.waiting == 0);
    }

    pub(crate) fn remove(&self, gpu: u32) {
        self.state.lock().gpus.retain(|facts| facts.uuid != gpu_uuid(gpu));
    }

    pub(crate) fn facts(&self) -> Vec<GpuFacts> {
        self.state.lock().gpus.clone()
    }

    fn set(&self, gpu: &GpuUuid, setting: Setting, wanted: GpuSettings) -> Result<(), GpuError> {
        let mut state = self.state.lock();
        state.waiting += 1;
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |state| state.slow_to_set.contains(gpu));
        state.waiting -= 1;
        let found = state.settings_of(gpu);
        let GpuSettings { compute_mode, interval } = wanted;
        let known = compute_mode.is_none() || found.compute_mode.is_some();
        if !known || interval.is_some() && found.interval.is_none() {
            return Err(GpuError::Unsupported { gpu: gpu.clone(), setting });
        }
        if state.stubborn.contains(gpu) {
            return Ok(());
        }
        let (compute_mode, interval) = (compute_mode.or(found.compute_mode), interval.or(found.interval));
        state.settings.insert(gpu.clone(), GpuSettings { compute_mode, interval });
        Ok(())
    }

    fn not_loaded(call: &'static str) -> MachineError {
        MachineError::NotAnswering { call, code: NvmlCode(9) }
    }
}

impl State {
    fn settings_of(&self, gpu: &GpuUuid) -> GpuSettings {
        let cut = self.gpus.iter().any(|facts| facts.uuid == *gpu && matches!(facts.mig, MigMode::On { .. }));
        let GpuSettings { compute_mode, interval } = self.settings.get(gpu).copied().unwrap_or(FRESH);
        GpuSettings { compute_mode: compute_mode.filter(|_| !cut), interval }
    }
}

impl MigMachine for MemoryMachine {}

impl HealthMachine for MemoryMachine {}

impl Machine for MemoryMachine {
    fn driver(&self) -> Result<DriverVersions, MachineError> {
        let version = Version { major: 550, minor: 54, patch: 15 };
        let cuda = Some(Version { major: 12, minor: 4, patch: 0 });
        let loaded = self.state.lock().driver_loaded;
        loaded.then_some(DriverVersions { driver: version, cuda }).ok_or_else(|| Self::not_loaded("nvmlInit_v2"))
    }

    fn gpu_count(&self) -> Result<u32, MachineError> {
        self.driver()?;
        Ok(self.state.lock().gpus.len().try_into().unwrap())
    }

    fn gpu(&self, which: GpuSelector<'_>) -> Result<GpuFacts, GpuError> {
        self.driver().map_err(|source| GpuError::Machine { which: which.to_string(), source })?;
        let mut state = self.state.lock();
        let found = match which {
            GpuSelector::Index(index) => state.gpus.get(usize::try_from(index).unwrap()).cloned(),
            GpuSelector::Uuid(uuid) => state.gpus.iter().find(|facts| facts.uuid == *uuid).cloned(),
        };
        let found = found.ok_or_else(|| GpuError::NotFound { which: which.to_string() })?;
        state.waiting += 1;
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |state| state.slow.contains(&found.uuid));
        state.waiting -= 1;
        if state.broken.contains(&found.uuid) {
            let (which, code) = (which.to_string(), NvmlCode(15));
            let (uuid, pci) = (Some(found.uuid), Some(found.pci));
            return Err(GpuError::Failed { call: "nvmlDeviceGetMemoryInfo", which, code, uuid, pci });
        }
        Ok(found)
    }

    fn shape(&self, index: u32) -> Result<GpuShape, MachineError> {
        self.driver()?;
        let state = self.state.lock();
        let Some(facts) = state.gpus.get(usize::try_from(index).unwrap()) else { return Ok(GpuShape::silent()) };
        let (mig_on, mig_devices) = match &facts.mig {
            MigMode::On { devices, .. } => (true, devices.iter().map(|mig| mig.uuid.clone()).collect()),
            MigMode::Off(_) | MigMode::Unsupported => (false, Vec::new()),
        };
        Ok(GpuShape { uuid: Some(facts.uuid.clone()), answers: true, mig_on, mig_devices, ..GpuShape::silent() })
    }

    fn compute_mode(&self, gpu: &GpuUuid) -> Result<Option<ComputeMode>, GpuError> {
        self.gpu(GpuSelector::Uuid(gpu))?;
        Ok(self.state.lock().settings_of(gpu).compute_mode)
    }

    fn set_compute_mode(&self, gpu: &GpuUuid, mode: ComputeMode) -> Result<(), GpuError> {
        self.gpu(GpuSelector::Uuid(gpu))?;
        let setting = Setting::ComputeMode;
        self.set(gpu, setting, GpuSettings { compute_mode: Some(mode), interval: None })?;
        GpuError::check_applied(gpu, setting, &mode, self.compute_mode(gpu)?.as_ref())
    }

    fn interval(&self, gpu: &GpuUuid) -> Result<Option<Interval>, GpuError> {
        self.gpu(GpuSelector::Uuid(gpu))?;
        self.run_program(gpu);
        let mut state = self.state.lock();
        state.interval_calls += 1;
        Ok(state.settings_of(gpu).interval)
    }

    fn set_interval(&self, gpu: &GpuUuid, interval: Interval) -> Result<(), GpuError> {
        self.gpu(GpuSelector::Uuid(gpu))?;
        let setting = Setting::Interval;
        self.set(gpu, setting, GpuSettings { compute_mode: None, interval: Some(interval) })?;
        GpuError::check_applied(gpu, setting, &interval, self.interval(gpu)?.as_ref())
    }
}

fn gpu(index: u32) -> GpuFacts {
    GpuFacts {
        uuid: gpu_uuid(index),
        minor: index,
        pci: PciAddress { domain: 0, bus: u8::try_from(index + 1).unwrap(), device: 0, function: 0 },
        product_name: Some("NVIDIA H100 80GB HBM3".to_owned()),
        brand: "Nvidia".to_owned(),
        architecture: "Hopper".to_owned(),
        compute_capability: Some(Version { major: 9, minor: 0, patch: 0 }),
        memory: Some(Bytes::from_mib(81_559)),
        reserved: Some(Bytes::from_mib(480)),
        addressing_mode: None,
        mig: MigMode::Off(LAYOUT),
    }
}

/// Ids and UUIDs differ from boot to boot, as they may on a real machine.
fn mig(parent: &GpuUuid, start: u32, boot: u32, at: usize) -> MigDevice {
    MigDevice {
        identity: MigIdentity {
            parent: parent.clone(),
            profile_id: 19,
            placement: Placement { start, size: 1 },
            share: ComputeShare { start: 0, slices: 1, of: 1 },
        },
        uuid: format!("MIG-{boot:08x}-{start:04x}-{}-0000-000000000000", &parent.as_str()[8..12]).parse().unwrap(),
        gpu_instance: 7 + boot % 4 + u32::try_from(at).unwrap(),
        compute_instance: 0,
        profile: "1g.10gb".to_owned(),
        memory: Bytes::from_mib(9_984),
        engines: NO_ENGINES,
        origin: MigOrigin::default(),
    }
}
