// SPDX-License-Identifier: Apache-2.0
//! The record of one claim: all that verifying and undoing it need, with neither API server nor driver at hand.

use std::fmt;

use dra_model::{
    ClaimRef, DaemonId, DeviceName, GpuSettings, GpuUuid, Interval, MigIdentity, MigUuid, MpsConfig, ShareId,
    ShareLimits, SharedForm,
};
use serde_json::{Map, Value};

/// Fields a newer version of this driver wrote; they are written back as they were.
pub type Unknown = Map<String, Value>;

/// What the node promised to one claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRecord {
    pub claim: ClaimRef,
    /// The boot (`/proc/sys/kernel/random/boot_id`) in which it was prepared; in another one nothing of it is left.
    pub boot_id: String,
    /// The driver version whose base spec the claim's containers use; that spec stays while this record does.
    pub base: String,
    /// One entry per allocation result, in the order of the allocation.
    pub devices: Vec<RecordedDevice>,
    /// How far it got.
    pub state: ClaimState,
    /// Kept for newer versions.
    pub unknown: Unknown,
}

/// How far a claim got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimState {
    /// Being prepared; never yet reported as usable in this boot.
    Preparing {
        /// Effects that are there.
        done: Vec<Step>,
        /// Effects to come; the first of them may be half there.
        next: Vec<Step>,
    },
    /// Reported as usable.
    Ready {
        /// Effects that are there, in the order of doing.
        done: Vec<Step>,
    },
    /// Could not be undone in one go.
    Undoing {
        /// Effects that may still be there, in the order of undoing.
        left: Vec<Step>,
        last_error: String,
    },
}

/// One effect on the machine, as far as its undo needs to know it. Every undo is idempotent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The CDI spec of the claim.
    ClaimSpec,
    /// Settings of a GPU that other claims may rely on as well; what was found before is in the GPU's ledger.
    GpuSettings {
        gpu: GpuUuid,
        /// What the claim needs.
        wanted: GpuSettings,
    },
    /// An MPS daemon, which the shares of other claims may use as well.
    MpsDaemon {
        id: DaemonId,
        /// The GPUs it needs, those of MIG devices included.
        gpus: Vec<GpuUuid>,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClaimSpec => f.write_str("CDI spec"),
            Self::GpuSettings { gpu, .. } => write!(f, "settings of {gpu}"),
            Self::MpsDaemon { id, .. } => write!(f, "MPS daemon {id}"),
        }
    }
}

impl ClaimRecord {
    /// The effects that may be on the machine, in the order of undoing.
    pub fn effects(&self) -> Vec<Step> {
        match &self.state {
            ClaimState::Preparing { done, next } => {
                next.first().into_iter().chain(done.iter().rev()).cloned().collect()
            }
            ClaimState::Ready { done } => done.iter().rev().cloned().collect(),
            ClaimState::Undoing { left, .. } => left.clone(),
        }
    }

    /// Whether the claim was reported as usable.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, ClaimState::Ready { .. })
    }
}

/// One allocation result and the hardware behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedDevice {
    /// `request` or `request/subrequest`.
    pub request: String,
    pub pool: String,
    pub device: DeviceName,
    /// Takes no ownership.
    pub admin_access: bool,
    /// Share of a device that many claims may use.
    pub share_id: Option<ShareId>,
    pub hardware: RecordedHardware,
    /// How its users share it.
    pub sharing: RecordedSharing,
    /// What the container runtime is told, base first.
    pub cdi_ids: Vec<String>,
    /// Kept for newer versions.
    pub unknown: Unknown,
}

/// Identity, and what the identity is called in this incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordedHardware {
    Gpu {
        uuid: GpuUuid,
    },
    Mig {
        identity: MigIdentity,
        /// UUID in this incarnation.
        uuid: MigUuid,
        /// GPU instance id in this incarnation.
        gpu_instance: u32,
        /// Compute instance id in this incarnation.
        compute_instance: u32,
        /// Profile as the driver prints it.
        profile: String,
    },
    /// A whole GPU in a form that many claims use.
    Shared {
        uuid: GpuUuid,
        form: SharedForm,
    },
}

impl RecordedHardware {
    /// The physical GPU.
    pub fn gpu(&self) -> &GpuUuid {
        match self {
            Self::Gpu { uuid } | Self::Shared { uuid, .. } => uuid,
            Self::Mig { identity, .. } => &identity.parent,
        }
    }
}

/// How the users of a device share it: decided once, since repairing it must not need the claim's configurations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordedSharing {
    /// As the administrator left the device.
    Plain,
    /// One process at a time.
    Exclusive,
    /// By turns.
    TimeSlicing {
        /// How long they are.
        interval: Interval,
        /// What was promised to this share; nothing on a device that the claim has for itself.
        limits: ShareLimits,
    },
    /// By an MPS daemon.
    Mps {
        daemon: DaemonId,
        /// What the claim wants of a daemon of its own.
        config: MpsConfig,
        /// What was promised to this share; nothing on a device that the claim has for itself.
        limits: ShareLimits,
    },
}
