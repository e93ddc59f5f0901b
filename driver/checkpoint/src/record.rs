// SPDX-License-Identifier: Apache-2.0
//! The record of one claim: everything that its check and its undo need, without API server and driver.

use std::fmt;

use dra_model::{
    ClaimRef, DaemonId, DeviceName, GpuSettings, GpuUuid, Interval, MigIdentity, MigIds, MpsConfig, ShareId,
    ShareLimits, SharedForm,
};
use serde_json::{Map, Value};

/// Fields that a newer version of this driver wrote. They are written back unchanged.
pub type Unknown = Map<String, Value>;

/// A prepared claim, or one that is being prepared or undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRecord {
    pub claim: ClaimRef,
    /// The boot (`/proc/sys/kernel/random/boot_id`) in which the claim was prepared. Its effects do not outlive that boot.
    pub boot_id: String,
    /// The driver version whose base spec the containers of the claim use. The spec is not removed before this record.
    pub base: String,
    /// One entry per allocation result, in the order of the allocation.
    pub devices: Vec<RecordedDevice>,
    pub state: ClaimState,
    /// Fields of newer versions.
    pub unknown: Unknown,
}

/// The progress of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimState {
    /// Being prepared, and not yet reported as prepared in this boot.
    Preparing {
        /// Complete effects.
        done: Vec<Step>,
        /// Effects that are not complete. The first one may exist in part.
        next: Vec<Step>,
    },
    /// Reported as prepared.
    Ready {
        /// Complete effects, in the order in which they were made.
        done: Vec<Step>,
    },
    /// An undo failed in part.
    Undoing {
        /// Effects that may still exist, in the order of undoing.
        left: Vec<Step>,
        last_error: String,
    },
}

/// One effect on the machine, with what its undo needs. Every undo is idempotent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The CDI spec of the claim.
    ClaimSpec,
    /// Settings of a GPU, which other claims may need as well. The ledger of the GPU has the original settings.
    GpuSettings { gpu: GpuUuid, wanted: GpuSettings },
    /// An MPS daemon, which shares of other claims may use as well.
    MpsDaemon {
        id: DaemonId,
        /// The GPUs of the daemon, those of its MIG devices included.
        gpus: Vec<GpuUuid>,
    },
    /// A MIG device that this driver creates for the claim, and MIG mode of its GPU.
    Partition { identity: MigIdentity },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClaimSpec => f.write_str("CDI spec"),
            Self::GpuSettings { gpu, .. } => write!(f, "settings of {gpu}"),
            Self::MpsDaemon { id, .. } => write!(f, "MPS daemon {id}"),
            Self::Partition { identity: MigIdentity { parent, profile_id, placement, .. } } => {
                write!(f, "MIG device of profile {profile_id} at {}:{} of {parent}", placement.start, placement.size)
            }
        }
    }
}

impl ClaimRecord {
    /// The effects that may exist, in the order of undoing.
    pub fn effects(&self) -> Vec<Step> {
        match &self.state {
            ClaimState::Preparing { done, next } => next.iter().rev().chain(done.iter().rev()).cloned().collect(),
            ClaimState::Ready { done } => done.iter().rev().cloned().collect(),
            ClaimState::Undoing { left, .. } => left.clone(),
        }
    }

    /// The ids of a partition of this claim, if it is created.
    pub fn created(&self, partition: &MigIdentity) -> Option<&MigIds> {
        self.devices.iter().find_map(|device| match &device.hardware {
            RecordedHardware::Partition { identity, created, .. } => created.as_ref().filter(|_| identity == partition),
            RecordedHardware::Gpu { .. } | RecordedHardware::Mig { .. } | RecordedHardware::Shared { .. } => None,
        })
    }

    /// Records the ids of a partition that was created.
    pub fn learn(&mut self, partition: &MigIdentity, ids: &MigIds) {
        for device in &mut self.devices {
            if let RecordedHardware::Partition { identity, created, .. } = &mut device.hardware
                && identity == partition
            {
                *created = Some(ids.clone());
            }
        }
    }

    /// Removes the effect of a partition that was certainly not created.
    pub fn forget(&mut self, partition: &MigIdentity) {
        let is_other = |step: &Step| !matches!(step, Step::Partition { identity } if identity == partition);
        match &mut self.state {
            ClaimState::Preparing { done, next } => {
                done.retain(is_other);
                next.retain(is_other);
            }
            ClaimState::Ready { done } => done.retain(is_other),
            ClaimState::Undoing { left, .. } => left.retain(is_other),
        }
    }

    /// Whether the claim was reported as prepared.
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
    /// Access for monitoring, which reserves nothing.
    pub admin_access: bool,
    /// Share of a device that many claims may use.
    pub share_id: Option<ShareId>,
    pub hardware: RecordedHardware,
    pub sharing: RecordedSharing,
    /// The CDI devices for the container runtime, first those of the base spec, whose names have the capabilities of the claim.
    pub cdi_ids: Vec<String>,
    /// Fields of newer versions.
    pub unknown: Unknown,
}

/// The identity of a device, and its ids that may change when it is created again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordedHardware {
    Gpu {
        uuid: GpuUuid,
    },
    /// A MIG device of an administrator.
    Mig {
        identity: MigIdentity,
        ids: MigIds,
        /// As the driver prints it.
        profile: String,
    },
    /// A MIG device that this driver creates for the claim.
    Partition {
        identity: MigIdentity,
        /// As the driver prints it.
        profile: String,
        /// Absent until it is created.
        created: Option<MigIds>,
    },
    /// A whole GPU in a form that many claims use.
    Shared {
        uuid: GpuUuid,
        form: SharedForm,
    },
}

impl RecordedHardware {
    /// Whether the device is there, according to the record.
    pub fn exists(&self) -> bool {
        !matches!(self, Self::Partition { created: None, .. })
    }

    /// The physical GPU.
    pub fn gpu(&self) -> &GpuUuid {
        match self {
            Self::Gpu { uuid } | Self::Shared { uuid, .. } => uuid,
            Self::Mig { identity, .. } | Self::Partition { identity, .. } => &identity.parent,
        }
    }
}

/// How the clients of a device share it. It is recorded because a repair must not need the configurations of the claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordedSharing {
    /// The device has its original settings.
    Plain,
    /// One process at a time.
    Exclusive,
    TimeSlicing {
        interval: Interval,
        /// The limits of this share; empty on a device that the claim does not share with other claims.
        limits: ShareLimits,
    },
    Mps {
        daemon: DaemonId,
        /// What the claim requests of its own daemon.
        config: MpsConfig,
        /// The limits of this share; empty on a device that the claim does not share with other claims.
        limits: ShareLimits,
    },
}
