// SPDX-License-Identifier: Apache-2.0
//! Why a claim is not prepared, decided from values alone.
//!
//! Users read these texts behind `claim namespace/name: ` in the Events of their pods. A claim of another namespace is not
//! named there; the process names it in its log and in an Event on the Node.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use dra_model::config::{ConfigError, ConfigKind};
use dra_model::{Advice, Bytes, Capability, ClaimRef, ConfigSource, DeviceName, Disposition, Interval, SharedForm};

use crate::decide::form::Form;
use crate::decide::holder::{Holder, QuarantinedHolder};

/// A claim that cannot be prepared as it is allocated, now or ever.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the allocation names no device of this driver")]
    NothingAllocated,
    #[error("{device} is allocated from pool {pool}, but this is node {node}")]
    OtherPool { device: DeviceName, pool: String, node: String },
    #[error("{device} is not present on node {node}")]
    Unknown { device: DeviceName, node: String },
    #[error("{device} is a device name of NVIDIA's DRA driver, but node {node} now has this driver")]
    OfNvidia { device: DeviceName, node: String },
    #[error("the NVIDIA driver that {device} needs does not respond: {reason}")]
    NoDriver { device: DeviceName, reason: String },
    #[error("NVML call failed for {device}: {reason}")]
    Unusable { device: DeviceName, reason: String },
    /// A fault of the GPU that only a cure ends, also for claims that tolerate its taint.
    #[error("{device} cannot be used: {fault}")]
    Unhealthy { device: DeviceName, fault: String },
    #[error("{device} needs the whole GPU, but MIG mode is on")]
    MigModeOn { device: DeviceName },
    #[error("MIG device {device} no longer exists")]
    MigGone { device: DeviceName },
    #[error(
        "MIG device {device} cannot be created beside GPU instance {}, which this driver did not create",
        list(gpu_instances)
    )]
    Occupied { device: DeviceName, gpu_instances: Vec<u32> },
    #[error("{device} is held by {holder}{}", through(device, held))]
    Held { device: DeviceName, holder: Holder, held: DeviceName },
    /// The claim that held the device was deleted or deallocated, and its containers may still run.
    #[error(
        "{device} is not free yet: the claim that held it was deleted or deallocated, but its containers may still run"
    )]
    Ending { device: DeviceName },
    #[error("{device} is reserved by {holder}, whose record {} is damaged", path.display())]
    HeldByQuarantined { device: DeviceName, holder: QuarantinedHolder, path: PathBuf },
    #[error(
        "{device} cannot be used {wanted}: {holder} uses the same GPU {had} ({held}), and a GPU has one form at a time"
    )]
    Mixed { device: DeviceName, wanted: Form, holder: Holder, held: DeviceName, had: Form },
    #[error("{device}: interval {wanted} conflicts with {held}, set by {holder} for the whole GPU")]
    OtherInterval { device: DeviceName, wanted: Interval, holder: Holder, held: Interval },
    #[error("{device}: {asked} of {what} allocated, but only {left} free on the GPU")]
    NotEnoughLeft {
        device: DeviceName,
        /// `memory` or `threads`.
        what: &'static str,
        /// The amount that the scheduler counted for this claim.
        asked: String,
        left: String,
    },
    #[error("requests {first} and {second} were allocated the same hardware ({device})")]
    Twice { device: DeviceName, first: String, second: String },
    #[error("{}{} is refused", parameters(*index, field_of(.source)), origin(*from))]
    Config {
        /// Position in the allocation.
        index: usize,
        from: ConfigSource,
        source: ConfigError,
    },
    #[error("{}{} has `{capability}`, which only a DeviceClass gives", parameters(*index, Some("driverCapabilities")), origin(*from))]
    OnlyOfClass {
        /// Position in the allocation.
        index: usize,
        from: ConfigSource,
        capability: Capability,
    },
    #[error(
        "{}{} is {kind}, but request {request} was allocated {device}, {actual}",
        parameters(*index, Some("kind")),
        origin(*from)
    )]
    ConfigKind {
        /// Position in the allocation.
        index: usize,
        from: ConfigSource,
        kind: ConfigKind,
        request: String,
        device: DeviceName,
        actual: &'static str,
    },
    #[error("{field} is {strategy}, but request {request} was allocated {device}, a share by {form}")]
    OtherForm { field: ConfigField, strategy: &'static str, request: String, device: DeviceName, form: SharedForm },
    /// A share has the limits that the scheduler counted, not those of a configuration.
    #[error("{field} does not apply to request {request}: {device} is a share")]
    LimitsOfShare { field: ConfigField, request: String, device: DeviceName },
    #[error("{field} names no device of its requests, which were allocated {devices}")]
    LimitOfNothing { field: ConfigField, devices: String },
    #[error("{field} is {}, but {device} has {}", mebi(*limit), mebi(*memory))]
    LimitTooLarge {
        field: ConfigField,
        limit: Bytes,
        /// UUID.
        device: String,
        memory: Bytes,
    },
    #[error("request {request} was allocated {devices}, each with its own MPS daemon, but a process can use one only")]
    TwoDaemons { request: String, devices: String },
}

/// A field of a configuration; displayed as its path in the ResourceClaim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigField {
    /// Position of the configuration in the allocation.
    pub index: usize,
    pub from: ConfigSource,
    /// Path within the parameters.
    pub field: String,
}

impl fmt::Display for ConfigField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", parameters(self.index, Some(&self.field)), origin(self.from))
    }
}

impl Advice for Refusal {
    fn advice(&self) -> Option<Cow<'static, str>> {
        const RESCHEDULE: &str = "delete the pod to reschedule it";
        const WAIT: &str = "wait until the pods of that claim terminate";
        let advice: Cow<'static, str> = match self {
            Self::NothingAllocated | Self::OtherPool { .. } | Self::Twice { .. } => RESCHEDULE.into(),
            Self::Unknown { .. } => "make the GPU visible to nvidia-smi, or delete the pod to reschedule it".into(),
            Self::OfNvidia { .. } => {
                "delete the pods of the claim, and the claim if no template made it, and create them again".into()
            }
            Self::Unusable { .. } => {
                "check nvidia-smi and Xid messages on this node and repair the GPU, or delete the pod to reschedule it"
                    .into()
            }
            Self::Unhealthy { .. } => "wait until the GPU is well, or delete the pod to reschedule it".into(),
            Self::MigModeOn { .. } => {
                "turn MIG mode off (`nvidia-smi -mig 0`), or delete the pod to reschedule it".into()
            }
            Self::MigGone { .. } => {
                "create it again at the same placement (`nvidia-smi mig -cgi`), or delete the pod to reschedule it"
                    .into()
            }
            Self::Occupied { .. } => {
                "destroy that instance (`nvidia-smi mig -dci` and `-dgi`), or delete the pod to reschedule it".into()
            }
            Self::Held { .. } | Self::Mixed { .. } => WAIT.into(),
            Self::Ending { .. } => "wait until they have terminated".into(),
            Self::HeldByQuarantined { .. } => {
                "delete the pods of that claim; if the claim no longer exists, delete the file on this node".into()
            }
            Self::OtherInterval { held, .. } => format!("request {held}, or {WAIT}").into(),
            Self::NotEnoughLeft { .. } => "wait until pods with other shares terminate".into(),
            Self::NoDriver { .. } => "check nvidia-smi on this node, and install or load the NVIDIA driver".into(),
            Self::Config { source, .. } => return source.advice(),
            Self::ConfigKind { .. } => {
                "use the matching kind, or omit `requests` so that it applies only to its own kind".into()
            }
            Self::OnlyOfClass { .. } => "remove it, or use a class of an administrator that has it".into(),
            Self::OtherForm { .. } => "remove it, or list the intended `requests`".into(),
            Self::LimitsOfShare { .. } => "set memory and activeThreadPercentage in its capacity.requests".into(),
            Self::LimitOfNothing { .. } => "correct or remove it".into(),
            Self::LimitTooLarge { .. } => "lower or remove it".into(),
            Self::TwoDaemons { .. } => "use one request per device and one container per request".into(),
        };
        Some(advice)
    }
}

impl Refusal {
    /// The claim that holds the device, where the text does not name it.
    pub(crate) fn unnamed_holder(&self) -> Option<&ClaimRef> {
        let (Self::Held { holder, .. }
        | Self::Mixed { holder, .. }
        | Self::OtherInterval { holder, .. }
        | Self::HeldByQuarantined { holder: QuarantinedHolder::Claim(holder), .. }) = self
        else {
            return None;
        };
        holder.unnamed()
    }

    pub fn disposition(&self) -> Disposition {
        match self {
            Self::NothingAllocated
            | Self::OtherPool { .. }
            | Self::Unknown { .. }
            | Self::OfNvidia { .. }
            | Self::MigModeOn { .. }
            | Self::MigGone { .. }
            | Self::Occupied { .. }
            | Self::Twice { .. }
            | Self::Config { .. }
            | Self::ConfigKind { .. }
            | Self::OnlyOfClass { .. }
            | Self::OtherForm { .. }
            | Self::LimitsOfShare { .. }
            | Self::LimitOfNothing { .. }
            | Self::LimitTooLarge { .. }
            | Self::TwoDaemons { .. } => Disposition::Permanent,
            Self::Held { .. }
            | Self::Ending { .. }
            | Self::HeldByQuarantined { .. }
            | Self::Mixed { .. }
            | Self::OtherInterval { .. }
            | Self::NotEnoughLeft { .. } => Disposition::Busy,
            Self::NoDriver { .. } | Self::Unusable { .. } | Self::Unhealthy { .. } => Disposition::Transient,
        }
    }
}

fn list(numbers: &[u32]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

pub(crate) fn mebi(bytes: Bytes) -> String {
    format!("{}Mi", bytes.mib())
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
