// SPDX-License-Identifier: Apache-2.0
//! Why a claim is not prepared, decided from values alone.
//!
//! Users read these sentences, behind `claim namespace/name: `, in the events of their pods.

use std::path::PathBuf;

use dra_model::config::{ConfigError, ConfigKind};
use dra_model::{ClaimRef, ConfigSource, DeviceName, Disposition};

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
        "{device} is allocated as a whole GPU but MIG mode is on: turn it off (`nvidia-smi -mig 0`), or delete the pod to have it scheduled anew"
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
        "{device} is held by claim {holder}{}; it becomes free when the pods of that claim have ended (will retry)",
        through(device, held)
    )]
    Held {
        /// Which device.
        device: DeviceName,
        /// Who has it.
        holder: ClaimRef,
        /// As which device.
        held: DeviceName,
    },
    /// Someone else has it, as far as can be told.
    #[error(
        "{device} is held by {holder}, whose record cannot be read: end the pods of that claim or, if it no longer exists, remove {} from the node (will retry)",
        path.display()
    )]
    HeldInDoubt {
        /// Which device.
        device: DeviceName,
        /// Who has it, as people know the claim.
        holder: String,
        /// The record that was set aside.
        path: PathBuf,
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
}

impl Refusal {
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
            | Self::ConfigKind { .. } => Disposition::Permanent,
            Self::Held { .. } | Self::HeldInDoubt { .. } => Disposition::Busy,
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
        ConfigError::NotAnObject => None,
        ConfigError::Missing { path, .. }
        | ConfigError::Unexpected { path, .. }
        | ConfigError::UnknownField { path, .. }
        | ConfigError::OtherStrategy { path, .. }
        | ConfigError::NotOnMig { path, .. } => Some(path),
        ConfigError::SharingUnsupported => Some("sharing"),
    }
}
