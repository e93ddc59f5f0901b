// SPDX-License-Identifier: Apache-2.0
//! What is wrong with a GPU, as it is published: in taints, in the health of devices, in the status of claims and in Events.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::mig::Placement;

/// One thing that is wrong with a GPU or with a MIG device of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    pub cause: Cause,
    /// What distinguishes findings of one cause, as the value of a label.
    pub value: String,
    pub effect: Effect,
    pub verdict: Verdict,
    /// The GPU instance it is about; every form of the GPU if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Placement>,
    /// Constant while the finding lasts, in printable ASCII.
    pub message: String,
    /// In seconds since 1970.
    pub since: u64,
}

impl Finding {
    /// Whether a device is concerned that has this placement on the GPU, or is the whole GPU.
    pub fn concerns(&self, placement: Option<Placement>) -> bool {
        match (self.scope, placement) {
            (Some(scope), Some(placement)) => scope.overlaps(placement),
            (None, _) | (_, None) => true,
        }
    }
}

/// The finding with the worst verdict of those that concern a device at this placement, or the whole GPU.
pub fn worst(findings: &[Finding], placement: Option<Placement>) -> Option<&Finding> {
    let concerned = findings.iter().filter(|finding| finding.concerns(placement));
    concerned.reduce(|worst, next| if next.verdict > worst.verdict { next } else { worst })
}

/// Why. Each cause has a taint of its own, so that none replaces another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The driver recommends a cure.
    Recovery,
    /// An XID after which the GPU needs a reset, of a driver that recommends no cure.
    Xid,
    /// The GPU fell off the bus.
    GpuLost,
    /// NVML does not answer for the GPU.
    Unmonitored,
    /// Memory errors that the GPU could not contain or repair.
    Memory,
    /// A reset repairs the memory; the GPU works until then.
    ResetAdvised,
    /// Its NVLink fabric is not set up.
    Fabric,
    /// The hardware lowers its clocks.
    Throttled,
    /// It came back too often.
    Unstable,
}

impl Cause {
    /// The key of the taint, after the name of the driver.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Recovery => "recovery",
            Self::Xid => "xid",
            Self::GpuLost => "gpu-lost",
            Self::Unmonitored => "unmonitored",
            Self::Memory => "memory",
            Self::ResetAdvised => "reset-advised",
            Self::Fabric => "fabric",
            Self::Throttled => "throttled",
            Self::Unstable => "unstable",
        }
    }
}

impl Cause {
    /// The reason of a condition.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Recovery => "NeedsRecovery",
            Self::Xid => "NeedsReset",
            Self::GpuLost => "GpuLost",
            Self::Unmonitored => "Unmonitored",
            Self::Memory => "MemoryFailed",
            Self::ResetAdvised => "ResetAdvised",
            Self::Fabric => "FabricNotReady",
            Self::Throttled => "Throttled",
            Self::Unstable => "Unstable",
        }
    }
}

/// Why the hardware of a GPU lowers its clocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slowdown {
    /// The GPU is too hot (`nvmlClocksEventReasonHwThermalSlowdown`).
    pub is_thermal: bool,
    /// The power supply of the node asks for it (`nvmlClocksEventReasonHwPowerBrakeSlowdown`).
    pub is_power_brake: bool,
}

impl Slowdown {
    /// From the bits `nvmlClocksEventReason…` (nvml.h).
    pub const fn of_reasons(reasons: u64) -> Self {
        Self { is_thermal: reasons & 0x40 != 0, is_power_brake: reasons & 0x80 != 0 }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}

/// The effect of a taint, from the weakest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Effect {
    /// Only published.
    None,
    /// No new claim gets the device.
    NoSchedule,
    /// Pods that use the device are evicted too.
    NoExecute,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::NoSchedule => "NoSchedule",
            Self::NoExecute => "NoExecute",
        })
    }
}

/// The health of a device, from the best.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    #[default]
    Healthy,
    /// It cannot be asked.
    Unknown,
    Unhealthy,
}
