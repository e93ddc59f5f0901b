// SPDX-License-Identifier: Apache-2.0
//! The `mpsConfig` of a `sharing` stanza. Pure.
//!
//! ```yaml
//! defaultActiveThreadPercentage: 50                # 1 to 100
//! defaultPinnedDeviceMemoryLimit: 10Gi             # at least 1Mi; whole MiB count
//! defaultPerDevicePinnedMemoryLimit: {"0": 5Gi}    # by index in the sorted UUIDs, or by UUID
//! multiUser: true
//! ```

use std::collections::BTreeMap;

use serde_json::Value;

use super::error::ConfigError;
use super::fields::Fields;
use super::kind::ConfigKind;
use crate::ids::Bytes;
use crate::quantity::parse_bytes;
use crate::sharing::{DeviceKey, MpsConfig};

const THREADS: &str = "defaultActiveThreadPercentage";

const MEMORY: &str = "defaultPinnedDeviceMemoryLimit";

const PER_DEVICE: &str = "defaultPerDevicePinnedMemoryLimit";

const MULTI_USER: &str = "multiUser";

const A_LIMIT: &str = "a quantity of at least 1Mi, such as `10Gi`";

/// Reads the details of the strategy MPS.
pub(super) fn parse(details: &Fields<'_>, kind: ConfigKind) -> Result<MpsConfig, ConfigError> {
    details.only(kind, &[THREADS, MEMORY, PER_DEVICE, MULTI_USER])?;
    let threads = |value: &Value| value.as_u64()?.try_into().ok();
    Ok(MpsConfig {
        threads: details.optional(THREADS, "a whole number from 1 to 100", threads)?,
        memory: details.optional(MEMORY, A_LIMIT, limit)?,
        per_device: details.object(PER_DEVICE)?.map(|fields| per_device(&fields)).transpose()?.unwrap_or_default(),
        multi_user: details.optional(MULTI_USER, "true or false", Value::as_bool)?.unwrap_or_default(),
    })
}

fn per_device(limits: &Fields<'_>) -> Result<BTreeMap<DeviceKey, Bytes>, ConfigError> {
    let one = |name: &str| {
        let key = name.parse::<DeviceKey>().map_err(|_no_device| ConfigError::Unexpected {
            path: limits.path(name),
            found: "for no device".to_owned(),
            expected: "a number from 0, a GPU UUID or a MIG UUID",
        })?;
        Ok((key, limits.required(name, A_LIMIT, limit)?))
    };
    limits.names().map(one).collect()
}

/// In whole MiB, the unit of limits in MPS commands. A JSON number is a quantity as well.
fn limit(value: &Value) -> Option<Bytes> {
    let bytes = match value {
        Value::String(text) => parse_bytes(text),
        Value::Number(number) => parse_bytes(&number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    bytes.map(|bytes| Bytes::from_mib(bytes.mib())).filter(|limit| limit.0 > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{API_VERSION, tests::outcome};
    use super::*;
    use crate::sharing::Sharing;

    fn of(details: &Value) -> Result<MpsConfig, String> {
        let sharing = json!({"strategy": "MPS", "mpsConfig": details});
        match outcome(&json!({"apiVersion": API_VERSION, "kind": "GpuConfig", "sharing": sharing}))?.sharing {
            Sharing::Mps(config) => Ok(config),
            other @ (Sharing::Plain | Sharing::Exclusive | Sharing::TimeSlicing(_)) => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn limits_are_quantities_of_whole_mib() {
        for (given, expect) in [
            (json!("10Gi"), Some(10240)),
            (json!("1500M"), Some(1430)),
            (json!("1Mi"), Some(1)),
            (json!("0.5Gi"), Some(512)),
            (json!(1_073_741_824), Some(1024)),
            (json!(1e9), Some(953)),
            (json!("1023Ki"), None),
            (json!(0), None),
            (json!("5Zi"), None),
            (json!(-1), None),
            (json!("-1Gi"), None),
            (json!(true), None),
        ] {
            let uuid = "GPU-9f7c3f9e-3c7c-4b0e-8a53-0d6a1f4e2b11";
            let read = of(&json!({MEMORY: given, PER_DEVICE: {"1": given, uuid: given}}));
            let Some(mib) = expect else {
                let expect = format!("sharing.mpsConfig.{MEMORY} is {given}: expected {A_LIMIT}");
                assert_eq!(read, Err(expect));
                continue;
            };
            let limit = Bytes::from_mib(mib);
            let per_device = [(DeviceKey::Index(1), limit), (DeviceKey::Gpu(uuid.parse().unwrap()), limit)].into();
            assert_eq!(read, Ok(MpsConfig { memory: Some(limit), per_device, ..MpsConfig::default() }));
        }
    }

    #[test]
    fn invalid_values_are_refused_with_the_path() {
        let percent = "expected a whole number from 1 to 100";
        for (given, expect) in [
            (json!({THREADS: 0}), format!("sharing.mpsConfig.{THREADS} is 0: {percent}")),
            (json!({THREADS: 101}), format!("sharing.mpsConfig.{THREADS} is 101: {percent}")),
            (json!({THREADS: 50.5}), format!("sharing.mpsConfig.{THREADS} is 50.5: {percent}")),
            (json!({THREADS: "50"}), format!("sharing.mpsConfig.{THREADS} is \"50\": {percent}")),
            (json!({MULTI_USER: "yes"}), format!("sharing.mpsConfig.{MULTI_USER} is \"yes\": expected true or false")),
            (json!({PER_DEVICE: ["5Gi"]}), format!("sharing.mpsConfig.{PER_DEVICE} is [\"5Gi\"]: expected an object")),
            (
                json!({PER_DEVICE: {"all": "5Gi"}}),
                format!(
                    "sharing.mpsConfig.{PER_DEVICE}.all is for no device: expected a number from 0, a GPU UUID or a MIG UUID"
                ),
            ),
            (
                json!({PER_DEVICE: {"0": null}}),
                format!("sharing.mpsConfig.{PER_DEVICE}.0 is null: expected {A_LIMIT}"),
            ),
            (
                json!({"defaultActiveThreads": 1}),
                "sharing.mpsConfig.defaultActiveThreads is an unknown field of GpuConfig; remove it or correct its name"
                    .to_owned(),
            ),
        ] {
            assert_eq!(of(&given), Err(expect), "{given}");
        }
    }
}
