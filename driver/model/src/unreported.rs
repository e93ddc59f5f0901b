// SPDX-License-Identifier: Apache-2.0
//! Serialises a value that the driver does not report as a value that no GPU has, so that every version of plugin and
//! controller can read it.
//!
//! A controller of a version in which the field was mandatory refuses an absent field while one of the two is upgraded.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::gpu::MigLayout;
use crate::ids::Version;

/// A type with a value that stands for `None`.
pub(crate) trait Reportable: PartialEq + Sized {
    /// The value that no GPU has.
    fn unreported() -> Self;
}

impl Reportable for Version {
    fn unreported() -> Self {
        Self { major: 0, minor: 0, patch: 0 }
    }
}

impl Reportable for String {
    fn unreported() -> Self {
        "Unknown".to_owned()
    }
}

impl Reportable for MigLayout {
    fn unreported() -> Self {
        Self::default()
    }
}

/// For `#[serde(with)]`.
#[expect(clippy::ref_option, reason = "the signature is serde's")]
pub(crate) fn serialize<T: Reportable + Serialize, S: Serializer>(
    value: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => value.serialize(serializer),
        None => T::unreported().serialize(serializer),
    }
}

/// For `#[serde(with)]`.
pub(crate) fn deserialize<'de, T: Reportable + Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(|value| Some(value).filter(|value| *value != T::unreported()))
}
