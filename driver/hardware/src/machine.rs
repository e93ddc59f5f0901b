// SPDX-License-Identifier: Apache-2.0
//! The port to the GPUs of one machine: queries and settings in terms of the model, implemented by NVML and by the simulator.
//!
//! Calls block (NVML calls the kernel), so async callers use a blocking thread. A broken GPU returns an error of its own and
//! affects no other GPU.

use std::borrow::Cow;
use std::fmt;

use dra_model::{
    Advice, ComputeMode, Fault, GpuUuid, Interval, MigIdentity, MigIds, MigMode, MigUuid, PciAddress, Version,
};

use crate::driver_program::ProgramError;

/// One machine with GPUs.
pub trait Machine: MigMachine + Send + Sync + fmt::Debug {
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

/// A setting of a whole GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setting {
    /// [`Machine::compute_mode`].
    ComputeMode,
    /// [`Machine::interval`].
    Interval,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ComputeMode => "compute mode",
            Self::Interval => "time-slice interval",
        })
    }
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

/// The NVIDIA driver is missing or does not respond.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    #[error("no usable libnvidia-ml.so.1 below {root}: {reason}")]
    NoLibrary { root: String, reason: String },
    /// The library is there but its kernel driver is not (NVML code 9), or does not match (18).
    #[error("the NVIDIA driver does not respond: {call} returned {code}")]
    NotAnswering { call: &'static str, code: NvmlCode },
}

impl Advice for MachineError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::NoLibrary { .. } => Some("install the NVIDIA driver there or correct the driver root".into()),
            Self::NotAnswering { .. } => Some("check nvidia-smi on this node".into()),
        }
    }
}

/// A question to one GPU failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    #[error("{which} is not present on this node")]
    NotFound { which: String },
    #[error("{call} failed on {which}: {code}")]
    Failed {
        call: &'static str,
        /// UUID, PCI address or index, as far as known.
        which: String,
        code: NvmlCode,
        uuid: Option<GpuUuid>,
        pci: Option<PciAddress>,
    },
    #[error("{call} returned unexpected value `{answer}` for {which}")]
    UnexpectedValue {
        call: &'static str,
        which: String,
        answer: String,
        uuid: Option<GpuUuid>,
        pci: Option<PciAddress>,
    },
    /// A GPU in MIG mode has no compute mode, a GPU before Turing has no time-slice interval.
    #[error("{gpu} does not support setting the {setting}")]
    Unsupported { gpu: GpuUuid, setting: Setting },
    /// NVML or nvidia-smi reported success.
    #[error("{setting} of {gpu} was set to {wanted} but reads back as {found}")]
    NotApplied { gpu: GpuUuid, setting: Setting, wanted: String, found: String },
    #[error("failed to read or set the {setting} of {gpu}")]
    Program {
        gpu: GpuUuid,
        setting: Setting,
        #[source]
        source: ProgramError,
    },
    /// NVML reported success, but the mode is only pending. The change was reversed.
    #[error("MIG mode of {gpu} cannot be turned {}: {code}", if *on { "on" } else { "off" })]
    MigModePending { gpu: GpuUuid, on: bool, code: NvmlCode },
    /// The deadline of the call passed.
    #[error("the call timed out before NVML answered for {which}")]
    OutOfTime { which: String },
    #[error("NVIDIA driver stopped responding while {which} was read")]
    Machine {
        which: String,
        #[source]
        source: MachineError,
    },
}

impl Advice for GpuError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::NotFound { .. } => Some("make the GPU visible to nvidia-smi".into()),
            Self::Failed { code, .. } => match code.fault() {
                Fault::Failing => Some("check nvidia-smi and Xid messages on this node".into()),
                Fault::Unsupported | Fault::Denied => None,
            },
            Self::UnexpectedValue { .. } => Some("report it with the output of `nvidia-smi -q`".into()),
            Self::MigModePending { .. } => Some(
                "end the processes that hold the GPU, such as DCGM, a monitor or nvidia-persistenced; `nvidia-smi` and \
                 `fuser -v /dev/nvidia*` on the node name them"
                    .into(),
            ),
            Self::NotApplied { .. } => Some("check that no other program on this node changes it".into()),
            Self::Program { source, .. } => source.advice(),
            Self::Machine { source, .. } => source.advice(),
            Self::Unsupported { .. } | Self::OutOfTime { .. } => None,
        }
    }
}

impl GpuError {
    /// Whether NVML refused a change, so that it certainly made none.
    pub fn is_refusal(&self) -> bool {
        // Invalid argument, not supported, no permission, not found, in use, insufficient resources.
        const REFUSALS: [u32; 6] = [2, 3, 4, 6, 19, 23];
        matches!(self, Self::Failed { code, .. } if REFUSALS.contains(&code.0))
    }

    /// Whether the kernel driver is unloaded, and with it everything that was set or created.
    pub fn is_driver_unloaded(&self) -> bool {
        const NOT_LOADED: NvmlCode = NvmlCode(9);
        matches!(self, Self::Machine { source: MachineError::NotAnswering { code, .. }, .. } if *code == NOT_LOADED)
    }

    /// Whether a client holds the GPU or the instance (`NVML_ERROR_IN_USE`), which may end by itself.
    pub fn is_in_use(&self) -> bool {
        const IN_USE: NvmlCode = NvmlCode(19);
        matches!(self, Self::Failed { code, .. } | Self::MigModePending { code, .. } if *code == IN_USE)
    }

    /// Compares the value that was read back with the one that was set.
    pub fn check_applied<T: fmt::Display + PartialEq>(
        gpu: &GpuUuid,
        setting: Setting,
        wanted: &T,
        found: Option<&T>,
    ) -> Result<(), Self> {
        let Some(found) = found else { return Err(Self::Unsupported { gpu: gpu.clone(), setting }) };
        if found == wanted {
            return Ok(());
        }
        Err(Self::NotApplied { gpu: gpu.clone(), setting, wanted: wanted.to_string(), found: found.to_string() })
    }
}

/// A numeric NVML return code, displayed with NVIDIA's text for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NvmlCode(pub u32);

impl fmt::Display for NvmlCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (NVML code {})", self.text(), self.0)
    }
}

impl NvmlCode {
    /// The kind of failure of a GPU that returns this code.
    pub fn fault(self) -> Fault {
        match self.0 {
            3 | 13 | 25 => Fault::Unsupported,
            4 | 17 => Fault::Denied,
            _ => Fault::Failing,
        }
    }

    /// The texts of `nvmlErrorString` (driver 550).
    fn text(self) -> &'static str {
        match self.0 {
            1 => "uninitialized",
            2 => "invalid argument",
            3 => "not supported",
            4 => "insufficient permissions",
            6 => "not found",
            7 => "insufficient size",
            9 => "driver not loaded",
            10 => "timeout",
            12 => "NVML shared library not found",
            13 => "function not found",
            14 => "corrupted infoROM",
            15 => "GPU is lost",
            16 => "GPU requires reset",
            17 => "GPU access blocked by the operating system",
            18 => "driver/library version mismatch",
            19 => "in use by another client",
            20 => "insufficient memory",
            23 => "insufficient resources",
            25 => "argument version mismatch",
            27 => "system is not in ready state",
            28 => "no supported GPUs were found",
            _ => "unknown error",
        }
    }
}
