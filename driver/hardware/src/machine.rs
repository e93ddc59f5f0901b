// SPDX-License-Identifier: Apache-2.0
//! The port to the GPUs of one machine: queries and settings in terms of the model, implemented by NVML and by the simulator.
//!
//! Calls block (NVML calls the kernel), so async callers use a blocking thread. A broken GPU returns an error of its own and
//! affects no other GPU.

use std::fmt;

use dra_model::{ComputeMode, GpuUuid, Interval, MigIdentity, MigIds, MigMode, MigUuid, PciAddress, Version};

use crate::gpu_error::{GpuError, MachineError, NvmlCode};
use crate::health::HealthMachine;

/// One machine with GPUs.
pub trait Machine: MigMachine + HealthMachine + Send + Sync + fmt::Debug {
    /// The versions of the loaded driver. An error means that no driver responds.
    fn driver(&self) -> Result<DriverVersions, MachineError>;

    /// The number of GPUs of the driver, broken ones included.
    fn gpu_count(&self) -> Result<u32, MachineError>;

    /// Everything that NVML reports about one GPU and its MIG devices.
    fn gpu(&self, which: GpuSelector<'_>) -> Result<GpuFacts, GpuError>;

    /// The part of one GPU that may change at any time, cheap enough for a query each second.
    ///
    /// Each GPU is queried separately, so that a GPU that hangs hides no change of the others. The error means that the driver
    /// does not respond; a broken GPU has a shape with what it still reports.
    fn shape(&self, index: u32) -> Result<GpuShape, MachineError>;

    /// The compute mode; none on a GPU in MIG mode, where it has no effect.
    fn compute_mode(&self, gpu: &GpuUuid) -> Result<Option<ComputeMode>, GpuError>;

    /// Sets the compute mode and reads it back. It stays in force until the driver is unloaded, also after this process exits.
    fn set_compute_mode(&self, gpu: &GpuUuid, mode: ComputeMode) -> Result<(), GpuError>;

    /// The time-slice interval; none on GPUs before Turing, which lack the setting.
    fn interval(&self, gpu: &GpuUuid) -> Result<Option<Interval>, GpuError>;

    /// Sets the time-slice interval and reads it back. It applies to contexts that are created later, and stays in force until
    /// the driver is unloaded.
    fn set_interval(&self, gpu: &GpuUuid, interval: Interval) -> Result<(), GpuError>;
}

/// How the GPUs of a machine are divided. By default no GPU can be.
pub trait MigMachine {
    /// What changes with the MIG mode of a GPU; a few calls, unlike [`Machine::gpu`].
    fn mig_state(&self, gpu: &GpuUuid) -> Result<MigState, GpuError> {
        Err(no_mig("nvmlDeviceGetMigMode", gpu))
    }

    /// Turns MIG mode on or off and reads it back. A change that does not come into force at once is reversed, so that it does
    /// not take effect at a later reset. The mode stays in force until the driver is unloaded.
    fn set_mig_mode(&self, gpu: &GpuUuid, _on: bool) -> Result<(), GpuError> {
        Err(no_mig("nvmlDeviceSetMigMode", gpu))
    }

    /// Creates the GPU instance of a MIG device.
    fn create_gpu_instance(&self, mig: &MigIdentity) -> Result<(), GpuError> {
        Err(no_mig("nvmlDeviceCreateGpuInstanceWithPlacement", &mig.parent))
    }

    /// Creates the compute instance of a MIG device in its GPU instance, and returns the ids of the device. Which compute slices of
    /// the GPU instance it has is up to the driver.
    fn create_compute_instance(&self, mig: &MigIdentity) -> Result<MigIds, GpuError> {
        Err(no_mig("nvmlGpuInstanceCreateComputeInstance", &mig.parent))
    }

    /// Destroys every compute instance in the GPU instance of a MIG device. Without one it succeeds.
    fn destroy_compute_instances(&self, _mig: &MigIdentity) -> Result<(), GpuError> {
        Ok(())
    }

    /// Destroys the GPU instance of a MIG device, which has no compute instance any more. Without one it succeeds.
    fn destroy_gpu_instance(&self, _mig: &MigIdentity) -> Result<(), GpuError> {
        Ok(())
    }

    /// The processes with a compute context on the GPU or on one of its MIG devices.
    fn processes(&self, _gpu: &GpuUuid) -> Result<Vec<GpuProcess>, GpuError> {
        Ok(Vec::new())
    }
}

/// A process with a compute context on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuProcess {
    /// In the PID namespace of the host: the driver knows no other (NVIDIA/nvidia-docker#1483).
    pub id: u32,
    /// On a GPU in MIG mode.
    pub gpu_instance: Option<u32>,
}

/// The MIG mode of a GPU, and what may change with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MigState {
    /// Whether MIG mode is in force.
    pub is_on: bool,
    /// N of `/dev/nvidiaN`.
    pub minor: u32,
}

fn no_mig(call: &'static str, gpu: &GpuUuid) -> GpuError {
    const NOT_SUPPORTED: NvmlCode = NvmlCode(3);
    GpuError::Failed { call, which: gpu.to_string(), code: NOT_SUPPORTED, uuid: Some(gpu.clone()), pci: None }
}

/// Versions of a loaded driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DriverVersions {
    /// `nvmlSystemGetDriverVersion`.
    pub driver: Version,
    /// `nvmlSystemGetCudaDriverVersion_v2`, if supported.
    pub cuda: Option<Version>,
}

/// Selects a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GpuSelector<'a> {
    /// Position in NVML's enumeration, which is PCI order and not stable over time.
    Index(u32),
    Uuid(&'a GpuUuid),
}

impl fmt::Display for GpuSelector<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "GPU {index}"),
            Self::Uuid(uuid) => uuid.fmt(f),
        }
    }
}

/// What NVML reports about a GPU. With NUMA node and PCIe root from sysfs it becomes a [`dra_model::Gpu`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuFacts {
    pub uuid: GpuUuid,
    /// N of `/dev/nvidiaN`.
    pub minor: u32,
    pub pci: PciAddress,
    /// If reported.
    pub product_name: Option<String>,
    pub brand: String,
    pub architecture: String,
    /// CUDA compute capability, if reported.
    pub compute_capability: Option<Version>,
    /// Total memory, if reported.
    pub memory: Option<dra_model::Bytes>,
    /// The part of `memory` that the driver reserves, if reported.
    pub reserved: Option<dra_model::Bytes>,
    /// If reported.
    pub addressing_mode: Option<String>,
    /// MIG mode, layout and existing MIG devices.
    pub mig: MigMode,
}

/// The part of a GPU that may change at any time: by an administrator, or by a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuShape {
    /// Absent for a GPU that does not report it.
    pub uuid: Option<GpuUuid>,
    /// Whether the query of the memory succeeds. NVML may return identity and MIG mode without access to the GPU.
    pub answers: bool,
    /// Whether MIG mode is in force.
    pub mig_on: bool,
    /// The MIG devices that exist, in NVML's order.
    pub mig_devices: Vec<MigUuid>,
    /// Id and profile id of the GPU instances that exist, as far as they are listed.
    pub gpu_instances: Vec<(u32, u32)>,
}

impl GpuShape {
    /// The shape of a GPU that does not respond.
    pub const fn silent() -> Self {
        Self { uuid: None, answers: false, mig_on: false, mig_devices: Vec::new(), gpu_instances: Vec::new() }
    }
}
