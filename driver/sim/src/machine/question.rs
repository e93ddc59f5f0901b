// SPDX-License-Identifier: Apache-2.0
//! Queries about one GPU of the simulator, each with the name of its NVML call.

use dra_hardware::{GpuError, GpuFacts, GpuSelector, GpuShape, MachineError, NvmlCode, Setting};
use dra_model as model;
use dra_model::{
    Bytes, ComputeMode, ComputeShare, GpuInstance, GpuUuid, Interval, MigDevice, MigIdentity, MigLayout, MigMode,
    MigOrigin, MigProfile, PciAddress, Version,
};

use crate::catalog::{Addressing, Architecture, GpuProfile, MigModel, Model, Toggle};
use crate::engine::{ComputeRef, InstanceRef};
use crate::state::{Gpu, State};
use crate::{Code, Simulator};

impl Simulator {
    pub(super) fn initialised(&self) -> Result<(), MachineError> {
        let call = "nvmlInitWithFlags";
        self.call(call, None, |_state| Ok(())).map_err(|code| not_answering(call, code))
    }
}

/// Queries about one GPU, and its identity as far as known.
pub(super) struct Question<'a> {
    pub(super) sim: &'a Simulator,
    pub(super) which: GpuSelector<'a>,
    pub(super) index: usize,
    pub(super) uuid: Option<GpuUuid>,
    pub(super) pci: Option<PciAddress>,
}

impl<'a> Question<'a> {
    pub(super) fn about(sim: &'a Simulator, which: GpuSelector<'a>) -> Result<Self, GpuError> {
        sim.initialised().map_err(|source| GpuError::Machine { which: which.to_string(), source })?;
        let question = Self { sim, which, index: 0, uuid: None, pci: None };
        Ok(Self { index: question.find()?, ..question })
    }

    fn find(&self) -> Result<usize, GpuError> {
        let not_found = || GpuError::NotFound { which: self.which.to_string() };
        let (call, position) = match self.which {
            GpuSelector::Index(index) => ("nvmlDeviceGetHandleByIndex_v2", usize::try_from(index).ok()),
            GpuSelector::Uuid(uuid) => {
                ("nvmlDeviceGetHandleByUUID", self.sim.peek(|state| state.gpu_by_uuid(uuid.as_str())))
            }
        };
        let exists = |index: &usize| self.sim.peek(|state| state.gpus.get(*index).is_some());
        let index = position.filter(exists).ok_or_else(not_found)?;
        let found = self.sim.call(call, Some(index), |state| state.live_gpu(index).map(|_| index));
        found.map_err(|code| self.failed(call, code))
    }

    pub(super) fn compute_mode(&self) -> Result<Option<ComputeMode>, GpuError> {
        let mig = self.ask("nvmlDeviceGetMigMode", |gpu, _| gpu.mig.ok_or(Code::NOT_SUPPORTED));
        if self.supported("nvmlDeviceGetMigMode", mig)?.is_some_and(|mig| mig.current) {
            return Ok(None);
        }
        let call = "nvmlDeviceGetComputeMode";
        let mode = self.ask(call, |gpu, _| ComputeMode::from_number(gpu.compute_mode.number()).ok_or(Code::UNKNOWN));
        self.supported(call, mode)
    }

    pub(super) fn interval(&self) -> Result<Option<Interval>, GpuError> {
        let call = "computePolicyGet";
        let of = |number: u32| Interval::ALL.into_iter().find(|interval| interval.number() == number);
        let interval = self.ask(call, |gpu, _| of(gpu.time_slice).ok_or(Code::UNKNOWN));
        self.supported(call, interval)
    }

    /// A setting that a rule answers with success was not changed.
    pub(super) fn set(
        &self,
        gpu: &GpuUuid,
        setting: Setting,
        call: &'static str,
        set: impl FnOnce(&mut State) -> Result<(), Code>,
    ) -> Result<(), GpuError> {
        match self.sim.call(call, Some(self.index), set) {
            Ok(()) | Err(Code::SUCCESS) => Ok(()),
            Err(Code::NOT_SUPPORTED) => Err(GpuError::Unsupported { gpu: gpu.clone(), setting }),
            Err(code) => Err(self.failed(call, code)),
        }
    }

    pub(super) fn facts(&mut self) -> Result<GpuFacts, GpuError> {
        let uuid_text = self.ask("nvmlDeviceGetUUID", |gpu, _| Ok(gpu.uuid.clone()));
        let pci_text = self.ask("nvmlDeviceGetPciInfo_v3", |gpu, _| Ok(gpu.pci.nvml_address()));
        self.uuid = uuid_text.as_ref().ok().and_then(|text| text.parse().ok());
        self.pci = pci_text.as_ref().ok().and_then(|text| text.parse().ok());
        let uuid = self.parsed("nvmlDeviceGetUUID", uuid_text, self.uuid.clone())?;
        let pci = self.parsed("nvmlDeviceGetPciInfo_v3", pci_text, self.pci)?;
        let (memory, reserved) = self.memory()?;
        let mig = self.mig(&uuid)?;
        let capability = self.ask("nvmlDeviceGetCudaComputeCapability", |_, model| Ok(model.compute_capability));
        let number = |value: i32| u32::try_from(value).unwrap_or(0);
        let version = |(major, minor)| Version { major: number(major), minor: number(minor), patch: 0 };
        let compute_capability = self.supported("nvmlDeviceGetCudaComputeCapability", capability)?.map(version);
        let minor = self.required("nvmlDeviceGetMinorNumber", |gpu, _| Ok(gpu.minor))?;
        let product_name = self.ask("nvmlDeviceGetName", |_, model| Ok(model.name.clone()));
        let product_name = self.supported("nvmlDeviceGetName", product_name)?;
        let brand = self.ask("nvmlDeviceGetBrand", |_, _| Ok("Nvidia"));
        let brand = self.supported("nvmlDeviceGetBrand", brand)?.unwrap_or("Unknown").to_owned();
        let architecture = self.ask("nvmlDeviceGetArchitecture", |_, model| Ok(architecture_word(model.architecture)));
        let architecture = self.supported("nvmlDeviceGetArchitecture", architecture)?.unwrap_or("Unknown").to_owned();
        let mode = self.ask("nvmlDeviceGetAddressingMode", |_, model| Ok(addressing_word(model.addressing)));
        let addressing_mode = self.supported("nvmlDeviceGetAddressingMode", mode)?.map(str::to_owned);
        Ok(GpuFacts {
            uuid,
            minor,
            pci,
            product_name,
            brand,
            architecture,
            compute_capability,
            memory,
            reserved,
            addressing_mode,
            mig,
        })
    }

    /// Total and reserved. The second version of the call reports both, the first one, of older drivers, the total.
    fn memory(&self) -> Result<(Option<Bytes>, Option<Bytes>), GpuError> {
        let (call, older) = ("nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetMemoryInfo");
        match self.ask(call, |_, model| Ok((model.memory.total_mib, model.memory.reserved_mib))) {
            Err(Code::FUNCTION_NOT_FOUND) => {
                let total = self.ask(older, |_, model| Ok(model.memory.total_mib));
                Ok((self.supported(older, total)?.map(Bytes::from_mib), None))
            }
            answer => Ok(self
                .supported(call, answer)?
                .map(|(total, reserved)| (Bytes::from_mib(total), Bytes::from_mib(reserved)))
                .unzip()),
        }
    }

    fn mig(&self, uuid: &GpuUuid) -> Result<MigMode, GpuError> {
        let mode = self.ask("nvmlDeviceGetMigMode", |gpu, _| gpu.mig.ok_or(Code::NOT_SUPPORTED));
        let Some(mode) = self.supported("nvmlDeviceGetMigMode", mode)? else { return Ok(MigMode::Unsupported) };
        let profiles = "nvmlDeviceGetGpuInstanceProfileInfoV";
        let layout = match self.ask(profiles, |_, model| model.mig.as_ref().ok_or(Code::NOT_SUPPORTED)) {
            Ok(model) => Some(layout_of(model)),
            Err(Code::NOT_SUPPORTED | Code::NO_PERMISSION) => None,
            Err(code) => return Err(self.failed(profiles, code)),
        };
        if !mode.current {
            return Ok(layout.map_or(MigMode::Unsupported, MigMode::Off));
        }
        let gpu_instances = if layout.is_some() { self.gpu_instances()? } else { Vec::new() };
        let call = "nvmlDeviceGetMigDeviceHandleByIndex";
        let index = self.index;
        let read = |state: &mut State| {
            let devices = state.mig_devices(index)?;
            devices.into_iter().map(|target| mig_device(state, uuid, target)).collect::<Result<Vec<_>, Code>>()
        };
        let mut devices = self.sim.call(call, Some(index), read).map_err(|code| self.failed(call, code))?;
        devices.sort_by_key(|device| (device.identity.placement, device.identity.share));
        Ok(MigMode::On { layout, devices, gpu_instances, origin: MigOrigin::default() })
    }

    pub(super) fn is_mig_on(&self) -> Result<bool, GpuError> {
        self.required("nvmlDeviceGetMigMode", |gpu, _| Ok(gpu.mig.ok_or(Code::NOT_SUPPORTED)?.current))
    }

    /// Ordered by id.
    fn gpu_instances(&self) -> Result<Vec<GpuInstance>, GpuError> {
        self.required("nvmlDeviceGetGpuInstances", |gpu, _| {
            let all = gpu.instances.iter().map(|(id, instance)| GpuInstance {
                id: *id,
                profile_id: instance.profile_id,
                placement: model::Placement { start: instance.placement.start, size: instance.placement.size },
                origin: MigOrigin::default(),
            });
            Ok(all.collect())
        })
    }

    pub(super) fn compute_instances(&self, mig: &MigIdentity) -> Result<Vec<ComputeRef>, GpuError> {
        let (call, index) = ("nvmlGpuInstanceGetComputeInstances", self.index);
        let found = self.sim.call(call, Some(index), |state| {
            let Some(instance) = instance_at(state, index, mig)? else { return Ok(Vec::new()) };
            let all = state.mig_devices(index)?.into_iter();
            Ok(all.filter(|target| target.instance == instance).collect())
        });
        found.map_err(|code| self.failed(call, code))
    }

    pub(super) fn shape(&mut self, shape: &mut GpuShape) -> Result<(), GpuError> {
        self.index = self.find()?;
        shape.uuid = self.required("nvmlDeviceGetUUID", |gpu, _| Ok(gpu.uuid.clone()))?.parse().ok();
        self.memory()?;
        shape.answers = true;
        shape.mig_on = self.is_mig_on()?;
        if shape.mig_on {
            let instances = self.gpu_instances()?;
            shape.gpu_instances = instances.iter().map(|instance| (instance.id, instance.profile_id)).collect();
        }
        let (call, index) = ("nvmlDeviceGetMigDeviceHandleByIndex", self.index);
        let read = |state: &mut State| {
            let devices = state.mig_devices(index)?.into_iter();
            devices.map(|target| Ok(state.compute_instance(target)?.uuid.clone())).collect::<Result<Vec<_>, Code>>()
        };
        let uuids = self.sim.call(call, Some(index), read).map_err(|code| self.failed(call, code))?;
        shape.mig_devices = uuids.iter().filter_map(|uuid| uuid.parse().ok()).collect();
        Ok(())
    }

    /// One NVML call about this GPU.
    pub(super) fn ask<T>(
        &self,
        call: &'static str,
        answer: impl FnOnce(&Gpu, &'static Model) -> Result<T, Code>,
    ) -> Result<T, Code> {
        self.sim.call(call, Some(self.index), |state| {
            let gpu = state.live_gpu(self.index)?;
            answer(gpu, gpu.model()?)
        })
    }

    pub(super) fn required<T>(
        &self,
        call: &'static str,
        answer: impl FnOnce(&Gpu, &'static Model) -> Result<T, Code>,
    ) -> Result<T, GpuError> {
        self.ask(call, answer).map_err(|code| self.failed(call, code))
    }

    /// Converts an unsupported call into `None`.
    pub(super) fn supported<T>(&self, call: &'static str, answer: Result<T, Code>) -> Result<Option<T>, GpuError> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(Code::NOT_SUPPORTED | Code::FUNCTION_NOT_FOUND | Code::ARGUMENT_VERSION_MISMATCH) => Ok(None),
            Err(code) => Err(self.failed(call, code)),
        }
    }

    fn parsed<T>(&self, call: &'static str, answer: Result<String, Code>, parsed: Option<T>) -> Result<T, GpuError> {
        let answer = answer.map_err(|code| self.failed(call, code))?;
        let (which, uuid, pci) = (self.name(), self.uuid.clone(), self.pci);
        parsed.ok_or(GpuError::UnexpectedValue { call, which, answer, uuid, pci })
    }

    pub(super) fn failed(&self, call: &'static str, code: Code) -> GpuError {
        if [Code::UNINITIALIZED, Code::DRIVER_NOT_LOADED, Code::VERSION_MISMATCH].contains(&code) {
            return GpuError::Machine { which: self.name(), source: not_answering(call, code) };
        }
        GpuError::Failed { call, which: self.name(), code: NvmlCode(code.0), uuid: self.uuid.clone(), pci: self.pci }
    }

    fn name(&self) -> String {
        match (&self.uuid, self.pci) {
            (Some(uuid), Some(pci)) => format!("{uuid} at {pci}"),
            (Some(uuid), None) => uuid.to_string(),
            (None, Some(pci)) => format!("{} at {pci}", self.which),
            (None, None) => self.which.to_string(),
        }
    }
}

pub(super) fn not_answering(call: &'static str, code: Code) -> MachineError {
    MachineError::NotAnswering { call, code: NvmlCode(code.0) }
}

fn mig_device(state: &State, parent: &GpuUuid, target: ComputeRef) -> Result<MigDevice, Code> {
    let instance = state.gpu_instance(target.instance)?;
    let compute = state.compute_instance(target)?;
    let profile = state.profile_of(target.instance)?;
    let own = state.compute_profile_of(target)?;
    let at = instance.placement;
    Ok(MigDevice {
        identity: MigIdentity {
            parent: parent.clone(),
            profile_id: profile.id,
            placement: model::Placement { start: at.start, size: at.size },
            share: ComputeShare { start: compute.placement.start, slices: compute.placement.size, of: profile.slices },
        },
        uuid: compute.uuid.parse().map_err(|_bad| Code::UNKNOWN)?,
        gpu_instance: target.instance.id,
        compute_instance: target.id,
        profile: profile.compute_name(own),
        memory: Bytes::from_mib(profile.memory_mib),
        engines: engines(own.multiprocessors, profile),
        origin: MigOrigin::default(),
    })
}

fn engines(multiprocessors: u32, profile: &GpuProfile) -> model::Engines {
    model::Engines {
        multiprocessors,
        copy_engines: profile.engines.copy,
        decoders: profile.engines.decoder,
        encoders: profile.engines.encoder,
        jpeg_engines: profile.engines.jpeg,
        ofa_engines: profile.engines.ofa,
    }
}

fn layout_of(mig: &MigModel) -> MigLayout {
    let total = mig.engines();
    let mut profiles: Vec<MigProfile> = mig.profiles.iter().map(profile_of).collect();
    profiles.sort_by_key(|profile| profile.id);
    MigLayout {
        memory_slices: mig.memory_slices,
        engines: model::Engines {
            multiprocessors: mig.profiles.iter().map(|profile| profile.multiprocessors).max().unwrap_or(0),
            copy_engines: total.copy,
            decoders: total.decoder,
            encoders: total.encoder,
            jpeg_engines: total.jpeg,
            ofa_engines: total.ofa,
        },
        resetless: mig.toggle == Toggle::Live,
        profiles,
    }
}

fn profile_of(profile: &GpuProfile) -> MigProfile {
    MigProfile {
        id: profile.id,
        name: profile.name.clone(),
        slices: profile.slices,
        memory: Bytes::from_mib(profile.memory_mib),
        engines: engines(profile.multiprocessors, profile),
        placements: profile.placements.all().map(|at| model::Placement { start: at.start, size: at.size }).collect(),
    }
}

const fn architecture_word(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Turing => "Turing",
        Architecture::Ampere => "Ampere",
        Architecture::Ada => "Ada Lovelace",
        Architecture::Hopper => "Hopper",
        Architecture::Blackwell => "Blackwell",
    }
}

const fn addressing_word(addressing: Addressing) -> &'static str {
    match addressing {
        Addressing::None => "None",
        Addressing::Hmm => "HMM",
        Addressing::Ats => "ATS",
    }
}

pub(super) fn placement(mig: &MigIdentity) -> crate::catalog::Placement {
    crate::catalog::Placement { start: mig.placement.start, size: mig.placement.size }
}

/// With MIG mode off there is none.
pub(super) fn instance_at(state: &State, gpu: usize, mig: &MigIdentity) -> Result<Option<InstanceRef>, Code> {
    if !state.mig_mode(gpu)?.current {
        return Ok(None);
    }
    let all = state.gpu_instances(gpu, mig.profile_id)?;
    let is_here = |target: &InstanceRef| state.gpu_instance(*target).is_ok_and(|one| one.placement == placement(mig));
    Ok(all.into_iter().find(is_here))
}
