// SPDX-License-Identifier: Apache-2.0
//! Errors about a mig-parted configuration, each with the path of the key.

use std::borrow::Cow;

use dra_model::Advice;

use crate::field::TypeError;

/// An invalid configuration. mig-parted refuses it too, but for a count of 0 and a device id that is none, which matches no GPU there.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    #[error("a key has the wrong type")]
    Type(#[source] TypeError),
    #[error("{path} is {found:?}, expected v1")]
    Version { path: String, found: String },
    #[error("{path} is no key of mig-parted, expected {known}")]
    UnknownKey { path: String, known: String },
    #[error("{path} is missing, mig-parted requires it")]
    Missing { path: String },
    #[error("{path} is empty, expected at least one {wanted}")]
    Empty { path: String, wanted: &'static str },
    #[error("{path} is not the name of a MIG profile")]
    Profile { path: String },
    #[error("{path} is {found}, expected 1 or more")]
    Count { path: String, found: i64 },
    #[error("{path} is {found:?}, not a PCI device id")]
    DeviceId { path: String, found: String },
    #[error("{path} has MIG devices, but mig-enabled is false")]
    Disabled { path: String },
    #[error("{path} has no configuration named {wanted:?}, only {names}")]
    Unknown { path: String, wanted: String, names: String },
    #[error("{path} has several configurations: {names}")]
    Several { path: String, names: String },
}

impl Advice for LayoutError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Type(_) => None,
            Self::Version { .. } => Some("convert the configuration to version v1".into()),
            Self::UnknownKey { .. } => Some("correct or remove the key".into()),
            Self::Missing { .. } => Some("add the key".into()),
            Self::Empty { .. } => Some("add one".into()),
            Self::Profile { .. } => Some(
                "write it as nvidia-smi mig -lgip prints it, such as 1g.10gb or 1g.10gb+me, or 1c.3g.40gb for a part of \
                 its compute slices"
                    .into(),
            ),
            Self::Count { .. } => Some("remove the profile, or set the number of devices".into()),
            Self::DeviceId { .. } => Some("write it as device and vendor, such as 0x233010DE".into()),
            Self::Disabled { .. } => Some("set mig-enabled to true, or remove the devices".into()),
            Self::Unknown { .. } | Self::Several { .. } => Some("choose one of them".into()),
        }
    }
}
