// SPDX-License-Identifier: Apache-2.0
//! Why a machine or a GPU does not answer, or a setting is not made.

use std::borrow::Cow;
use std::fmt;

use dra_model::{Advice, Fault, GpuUuid, PciAddress};

use crate::driver_program::ProgramError;

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
