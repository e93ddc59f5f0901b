// SPDX-License-Identifier: Apache-2.0
//! The hardware identity that a device name stands for.

use dra_checkpoint::RecordedHardware;
use dra_model::{GpuUuid, MigIdentity, Placement, SharedForm};

/// Hardware that a claim can be allocated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Gpu(GpuUuid),
    /// Of an administrator or of this driver, created or not.
    Mig(MigIdentity),
    /// A whole GPU in a form that many claims use.
    Shared(GpuUuid, SharedForm),
}

impl Target {
    pub fn of_record(hardware: &RecordedHardware) -> Self {
        match hardware {
            RecordedHardware::Gpu { uuid } => Self::Gpu(uuid.clone()),
            RecordedHardware::Shared { uuid, form } => Self::Shared(uuid.clone(), *form),
            RecordedHardware::Mig { identity, .. } | RecordedHardware::Partition { identity, .. } => {
                Self::Mig(identity.clone())
            }
        }
    }

    /// The physical GPU.
    pub fn gpu(&self) -> &GpuUuid {
        match self {
            Self::Gpu(uuid) | Self::Shared(uuid, _) => uuid,
            Self::Mig(identity) => &identity.parent,
        }
    }

    /// Where a part of the GPU is.
    pub fn placement(&self) -> Option<Placement> {
        match self {
            Self::Gpu(_) | Self::Shared(..) => None,
            Self::Mig(identity) => Some(identity.placement),
        }
    }

    /// Whether two claims cannot have one each: a whole GPU overlaps every MIG device and every share on it, and shares of
    /// one form overlap everything but each other.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Mig(one), Self::Mig(other)) => one.overlaps(other),
            (Self::Shared(one, form), Self::Shared(other, other_form)) => one == other && form != other_form,
            (one, other) => one.gpu() == other.gpu(),
        }
    }
}
