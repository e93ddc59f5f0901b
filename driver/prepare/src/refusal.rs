// SPDX-License-Identifier: Apache-2.0
//! Why a claim is not prepared, decided from values alone.
//!
//! Users read these sentences, behind `claim namespace/name: `, in the events of their pods. A claim of another namespace is
//! not named there; the process names it in its log and in an Event on the Node.

use std::fmt;
use std::path::PathBuf;

use dra_checkpoint::RecordedHardware;
use dra_model::config::{ConfigError, ConfigKind};
use dra_model::{Bytes, ClaimRef, ConfigSource, DeviceName, Disposition, Interval, LiveIdentity, SharedForm};

use crate::holder::{DoubtfulHolder, Holder};
use crate::resolve::Target;

/// A claim that was understood and is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The allocation has no result of this driver.
    #[error("its allocation names no device of this driver: delete the pod, so that it is scheduled anew")]
    NothingAllocated,
    /// A device of another node.
    #[error(
        "{device} is allocated from pool {pool}, and this is node {node}: delete the pod, so that it is scheduled anew"
    )]
    OtherPool {
        /// Which device.
        device: DeviceName,
        /// Where the allocation says it is.
        pool: String,
        /// Where this is.
        node: String,
    },
    /// No such device.
    #[error("{device} is not on node {node}: delete the pod, so that it is scheduled anew, or put the GPU back")]
    Unknown {
        /// Which device.
        device: DeviceName,
        /// Where this is.
        node: String,
    },
    /// No driver to ask.
    #[error("{device} cannot be used without the NVIDIA driver, which is not there: {reason} (will retry)")]
    NoDriver {
        /// Which device.
        device: DeviceName,
        /// Why there is no driver.
        reason: String,
    },
    /// The GPU is there and does not answer.
    #[error("{device} does not work: {reason}; repair it, or delete the pod to have it scheduled anew")]
    Broken {
        /// Which device.
        device: DeviceName,
        /// What it answered.
        reason: String,
    },
    /// Allocated as a whole, and cut since.
    #[error(
        "{device} needs the whole GPU, but MIG mode is on: turn it off (`nvidia-smi -mig 0`), or delete the pod to have it scheduled anew"
    )]
    MigModeOn {
        /// Which device.
        device: DeviceName,
    },
    /// A MIG device that was destroyed.
    #[error(
        "the MIG device {device} no longer exists: create it again at the same place (`nvidia-smi mig -cgi`), or delete the pod to have it scheduled anew"
    )]
    MigGone {
        /// Which device.
        device: DeviceName,
    },
    /// Someone else has it.
    #[error(
        "{device} is held by {holder}{}; it becomes free when the pods of that claim have ended (will retry)",
        through(device, held)
    )]
    Held {
        /// Which device.
        device: DeviceName,
        /// Who has it.
        holder: Holder,
        /// As which device.
        held: DeviceName,
    },
    /// It was a claim's that no pod of this node can use any more.
    #[error(
        "{device} is not free yet: a claim that had it was deleted or deallocated, and its containers may still be ending; it becomes free when they have ended (will retry)"
    )]
    Ending {
        /// Which device.
        device: DeviceName,
    },
    /// Someone else has it, as far as can be told.
    #[error(
        "{device} is held by {holder}, whose record cannot be read: end the pods of that claim or, if it no longer exists, remove {} from the node (will retry)",
        path.display()
    )]
    HeldInDoubt {
        /// Which device.
        device: DeviceName,
        /// Who has it.
        holder: DoubtfulHolder,
        /// The record that was set aside.
        path: PathBuf,
    },
    /// Someone else uses its GPU in another form.
    #[error(
        "{device} is wanted {wanted} while {holder} has {held} {had}: a GPU is used in one form at a time and becomes free when the pods of that claim have ended (will retry)"
    )]
    Mixed {
        /// Which device.
        device: DeviceName,
        /// As what.
        wanted: Form,
        /// Who has the GPU.
        holder: Holder,
        /// As which device.
        held: DeviceName,
        /// As what.
        had: Form,
    },
    /// The time-slice interval belongs to the GPU and was set for another share of it.
    #[error(
        "{device} is wanted with time-slice interval {wanted} while {holder} has a share of it with {held}: ask for {held}, or wait until the pods of that claim have ended (will retry)"
    )]
    OtherInterval {
        /// Which device.
        device: DeviceName,
        /// What this claim wants.
        wanted: Interval,
        /// Who came first.
        holder: Holder,
        /// What is in force.
        held: Interval,
    },
    /// More than the GPU has.
    #[error(
        "{device} was allocated with {asked} of {what}, of which its other shares leave {left}: they become free when their pods have ended (will retry)"
    )]
    Overpromised {
        /// Which device.
        device: DeviceName,
        /// What of it: memory or threads.
        what: &'static str,
        /// What the scheduler counted for this claim.
        asked: String,
        /// What is left.
        left: String,
    },
    /// The same hardware twice in one claim.
    #[error(
        "requests {first} and {second} got the same hardware ({device}): delete the pod, so that it is scheduled anew"
    )]
    Twice {
        /// Which device.
        device: DeviceName,
        /// One request.
        first: String,
        /// Another one.
        second: String,
    },
    /// Parameters that are not understood.
    #[error("{}{} is refused", parameters(*index, field_of(.source)), origin(*from))]
    Config {
        /// Position in the allocation.
        index: usize,
        /// Who wrote it.
        from: ConfigSource,
        /// What is wrong.
        source: ConfigError,
    },
    /// Parameters of one type of device for another.
    #[error(
        "{}{} is {kind}, but request {request} got {device}, which is {actual}: use the kind of the device, or name no request",
        parameters(*index, Some("kind")),
        origin(*from)
    )]
    ConfigKind {
        /// Position in the allocation.
        index: usize,
        /// Who wrote it.
        from: ConfigSource,
        /// What was given.
        kind: ConfigKind,
        /// For which request.
        request: String,
        /// Which device it got.
        device: DeviceName,
        /// What that device is.
        actual: &'static str,
    },
    /// A strategy for a share that has another one.
    #[error(
        "{field} is {strategy}, but request {request} got {device}, which all of its users share by {form}: remove it, or name the requests that it is for"
    )]
    OtherForm {
        /// Where the strategy was written.
        field: ConfigField,
        /// What it is.
        strategy: &'static str,
        /// For which request.
        request: String,
        /// Which device it got.
        device: DeviceName,
        /// How that is shared.
        form: SharedForm,
    },
    /// Limits for a share, which has them from its capacity.
    #[error(
        "{field} is not for request {request}, which got {device}: ask for memory and activeThreadPercentage of a share in the capacity of the request"
    )]
    LimitsOfShare {
        /// Where they were written.
        field: ConfigField,
        /// For which request.
        request: String,
        /// Which device it got.
        device: DeviceName,
    },
    /// A limit for a device that the configuration is not for.
    #[error("{field} is for no device of its requests, which got {devices}: correct or remove it")]
    LimitOfNothing {
        /// Where it was written.
        field: ConfigField,
        /// What there is.
        devices: String,
    },
    /// A limit beyond the memory of its device.
    #[error("{field} is {}, but {device} has {}: lower or remove it", mebi(*limit), mebi(*memory))]
    LimitTooLarge {
        /// Where it was written.
        field: ConfigField,
        /// What it is.
        limit: Bytes,
        /// UUID of the device.
        device: String,
        /// What that has.
        memory: Bytes,
    },
    /// Devices of one request with an MPS daemon each.
    #[error(
        "request {request} got {devices}, each with an MPS daemon of its own, and a process can be the client of one only: ask for one such device per request, and use each in another container"
    )]
    TwoDaemons {
        /// Which request.
        request: String,
        /// What it got.
        devices: String,
    },
}

/// As what a GPU is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// By one claim.
    Whole,
    /// Cut.
    Mig,
    /// By many claims.
    Share(SharedForm),
}

impl Form {
    pub(crate) fn of(hardware: &RecordedHardware) -> Self {
        match hardware {
            RecordedHardware::Gpu { .. } => Self::Whole,
            RecordedHardware::Mig { .. } => Self::Mig,
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

/// A field of a configuration; displayed as its path in the ResourceClaim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigField {
    /// Position of the configuration in the allocation.
    pub index: usize,
    /// Who wrote it.
    pub from: ConfigSource,
    /// Path within the parameters.
    pub field: String,
}

impl fmt::Display for ConfigField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", parameters(self.index, Some(&self.field)), origin(self.from))
    }
}

pub(crate) fn mebi(bytes: Bytes) -> String {
    format!("{}Mi", bytes.mib())
}

impl Refusal {
    /// The claim in the way that the sentence does not name.
    pub(crate) fn unnamed_holder(&self) -> Option<&ClaimRef> {
        let (Self::Held { holder, .. }
        | Self::Mixed { holder, .. }
        | Self::OtherInterval { holder, .. }
        | Self::HeldInDoubt { holder: DoubtfulHolder::Claim(holder), .. }) = self
        else {
            return None;
        };
        holder.unnamed()
    }

    /// Whether retrying helps.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::NothingAllocated
            | Self::OtherPool { .. }
            | Self::Unknown { .. }
            | Self::MigModeOn { .. }
            | Self::MigGone { .. }
            | Self::Twice { .. }
            | Self::Config { .. }
            | Self::ConfigKind { .. }
            | Self::OtherForm { .. }
            | Self::LimitsOfShare { .. }
            | Self::LimitOfNothing { .. }
            | Self::LimitTooLarge { .. }
            | Self::TwoDaemons { .. } => Disposition::Permanent,
            Self::Held { .. }
            | Self::Ending { .. }
            | Self::HeldInDoubt { .. }
            | Self::Mixed { .. }
            | Self::OtherInterval { .. }
            | Self::Overpromised { .. } => Disposition::Busy,
            Self::NoDriver { .. } | Self::Broken { .. } => Disposition::Transient,
        }
    }
}

fn through(device: &DeviceName, held: &DeviceName) -> String {
    if device == held { String::new() } else { format!(" as {held}") }
}

/// The path of a field in the ResourceClaim.
fn parameters(index: usize, field: Option<&str>) -> String {
    let path = format!("status.allocation.devices.config[{index}].opaque.parameters");
    field.map_or_else(|| path.clone(), |field| format!("{path}.{field}"))
}

fn origin(from: ConfigSource) -> &'static str {
    match from {
        ConfigSource::Class => " (from the DeviceClass)",
        ConfigSource::Claim => "",
    }
}

fn field_of(error: &ConfigError) -> Option<&str> {
    match error {
        ConfigError::Unreadable { .. } | ConfigError::NotAnObject => None,
        ConfigError::Missing { path, .. }
        | ConfigError::Unexpected { path, .. }
        | ConfigError::UnknownField { path, .. }
        | ConfigError::OtherStrategy { path, .. }
        | ConfigError::NotOnMig { path, .. } => Some(path),
    }
}
