// SPDX-License-Identifier: Apache-2.0
//! The form in which a claim uses a GPU.

use std::fmt;

use dra_checkpoint::RecordedHardware;
use dra_model::{LiveIdentity, SharedForm};

use crate::decide::target::Target;

/// One GPU is used in one form at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Whole,
    Mig,
    Share(SharedForm),
}

impl Form {
    pub(crate) fn of_record(hardware: &RecordedHardware) -> Self {
        match hardware {
            RecordedHardware::Gpu { .. } => Self::Whole,
            RecordedHardware::Mig { .. } | RecordedHardware::Partition { .. } => Self::Mig,
            RecordedHardware::Shared { form, .. } => Self::Share(*form),
        }
    }

    pub(crate) fn of_target(target: &Target) -> Self {
        match target {
            Target::Gpu(_) => Self::Whole,
            Target::Mig(_) => Self::Mig,
            Target::Shared(_, form) => Self::Share(*form),
        }
    }

    pub(crate) fn of_identity(identity: &LiveIdentity) -> Self {
        match identity {
            LiveIdentity::Gpu { .. } => Self::Whole,
            LiveIdentity::Mig { .. } => Self::Mig,
            LiveIdentity::Shared { form, .. } => Self::Share(*form),
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("as a whole"),
            Self::Mig => f.write_str("as a MIG device"),
            Self::Share(form) => write!(f, "as a share by {form}"),
        }
    }
}
