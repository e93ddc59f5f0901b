// SPDX-License-Identifier: Apache-2.0
//! The opaque configuration users write in claims and classes, `resource.nvidia.com/v1beta1`.
//!
//! Parsing is strict: an unknown field, kind or version is refused with the path of the field, and nothing is ever
//! ignored. The kinds and fields are those of NVIDIA's driver, so that published specs keep their meaning.

use std::fmt;

use serde_json::{Map, Value};

/// The only version there is.
pub const API_VERSION: &str = "resource.nvidia.com/v1beta1";

/// A configuration that was understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceConfig {
    /// `GpuConfig`, for whole GPUs.
    Gpu,
    /// `MigDeviceConfig`, for MIG devices.
    Mig,
}

impl fmt::Display for DeviceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gpu => "GpuConfig",
            Self::Mig => "MigDeviceConfig",
        })
    }
}

/// Why a configuration was refused. `path` is relative to the parameters, such as `sharing.strategy`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not a JSON object.
    #[error("parameters must be an object with apiVersion and kind")]
    NotAnObject,
    /// A field that must be there.
    #[error("{path} is missing: expected {expected}")]
    Missing {
        /// The field.
        path: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A field of the wrong type or value.
    #[error("{path} is {found}: expected {expected}")]
    Unexpected {
        /// The field.
        path: &'static str,
        /// What it is.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A field nobody knows.
    #[error("{path} is an unknown field of {kind}: remove it or correct its name")]
    UnknownField {
        /// The field.
        path: String,
        /// The kind it was found in.
        kind: DeviceConfig,
    },
    /// A wish this version cannot fulfil.
    #[error("sharing is not supported yet by this version of the driver: remove it to get plain access to the device")]
    SharingUnsupported,
}

/// Reads the parameters of one configuration.
pub fn parse(parameters: &Value) -> Result<DeviceConfig, ConfigError> {
    let Value::Object(fields) = parameters else {
        return Err(ConfigError::NotAnObject);
    };
    expect_string(fields, "apiVersion", "`resource.nvidia.com/v1beta1`", |text| (text == API_VERSION).then_some(()))?;
    let kind = expect_string(fields, "kind", "`GpuConfig` or `MigDeviceConfig`", |text| match text {
        "GpuConfig" => Some(DeviceConfig::Gpu),
        "MigDeviceConfig" => Some(DeviceConfig::Mig),
        _ => None,
    })?;
    match fields.keys().find(|key| !matches!(key.as_str(), "apiVersion" | "kind" | "sharing")) {
        Some(unknown) => Err(ConfigError::UnknownField { path: printable(unknown), kind }),
        None if fields.get("sharing").is_some_and(|sharing| !sharing.is_null()) => Err(ConfigError::SharingUnsupported),
        None => Ok(kind),
    }
}

fn expect_string<T>(
    fields: &Map<String, Value>,
    path: &'static str,
    expected: &'static str,
    accept: impl Fn(&str) -> Option<T>,
) -> Result<T, ConfigError> {
    let value = fields.get(path).ok_or(ConfigError::Missing { path, expected })?;
    value.as_str().and_then(accept).ok_or_else(|| ConfigError::Unexpected { path, found: shorten(value), expected })
}

fn shorten(value: &Value) -> String {
    printable(&value.to_string())
}

/// The beginning of a text that a user chose, as one line of plain characters: it ends up in logs and events.
fn printable(text: &str) -> String {
    let escape = |letter: char| {
        if matches!(letter, ' '..='~') { letter.to_string() } else { letter.escape_default().to_string() }
    };
    text.chars().take(80).map(escape).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn configurations_are_understood_or_refused_with_the_path() {
        for (given, expect) in [
            (json!({"apiVersion": API_VERSION, "kind": "GpuConfig"}), Ok(DeviceConfig::Gpu)),
            (json!({"apiVersion": API_VERSION, "kind": "MigDeviceConfig"}), Ok(DeviceConfig::Mig)),
            (json!([]), Err("parameters must be an object with apiVersion and kind")),
            (json!({"kind": "GpuConfig"}), Err("apiVersion is missing: expected `resource.nvidia.com/v1beta1`")),
            (
                json!({"apiVersion": "gpu.resource.nvidia.com/v1alpha1", "kind": "GpuConfig"}),
                Err("apiVersion is \"gpu.resource.nvidia.com/v1alpha1\": expected `resource.nvidia.com/v1beta1`"),
            ),
            (
                json!({"apiVersion": API_VERSION, "kind": "VfioDeviceConfig"}),
                Err("kind is \"VfioDeviceConfig\": expected `GpuConfig` or `MigDeviceConfig`"),
            ),
            (
                json!({"apiVersion": API_VERSION, "kind": 3}),
                Err("kind is 3: expected `GpuConfig` or `MigDeviceConfig`"),
            ),
            (
                json!({"apiVersion": API_VERSION, "kind": "GpuConfig", "sharring": {}}),
                Err("sharring is an unknown field of GpuConfig: remove it or correct its name"),
            ),
            (
                json!({"apiVersion": API_VERSION, "kind": "GpuConfig", "a\nb\u{1b}[31m\u{202e}": {}}),
                Err("a\\nb\\u{1b}[31m\\u{202e} is an unknown field of GpuConfig: remove it or correct its name"),
            ),
            (
                json!({"apiVersion": API_VERSION, "kind": "Gpu\n\u{7f}\u{2028}Config"}),
                Err("kind is \"Gpu\\n\\u{7f}\\u{2028}Config\": expected `GpuConfig` or `MigDeviceConfig`"),
            ),
            (
                json!({"apiVersion": API_VERSION, "kind": "GpuConfig", "sharing": {"strategy": "MPS"}}),
                Err(
                    "sharing is not supported yet by this version of the driver: remove it to get plain access to the device",
                ),
            ),
        ] {
            assert_eq!(parse(&given).map_err(|error| error.to_string()), expect.map_err(str::to_owned), "{given}");
        }
    }
}
