// SPDX-License-Identifier: Apache-2.0
//! The in-process interface as the port that the driver uses: [`dra_hardware::Machine`] for [`Simulator`].
//!
//! It returns the values of `NvmlMachine` on the same machine; a test compares the two. Each query makes the NVML calls of
//! `NvmlMachine`, so that fault rules and call counts work by their names. A failure inside nvidia-smi is a failure of the
//! call that nvidia-smi makes.

use dra_hardware::{
    DriverVersions, GpuError, GpuFacts, GpuSelector, GpuShape, Machine, MachineError, NvmlCode, Setting,
};
use dra_model as model;
use dra_model::{
    Bytes, ComputeMode, ComputeShare, GpuUuid, Interval, MigDevice, MigIdentity, MigLayout, MigMode, MigOrigin,
    PciAddress, Version,
};

use crate::catalog::{Addressing, Architecture, GpuProfile, MigModel, Model};
use crate::engine::ComputeRef;
use crate::state::{Gpu, State};
use crate::{Code, Simulator, state};

impl Machine for Simulator {
    fn driver(&self) -> Result<DriverVersions, MachineError> {
        let call = "nvmlSystemGetDriverVersion";
        let versions = |state: &mut State| {
            let driver = state.driver_version.parse().map_err(|_bad| Code::UNKNOWN)?;
            let cuda = u32::try_from(state.cuda_version()).map_err(|_bad| Code::UNKNOWN)?;
            let cuda = Version { major: cuda / 1000, minor: cuda % 1000 / 10, patch: 0 };
            Ok(DriverVersions { driver, cuda: Some(cuda) })
        };
        self.initialised()?;
        self.call(call, None, versions).map_err(|code| not_answering(call, code))
    }

    fn gpu_count(&self) -> Result<u32, MachineError> {
        let call = "nvmlDeviceGetCount_v2";
        self.initialised()?;
        let count = self.call(call, None, |state| Ok(state.gpus.len())).map_err(|code| not_answering(call, code))?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    fn gpu(&self, which: GpuSelector<'_>) -> Result<GpuFacts, GpuError> {
        Question::about(self, which)?.facts()
    }

    fn shape(&self, index: u32) -> Result<GpuShape, MachineError> {
        self.initialised()?;
        let which = GpuSelector::Index(index);
        let mut question = Question { sim: self, which, index: 0, uuid: None, pci: None };
        let mut shape = GpuShape::silent();
        match question.shape(&mut shape) {
            Err(GpuError::Machine { source, .. }) => Err(source),
            Ok(())
            | Err(
                GpuError::NotFound { .. }
                | GpuError::Failed { .. }
                | GpuError::UnexpectedValue { .. }
                | GpuError::OutOfTime { .. }
                | GpuError::Unsupported { .. }
                | GpuError::NotApplied { .. }
                | GpuError::Program { .. },
            ) => Ok(shape),
        }
    }

    fn compute_mode(&self, gpu: &GpuUuid) -> Result<Option<ComputeMode>, GpuError> {
        Question::about(self, GpuSelector::Uuid(gpu))?.compute_mode()
    }

    fn set_compute_mode(&self, gpu: &GpuUuid, mode: ComputeMode) -> Result<(), GpuError> {
        let (call, setting) = ("nvmlDeviceSetComputeMode", Setting::ComputeMode);
        let question = Question::about(self, GpuSelector::Uuid(gpu))?;
        let index = question.index;
        let known = state::ComputeMode::from_number(mode.number()).ok_or(Code::INVALID_ARGUMENT);
        question.set(gpu, setting, call, |state| state.set_compute_mode(index, known?))?;
        GpuError::check_applied(gpu, setting, &mode, question.compute_mode()?.as_ref())
    }

    fn interval(&self, gpu: &GpuUuid) -> Result<Option<Interval>, GpuError> {
        Question::about(self, GpuSelector::Uuid(gpu))?.interval()
    }

    fn set_interval(&self, gpu: &GpuUuid, interval: Interval) -> Result<(), GpuError> {
        let (call, setting) = ("computePolicySet", Setting::Interval);
        let question = Question::about(self, GpuSelector::Uuid(gpu))?;
        let index = question.index;
        question.set(gpu, setting, call, |state| state.set_time_slice(index, interval.number()))?;
        GpuError::check_applied(gpu, setting, &interval, question.interval()?.as_ref())
    }
}

impl Simulator {
    fn initialised(&self) -> Result<(), MachineError> {
        let call = "nvmlInitWithFlags";
        self.call(call, None, |_state| Ok(())).map_err(|code| not_answering(call, code))
    }
}

/// Queries about one GPU, and its identity as far as known.
struct Question<'a> {
    sim: &'a Simulator,
    which: GpuSelector<'a>,
    index: usize,
    uuid: Option<GpuUuid>,
    pci: Option<PciAddress>,
}

impl<'a> Question<'a> {
    fn about(sim: &'a Simulator, which: GpuSelector<'a>) -> Result<Self, GpuError> {
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

    fn compute_mode(&self) -> Result<Option<ComputeMode>, GpuError> {
        let mig = self.ask("nvmlDeviceGetMigMode", |gpu, _| gpu.mig.ok_or(Code::NOT_SUPPORTED));
        if self.supported("nvmlDeviceGetMigMode", mig)?.is_some_and(|mig| mig.current) {
            return Ok(None);
        }
        let call = "nvmlDeviceGetComputeMode";
        let mode = self.ask(call, |gpu, _| ComputeMode::from_number(gpu.compute_mode.number()).ok_or(Code::UNKNOWN));
        self.supported(call, mode)
    }

    fn interval(&self) -> Result<Option<Interval>, GpuError> {
        let call = "computePolicyGet";
        let of = |number: u32| Interval::ALL.into_iter().find(|interval| interval.number() == number);
        let interval = self.ask(call, |gpu, _| of(gpu.time_slice).ok_or(Code::UNKNOWN));
        self.supported(call, interval)
    }

    /// A setting that a rule answers with success was not changed.
    fn set(
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

    fn facts(&mut self) -> Result<GpuFacts, GpuError> {
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
        let call = "nvmlDeviceGetMigDeviceHandleByIndex";
        let index = self.index;
        let read = |state: &mut State| {
            let devices = state.mig_devices(index)?;
            devices.into_iter().map(|target| mig_device(state, uuid, target)).collect::<Result<Vec<_>, Code>>()
        };
        let mut devices = self.sim.call(call, Some(index), read).map_err(|code| self.failed(call, code))?;
        devices.sort_by_key(|device| (device.identity.placement, device.identity.share));
        Ok(MigMode::On { layout, devices })
    }

    fn shape(&mut self, shape: &mut GpuShape) -> Result<(), GpuError> {
        self.index = self.find()?;
        shape.uuid = self.required("nvmlDeviceGetUUID", |gpu, _| Ok(gpu.uuid.clone()))?.parse().ok();
        self.memory()?;
        shape.answers = true;
        shape.mig_on =
            self.required("nvmlDeviceGetMigMode", |gpu, _| Ok(gpu.mig.ok_or(Code::NOT_SUPPORTED)?.current))?;
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
    fn ask<T>(
        &self,
        call: &'static str,
        answer: impl FnOnce(&Gpu, &'static Model) -> Result<T, Code>,
    ) -> Result<T, Code> {
        self.sim.call(call, Some(self.index), |state| {
            let gpu = state.live_gpu(self.index)?;
            answer(gpu, gpu.model()?)
        })
    }

    fn required<T>(
        &self,
        call: &'static str,
        answer: impl FnOnce(&Gpu, &'static Model) -> Result<T, Code>,
    ) -> Result<T, GpuError> {
        self.ask(call, answer).map_err(|code| self.failed(call, code))
    }

    /// Converts an unsupported call into `None`.
    fn supported<T>(&self, call: &'static str, answer: Result<T, Code>) -> Result<Option<T>, GpuError> {
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

    fn failed(&self, call: &'static str, code: Code) -> GpuError {
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

fn not_answering(call: &'static str, code: Code) -> MachineError {
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
    let engines = mig.engines();
    MigLayout {
        memory_slices: mig.memory_slices,
        engines: model::Engines {
            multiprocessors: mig.profiles.iter().map(|profile| profile.multiprocessors).max().unwrap_or(0),
            copy_engines: engines.copy,
            decoders: engines.decoder,
            encoders: engines.encoder,
            jpeg_engines: engines.jpeg,
            ofa_engines: engines.ofa,
        },
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
