// SPDX-License-Identifier: Apache-2.0
//! The policy: what each fault does to claims and pods. The defaults are data, and each can be replaced.

use std::collections::BTreeMap;

use dra_model::{Cause, Effect, Verdict};
use serde::{Deserialize, Serialize};

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fault {
    /// The driver recommends a reset of the GPU, with or without a drain (field 230 is 1, 4 or 6), or a call returns
    /// `NVML_ERROR_RESET_REQUIRED`.
    NeedsReset,
    /// The driver recommends a reboot of the node (field 230 is 2 or 7).
    NeedsReboot,
    /// The driver recommends to end peer-to-peer traffic (field 230 is 3).
    NeedsDrain,
    /// The IMEX domain of the node is broken (field 230 is 5). The GPU itself works.
    ImexDomain,
    /// An XID with the action reset, of a driver before R570.
    XidReset,
    /// An uncontained memory error (XID 95).
    Uncontained,
    /// The GPU fell off the bus (`NVML_ERROR_GPU_IS_LOST`, XID 79).
    Lost,
    /// NVML does not answer for the GPU.
    Silent,
    /// The GPU was cleared too often.
    Unstable,
}

impl Fault {
    pub const fn cause(self) -> Cause {
        match self {
            Self::NeedsReset | Self::NeedsReboot | Self::NeedsDrain | Self::ImexDomain => Cause::Recovery,
            Self::XidReset => Cause::Xid,
            Self::Uncontained => Cause::Memory,
            Self::Lost => Cause::GpuLost,
            Self::Silent => Cause::Unmonitored,
            Self::Unstable => Cause::Unstable,
        }
    }

    pub const fn verdict(self) -> Verdict {
        match self {
            Self::ImexDomain => Verdict::Healthy,
            Self::Silent => Verdict::Unknown,
            Self::NeedsReset
            | Self::NeedsReboot
            | Self::NeedsDrain
            | Self::XidReset
            | Self::Uncontained
            | Self::Lost
            | Self::Unstable => Verdict::Unhealthy,
        }
    }

    /// The rule without a replacement.
    pub const fn rule(self) -> Rule {
        match self {
            Self::Lost | Self::Uncontained => Rule { effect: Some(Effect::NoExecute), grace: 0 },
            // The pods of the other GPUs of the node may go on until an administrator reboots it.
            Self::NeedsReboot => Rule { effect: Some(Effect::NoExecute), grace: 300 },
            Self::NeedsReset | Self::NeedsDrain | Self::XidReset | Self::Unstable => {
                Rule { effect: Some(Effect::NoSchedule), grace: 0 }
            }
            Self::ImexDomain | Self::Silent => Rule { effect: Some(Effect::None), grace: 0 },
        }
    }
}

/// What a fault does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Absent: nothing, not even a taint.
    pub effect: Option<Effect>,
    /// How long pods may go on before they are evicted, in seconds: `NoSchedule` until then.
    pub grace: u64,
}

/// The rules of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    pub replaced: BTreeMap<Fault, Rule>,
}

impl Policy {
    pub fn rule(&self, fault: Fault) -> Rule {
        self.replaced.get(&fault).copied().unwrap_or_else(|| fault.rule())
    }
}
