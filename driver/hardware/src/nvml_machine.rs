// SPDX-License-Identifier: Apache-2.0
//! The machine through NVML.
//!
//! The library below a driver root is loaded at the first query, and again when the library or its driver changes. Values of
//! NVML become values of the model, codes become errors that name the GPU. Only the settings of a GPU are changed.

mod constants;

mod facts;

mod health;

mod instances;

mod measurements;

mod mig;

mod profiles;

mod subject;

mod time_slice;

mod words;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dra_model::{ComputeMode, GpuUuid, Interval, MigIdentity, MigIds, MigUuid, Version, chain};
use dra_nvml::error::code;
use dra_nvml::{Device, LoadError, Nvml, NvmlError, Session};

use crate::driver_dirs::{library_dirs, listed};
use crate::driver_files::{DriverFilesError, nvml_path};
use crate::gpu_error::{GpuError, MachineError, NvmlCode, Setting};
use crate::health::{GpuCondition, GpuEvents, HealthMachine};
use crate::machine::{DriverVersions, GpuFacts, GpuProcess, GpuSelector, GpuShape, Machine, MigMachine, MigState};
use crate::measurements::Measurements;
use crate::procfs;
use constants::DriverConstants;
use facts::Constants;
use health::NvmlEvents;
use profiles::ProfileTable;
use subject::{Subject, not_answering};
use time_slice::NvidiaSmi;

/// The GPUs of the driver below a root directory.
#[derive(Debug)]
pub struct NvmlMachine {
    root: PathBuf,
    proc_root: PathBuf,
    session: Session,
    constants: Constants,
    program_timeout: Duration,
}

impl NvmlMachine {
    /// The library is loaded later, because the driver may be installed after this process started.
    pub fn new(driver_root: &Path, proc_root: &Path) -> Self {
        let (root, proc) = (driver_root.to_owned(), proc_root.to_owned());
        let locate = move || nvml_path(&root, procfs::loaded_driver(&proc).as_deref()).map_err(|error| why(&error));
        let session = Session::new(Box::new(locate));
        let (constants, program_timeout) = (Constants::default(), time_slice::RUN_TIMEOUT);
        Self { root: driver_root.to_owned(), proc_root: proc_root.to_owned(), session, constants, program_timeout }
    }

    /// With another timeout for each run of nvidia-smi.
    pub fn with_program_timeout(self, program_timeout: Duration) -> Self {
        Self { program_timeout, ..self }
    }

    /// nvidia-smi about one GPU. NVML is queried first, because its errors are more precise.
    fn nvidia_smi<'a>(&'a self, gpu: &'a GpuUuid) -> Result<NvidiaSmi<'a>, GpuError> {
        let which = GpuSelector::Uuid(gpu);
        let nvml = self.nvml_for(which)?;
        let index = found(&nvml, which)?.index().map_err(|error| Subject::of(which).failed(error))?;
        let loaded = procfs::loaded_driver(&self.proc_root);
        Ok(NvidiaSmi { driver_root: &self.root, loaded, timeout: self.program_timeout, gpu, index })
    }

    fn nvml(&self) -> Result<Arc<Nvml>, MachineError> {
        self.session.nvml().map_err(|error| match error {
            LoadError::Missing { .. } | LoadError::Unloadable { .. } => {
                MachineError::NoLibrary { root: self.root.display().to_string(), reason: error.to_string() }
            }
            LoadError::Refused(error) => not_answering(error),
        })
    }

    fn nvml_for(&self, which: GpuSelector<'_>) -> Result<Arc<Nvml>, GpuError> {
        self.nvml().map_err(|source| GpuError::Machine { which: which.to_string(), source })
    }
}

impl Machine for NvmlMachine {
    fn driver(&self) -> Result<DriverVersions, MachineError> {
        let nvml = self.nvml()?;
        let text = nvml.driver_version().map_err(not_answering)?;
        let unreadable =
            |_text| MachineError::NotAnswering { call: "nvmlSystemGetDriverVersion", code: NvmlCode(code::UNKNOWN) };
        let driver = text.parse().map_err(unreadable)?;
        let cuda = match nvml.cuda_version() {
            Ok((major, minor)) => Some(Version { major, minor, patch: 0 }),
            Err(error) if error.is_unsupported() => None,
            Err(error) => return Err(not_answering(error)),
        };
        Ok(DriverVersions { driver, cuda })
    }

    fn gpu_count(&self) -> Result<u32, MachineError> {
        self.nvml()?.device_count().map_err(not_answering)
    }

    fn gpu(&self, which: GpuSelector<'_>) -> Result<GpuFacts, GpuError> {
        let nvml = self.nvml_for(which)?;
        facts::read(&nvml, &found(&nvml, which)?, which, &self.constants)
    }

    fn shape(&self, index: u32) -> Result<GpuShape, MachineError> {
        let nvml = self.nvml()?;
        let mut shape = GpuShape::silent();
        match read_shape(&nvml, index, &self.constants.profiles, &mut shape) {
            Err(error) if error.is_driver_gone() => Err(not_answering(error)),
            Ok(()) | Err(_) => Ok(shape),
        }
    }

    fn compute_mode(&self, gpu: &GpuUuid) -> Result<Option<ComputeMode>, GpuError> {
        let nvml = self.nvml_for(GpuSelector::Uuid(gpu))?;
        compute_mode(gpu, &found(&nvml, GpuSelector::Uuid(gpu))?)
    }

    fn set_compute_mode(&self, gpu: &GpuUuid, mode: ComputeMode) -> Result<(), GpuError> {
        let (which, setting) = (GpuSelector::Uuid(gpu), Setting::ComputeMode);
        let nvml = self.nvml_for(which)?;
        let device = found(&nvml, which)?;
        match device.set_compute_mode(mode.number()) {
            Err(error) if error.is_unsupported() => return Err(GpuError::Unsupported { gpu: gpu.clone(), setting }),
            set => set.map_err(|error| Subject::of(which).failed(error))?,
        }
        GpuError::check_applied(gpu, setting, &mode, compute_mode(gpu, &device)?.as_ref())
    }

    fn interval(&self, gpu: &GpuUuid) -> Result<Option<Interval>, GpuError> {
        self.nvidia_smi(gpu)?.interval()
    }

    fn set_interval(&self, gpu: &GpuUuid, interval: Interval) -> Result<(), GpuError> {
        self.nvidia_smi(gpu)?.set_interval(interval)
    }
}

impl HealthMachine for NvmlMachine {
    fn condition(&self, gpu: &GpuUuid) -> Result<GpuCondition, GpuError> {
        let nvml = self.nvml_for(GpuSelector::Uuid(gpu))?;
        health::condition(gpu, &found(&nvml, GpuSelector::Uuid(gpu))?)
    }

    fn events(&self, gpu: &GpuUuid) -> Result<Box<dyn GpuEvents>, GpuError> {
        let nvml = self.nvml_for(GpuSelector::Uuid(gpu))?;
        Ok(Box::new(NvmlEvents::open(gpu, nvml)?))
    }

    fn measurements(&self, gpu: &GpuUuid) -> Result<Measurements, GpuError> {
        let nvml = self.nvml_for(GpuSelector::Uuid(gpu))?;
        Ok(measurements::read(&found(&nvml, GpuSelector::Uuid(gpu))?))
    }
}

impl MigMachine for NvmlMachine {
    fn mig_state(&self, gpu: &GpuUuid) -> Result<MigState, GpuError> {
        let nvml = self.nvml_for(GpuSelector::Uuid(gpu))?;
        instances::mig_state(gpu, &found(&nvml, GpuSelector::Uuid(gpu))?)
    }

    fn set_mig_mode(&self, gpu: &GpuUuid, on: bool) -> Result<(), GpuError> {
        let nvml = self.nvml_for(GpuSelector::Uuid(gpu))?;
        instances::set_mig_mode(gpu, &found(&nvml, GpuSelector::Uuid(gpu))?, on)
    }

    fn create_gpu_instance(&self, mig: &MigIdentity) -> Result<(), GpuError> {
        let nvml = self.nvml_for(GpuSelector::Uuid(&mig.parent))?;
        instances::create_gpu_instance(mig, &found(&nvml, GpuSelector::Uuid(&mig.parent))?)
    }

    fn create_compute_instance(&self, mig: &MigIdentity) -> Result<MigIds, GpuError> {
        let nvml = self.nvml_for(GpuSelector::Uuid(&mig.parent))?;
        instances::create_compute_instance(mig, &found(&nvml, GpuSelector::Uuid(&mig.parent))?)
    }

    fn destroy_compute_instances(&self, mig: &MigIdentity) -> Result<(), GpuError> {
        let nvml = self.nvml_for(GpuSelector::Uuid(&mig.parent))?;
        instances::destroy_compute_instances(mig, &found(&nvml, GpuSelector::Uuid(&mig.parent))?)
    }

    fn destroy_gpu_instance(&self, mig: &MigIdentity) -> Result<(), GpuError> {
        let nvml = self.nvml_for(GpuSelector::Uuid(&mig.parent))?;
        instances::destroy_gpu_instance(mig, &found(&nvml, GpuSelector::Uuid(&mig.parent))?)
    }

    fn processes(&self, gpu: &GpuUuid) -> Result<Vec<GpuProcess>, GpuError> {
        let which = GpuSelector::Uuid(gpu);
        let nvml = self.nvml_for(which)?;
        let processes = found(&nvml, which)?.processes().map_err(|error| Subject::of(which).failed(error))?;
        Ok(processes.into_iter().map(|(id, gpu_instance)| GpuProcess { id, gpu_instance }).collect())
    }
}

fn found<'a>(nvml: &'a Nvml, which: GpuSelector<'_>) -> Result<Device<'a>, GpuError> {
    let device = match which {
        GpuSelector::Index(index) => nvml.device_by_index(index),
        GpuSelector::Uuid(uuid) => nvml.device_by_uuid(uuid.as_str()),
    };
    device.map_err(|error| match error.code {
        code::NOT_FOUND | code::INVALID_ARGUMENT => GpuError::NotFound { which: which.to_string() },
        _ => Subject::of(which).failed(error),
    })
}

/// In MIG mode NVML reports a mode that has no effect and cannot be set.
fn compute_mode(gpu: &GpuUuid, device: &Device<'_>) -> Result<Option<ComputeMode>, GpuError> {
    let subject = Subject::of(GpuSelector::Uuid(gpu));
    match device.mig_mode() {
        Ok(true) => return Ok(None),
        Err(error) if !error.is_unsupported() => return Err(subject.failed(error)),
        Ok(false) | Err(_) => {}
    }
    match device.compute_mode() {
        Ok(number) => {
            let unexpected_value = || subject.unexpected_value("nvmlDeviceGetComputeMode", number.to_string());
            ComputeMode::from_number(number).map(Some).ok_or_else(unexpected_value)
        }
        Err(error) if error.is_unsupported() => Ok(None),
        Err(error) => Err(subject.failed(error)),
    }
}

fn read_shape(
    nvml: &Arc<Nvml>,
    index: u32,
    profiles: &DriverConstants<ProfileTable>,
    shape: &mut GpuShape,
) -> Result<(), NvmlError> {
    let device = nvml.device_by_index(index)?;
    let uuid: Option<GpuUuid> = device.uuid()?.parse().ok();
    let table = uuid.as_ref().and_then(|uuid| profiles.known(nvml, uuid));
    shape.uuid = uuid;
    match device.memory() {
        Err(error) if !error.is_unsupported() => return Err(error),
        Ok(_) | Err(_) => shape.answers = true,
    }
    shape.mig_on = device.mig_mode()?;
    if !shape.mig_on {
        return Ok(());
    }
    if let Some(table) = table {
        let instances = mig::gpu_instances(&device, &table)?;
        shape.gpu_instances = instances.iter().map(|instance| (instance.id, instance.profile_id)).collect();
    }
    for slot in 0..device.mig_slots()? {
        if let Some(mig) = device.mig_device(slot)? {
            shape.mig_devices.extend(mig.uuid()?.parse::<MigUuid>().ok());
        }
    }
    Ok(())
}

/// The reason that follows the text of [`MachineError::NoLibrary`].
fn why(error: &DriverFilesError) -> String {
    match error {
        DriverFilesError::Root { source, .. } => source.to_string(),
        DriverFilesError::NoLibrary { .. } => {
            format!("it is in none of {}", listed(&library_dirs()))
        }
        DriverFilesError::NoProgram { .. }
        | DriverFilesError::NoVersion { .. }
        | DriverFilesError::Unreadable { .. }
        | DriverFilesError::BadLibrary { .. }
        | DriverFilesError::OtherSystem { .. } => chain(error).to_string(),
    }
}
