// SPDX-License-Identifier: Apache-2.0
//! The opaque configuration users write in claims and classes, `resource.nvidia.com/v1beta1`.
//!
//! Parsing is strict: an unknown field, kind or version is refused with the path of the field, and nothing is ever
//! ignored. The kinds and fields are those of NVIDIA's driver, so that published specs mean the same here.
//!
//! ```yaml
//! apiVersion: resource.nvidia.com/v1beta1
//! kind: GpuConfig | MigDeviceConfig
//! sharing:                                   # absent: the device as it is
//!   strategy: Exclusive | TimeSlicing | MPS
//!   timeSlicingConfig: {interval: Default | Short | Medium | Long}
//!   mpsConfig: {...}                         # see `mps`
//! driverCapabilities: [compute, utility]     # absent: these two; NVIDIA's driver lacks this field
//! ```

mod error;
mod fields;
mod kind;
mod mps;
mod sharing;

use serde_json::Value;

pub use self::error::ConfigError;
use self::fields::Fields;
pub use self::kind::ConfigKind;
use crate::capability::{Capabilities, Capability};
use crate::sharing::Sharing;

/// The only version there is.
pub const API_VERSION: &str = "resource.nvidia.com/v1beta1";

/// A parsed configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceConfig {
    pub kind: ConfigKind,
    pub sharing: Sharing,
    /// What containers get of the driver.
    pub capabilities: Capabilities,
}

/// Reads the parameters of one configuration from their text.
pub fn parse_text(text: &str) -> Result<DeviceConfig, ConfigError> {
    parse(&serde_json::from_str(text).map_err(|error| ConfigError::Unreadable { why: error.to_string() })?)
}

/// Reads the parameters of one configuration.
pub fn parse(parameters: &Value) -> Result<DeviceConfig, ConfigError> {
    let Value::Object(values) = parameters else {
        return Err(ConfigError::NotAnObject);
    };
    let fields = Fields::of(values);
    let version = |value: &Value| (value.as_str()? == API_VERSION).then_some(());
    fields.required("apiVersion", "`resource.nvidia.com/v1beta1`", version)?;
    let kind = fields.required("kind", "`GpuConfig` or `MigDeviceConfig`", |value| match value.as_str()? {
        "GpuConfig" => Some(ConfigKind::Gpu),
        "MigDeviceConfig" => Some(ConfigKind::Mig),
        _ => None,
    })?;
    fields.only(kind, &["apiVersion", "kind", "sharing", "driverCapabilities"])?;
    let sharing = fields.object("sharing")?.map(|fields| sharing::parse(&fields, kind)).transpose()?;
    let capabilities = fields.optional("driverCapabilities", Capability::EXPECTED_LIST, capabilities)?;
    let (sharing, capabilities) = (sharing.unwrap_or(Sharing::Plain), capabilities.unwrap_or_default());
    Ok(DeviceConfig { kind, sharing, capabilities })
}

fn capabilities(value: &Value) -> Option<Capabilities> {
    let listed = value.as_array()?.iter().map(|name| name.as_str()?.parse().ok());
    Capabilities::of(listed.collect::<Option<Vec<Capability>>>()?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    pub(super) fn outcome(given: &Value) -> Result<DeviceConfig, String> {
        parse(given).map_err(|error| crate::explain(&error))
    }

    #[test]
    fn text_that_is_no_usable_json_is_refused() {
        let nested = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
        for (given, expect) in [
            ("{\"kind\":", "parameters cannot be read: EOF while parsing a value at line 1 column 8"),
            (nested.as_str(), "parameters cannot be read: recursion limit exceeded at line 1 column 128"),
            ("null", "parameters must be an object with apiVersion and kind"),
        ] {
            assert_eq!(parse_text(given).unwrap_err().to_string(), expect);
        }
    }

    #[test]
    fn kinds_are_understood_or_refused_with_the_path() {
        let plain = |kind| Ok(DeviceConfig { kind, sharing: Sharing::Plain, capabilities: Capabilities::default() });
        for (given, expect) in [
            (json!({"apiVersion": API_VERSION, "kind": "GpuConfig"}), plain(ConfigKind::Gpu)),
            (json!({"apiVersion": API_VERSION, "kind": "MigDeviceConfig"}), plain(ConfigKind::Mig)),
            (json!({"apiVersion": API_VERSION, "kind": "GpuConfig", "sharing": null}), plain(ConfigKind::Gpu)),
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
                Err("sharring is an unknown field of GpuConfig; remove it or correct its name"),
            ),
            (
                json!({"apiVersion": API_VERSION, "kind": "GpuConfig", "a\nb\u{1b}[31m\u{202e}": {}}),
                Err("a\\nb\\u{1b}[31m\\u{202e} is an unknown field of GpuConfig; remove it or correct its name"),
            ),
            (
                json!({"apiVersion": API_VERSION, "kind": "Gpu\n\u{7f}\u{2028}Config"}),
                Err("kind is \"Gpu\\n\\u{7f}\\u{2028}Config\": expected `GpuConfig` or `MigDeviceConfig`"),
            ),
            (
                json!({"apiVersion": API_VERSION, "kind": "GpuConfig", "sharing": "MPS"}),
                Err("sharing is \"MPS\": expected an object"),
            ),
        ] {
            assert_eq!(outcome(&given), expect.map_err(str::to_owned), "{given}");
        }
    }

    #[test]
    fn capabilities_are_those_of_the_list() {
        use Capability::{Compute, Graphics, Utility};
        let refused =
            |found: &str| Err(format!("driverCapabilities is {found}: expected {}", Capability::EXPECTED_LIST));
        for (given, expect) in [
            (json!(null), Ok(vec![Compute, Utility])),
            (json!(["utility"]), Ok(vec![Utility])),
            (json!(["display", "utility"]), Ok(vec![Utility, Graphics, Capability::Display])),
            (json!([]), refused("[]")),
            (json!("graphics"), refused("\"graphics\"")),
            (json!(["graphics", "Video"]), refused("[\"graphics\",\"Video\"]")),
            (json!(["graphics", 3]), refused("[\"graphics\",3]")),
        ] {
            let config = json!({"apiVersion": API_VERSION, "kind": "MigDeviceConfig", "driverCapabilities": given});
            let found = outcome(&config).map(|config| config.capabilities.iter().collect::<Vec<_>>());
            assert_eq!(found, expect, "{given}");
        }
    }

    /// An e2e test sends the same examples through the admission policy of the chart.
    #[test]
    fn examples_are_accepted_or_refused_with_their_sentence() {
        let examples: Vec<Value> = serde_json::from_str(include_str!("../testdata/configurations.json")).unwrap();
        for example in examples {
            let refused = example["message"].as_str();
            let expect = refused.map_or(Ok(()), |sentence| Err(sentence.to_owned()));
            assert_eq!(outcome(&example["parameters"]).map(drop), expect, "{}", example["name"]);
        }
    }
}
