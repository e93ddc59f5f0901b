// SPDX-License-Identifier: Apache-2.0
//! Converts the JSON of a ResourceClaim to the claim of the model.
//!
//! Only the fields that the driver needs are parsed, because a claim may have a megabyte of configuration for any driver, which
//! would be dozens of megabytes of values. Results and configuration of other drivers are skipped; the rest is parsed once and
//! strictly, with the path of the field in every error. Configuration keeps its precedence: classes first, then the claim, the last
//! one applies.

mod object;

use std::borrow::Cow;
use std::str::FromStr;

use dra_model::{
    Advice, AllocatedDevice, Claim, ClaimConfig, ClaimRef, ConfigSource, Disposition, IdError, ShareLimits, config,
};
use serde_json::value::RawValue;

use crate::names::{self, DriverName};
use object::{Configuration, DeviceResult, Object};

/// An unusable ResourceClaim.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    #[error("failed to parse claim {claim}: {why}")]
    Unreadable { claim: ClaimRef, why: String },
    /// Another claim has the name.
    #[error("claim {claim} was replaced: the kubelet requested UID {}, the API server has UID {found}", claim.uid)]
    Replaced {
        claim: ClaimRef,
        /// UID of the existing claim.
        found: String,
    },
    #[error("claim {claim} is not allocated: status.allocation is missing")]
    NotAllocated { claim: ClaimRef },
    /// An allocation that no scheduler makes of published devices.
    #[error("claim {claim} has an invalid allocation in {path}")]
    InvalidAllocation {
        claim: ClaimRef,
        path: String,
        #[source]
        source: Box<IdError>,
    },
    #[error("claim {claim} has the unknown value `{found}` in {path}: expected FromClass or FromClaim")]
    UnknownConfigSource { claim: ClaimRef, path: String, found: String },
}

impl Advice for ClaimError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Unreadable { .. } => {
                Some("check proxies between this node and the API server, which must not change answers".into())
            }
            Self::Replaced { .. } => Some("delete the pod that used the old claim".into()),
            Self::NotAllocated { .. } => Some("the claim must be scheduled first".into()),
            Self::InvalidAllocation { .. } => Some("delete the pod so that it is scheduled again".into()),
            Self::UnknownConfigSource { .. } => Some("upgrade the driver".into()),
        }
    }
}

impl ClaimError {
    /// How a caller must treat the error.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Unreadable { .. } | Self::NotAllocated { .. } => Disposition::Transient,
            Self::Replaced { .. } | Self::InvalidAllocation { .. } | Self::UnknownConfigSource { .. } => {
                Disposition::Permanent
            }
        }
    }
}

/// Parses the answer of the API server to the GET of a claim.
pub fn claim_of(json: &[u8], requested: &ClaimRef, driver: &DriverName) -> Result<Claim, ClaimError> {
    let object: Object<'_> = serde_json::from_slice(json)
        .map_err(|error| ClaimError::Unreadable { claim: requested.clone(), why: error.to_string() })?;
    let found = object.metadata.uid.as_ref();
    if found != requested.uid.as_str() {
        return Err(ClaimError::Replaced { claim: requested.clone(), found: found.to_owned() });
    }
    let Some(allocation) = object.status.and_then(|status| status.allocation) else {
        return Err(ClaimError::NotAllocated { claim: requested.clone() });
    };
    let devices = allocation.devices.unwrap_or_default();
    let results = devices.results.iter().flatten().enumerate().filter(|(_, result)| result.driver == driver.as_str());
    let allocated =
        results.map(|(index, result)| device(requested, driver, index, result)).collect::<Result<_, _>>()?;
    let entries = devices.config.iter().flatten().enumerate();
    let mut configs: Vec<ClaimConfig> = entries
        .filter_map(|(index, entry)| config(requested, driver, index, entry).transpose())
        .collect::<Result<_, _>>()?;
    configs.sort_by_key(|config| match config.source {
        ConfigSource::Class => 0,
        ConfigSource::Claim => 1,
    });
    Ok(Claim { reference: requested.clone(), devices: allocated, configs })
}

fn device(
    claim: &ClaimRef,
    driver: &DriverName,
    index: usize,
    result: &DeviceResult<'_>,
) -> Result<AllocatedDevice, ClaimError> {
    let invalid = |field: String| {
        move |source| ClaimError::InvalidAllocation {
            claim: claim.clone(),
            path: format!("status.allocation.devices.results[{index}].{field}"),
            source: Box::new(source),
        }
    };
    let consumed = |name: &str| format!("consumedCapacity[{name}]");
    Ok(AllocatedDevice {
        request: result.request.to_string(),
        pool: result.pool.to_string(),
        device: result.device.parse().map_err(invalid("device".to_owned()))?,
        admin_access: result.admin_access.unwrap_or(false),
        share_id: result.share_id.as_deref().map(str::parse).transpose().map_err(invalid("shareID".to_owned()))?,
        consumed: ShareLimits {
            memory: consumed_amount(result, driver, names::MEMORY).map_err(invalid(consumed(names::MEMORY)))?,
            threads: consumed_amount(result, driver, names::ACTIVE_THREADS)
                .map_err(invalid(consumed(names::ACTIVE_THREADS)))?,
        },
    })
}

/// The consumed amount of one capacity. The API allows its name with and without the domain.
fn consumed_amount<T: FromStr>(
    result: &DeviceResult<'_>,
    driver: &DriverName,
    name: &str,
) -> Result<Option<T>, T::Err> {
    let all = result.consumed_capacity.as_ref();
    let amount = all.and_then(|all| all.get(name).or_else(|| all.get(&format!("{driver}/{name}"))));
    amount.map(|amount| amount.parse()).transpose()
}

fn config(
    claim: &ClaimRef,
    driver: &DriverName,
    index: usize,
    entry: &Configuration<'_>,
) -> Result<Option<ClaimConfig>, ClaimError> {
    let Some(opaque) = entry.opaque.as_ref().filter(|opaque| opaque.driver == driver.as_str()) else {
        return Ok(None);
    };
    let source = match entry.source.as_ref() {
        "FromClass" => ConfigSource::Class,
        "FromClaim" => ConfigSource::Claim,
        other => {
            return Err(ClaimError::UnknownConfigSource {
                claim: claim.clone(),
                path: format!("status.allocation.devices.config[{index}].source"),
                found: other.chars().take(80).collect(),
            });
        }
    };
    let parameters = config::parse_text(opaque.parameters.map_or("null", RawValue::get));
    Ok(Some(ClaimConfig { source, index, requests: entry.requests.clone().unwrap_or_default(), parameters }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn requested() -> ClaimRef {
        ClaimRef { namespace: "ns".to_owned(), name: "train".to_owned(), uid: "u-1".parse().unwrap() }
    }

    fn read(object: &Value) -> Result<Claim, String> {
        claim_of(object.to_string().as_bytes(), &requested(), &"gpu.nvidia.com".parse().unwrap())
            .map_err(|error| format!("{error}; {}", error.advice().unwrap()))
    }

    fn claim(status: &Value) -> Value {
        json!({"metadata": {"name": "train", "namespace": "ns", "uid": "u-1"}, "spec": {}, "status": status})
    }

    fn allocated(results: &Value, config: &Value) -> Value {
        claim(&json!({"allocation": {"devices": {"results": results, "config": config}}}))
    }

    #[test]
    fn results_and_configuration_of_other_drivers_are_dropped_and_classes_come_first() {
        let result =
            |driver: &str, device: &str| json!({"request": "r/sub", "driver": driver, "pool": "n", "device": device});
        let opaque = |driver: &str| json!({"driver": driver, "parameters": {"kind": "GpuConfig"}});
        let read = read(&allocated(
            &json!([result("net.example.com", "eth0"), result("gpu.nvidia.com", "gpu-12345678")]),
            &json!([
                {"source": "FromClaim", "requests": ["r"], "opaque": opaque("gpu.nvidia.com")},
                {"source": "Unknown", "opaque": opaque("net.example.com")},
                {"source": "FromClass", "opaque": opaque("gpu.nvidia.com")},
            ]),
        ))
        .unwrap();
        assert_eq!(read.devices.len(), 1);
        assert_eq!((read.devices[0].device.as_str(), read.devices[0].base_request()), ("gpu-12345678", "r"));
        let order: Vec<_> = read.configs.iter().map(|config| (config.source, config.index)).collect();
        assert_eq!(order, [(ConfigSource::Class, 2), (ConfigSource::Claim, 0)]);
        assert!(read.configs.iter().all(|config| config.specificity(&read.devices[0]).is_some()));
    }

    #[test]
    fn share_ids_and_admin_access_are_read() {
        let result = json!({"request": "r", "driver": "gpu.nvidia.com", "pool": "n", "device": "gpu-1", "adminAccess": true, "shareID": "s"});
        let read = read(&allocated(&json!([result]), &json!([]))).unwrap();
        assert!(read.devices[0].admin_access);
        assert_eq!(read.devices[0].share_id, Some("s".parse().unwrap()));
        assert_eq!(read.devices[0].consumed, ShareLimits::default());
    }

    #[test]
    fn limits_of_a_share_are_its_consumed_capacity() {
        let limits = |memory: Option<u64>, threads: Option<u64>| ShareLimits {
            memory: memory.map(dra_model::Bytes),
            threads: threads.map(|threads| threads.try_into().unwrap()),
        };
        for (given, expect) in [
            (json!({}), Ok(limits(None, None))),
            (json!({"memory": "10Gi", "activeThreadPercentage": "30"}), Ok(limits(Some(10 << 30), Some(30)))),
            (json!({"gpu.nvidia.com/memory": "1000500Ki", "shares": "1"}), Ok(limits(Some(1_000_500 << 10), None))),
            (json!({"memory": "lots"}), Err("memory")),
            (json!({"gpu.nvidia.com/activeThreadPercentage": "0"}), Err("activeThreadPercentage")),
        ] {
            let result = json!({"request": "r", "driver": "gpu.nvidia.com", "pool": "n", "device": "gpu-1-mps",
                "shareID": "s", "consumedCapacity": given});
            let found = read(&allocated(&json!([result]), &json!([]))).map(|claim| claim.devices[0].consumed);
            let field = |name| {
                format!(
                    "claim ns/train has an invalid allocation in status.allocation.devices.results[0].consumedCapacity[{name}]; delete the pod so that it is scheduled again"
                )
            };
            assert_eq!(found, expect.map_err(field), "{given}");
        }
    }

    /// Other drivers may write any content.
    #[test]
    fn fields_of_other_drivers_are_not_parsed() {
        let result = json!({"request": "r", "driver": "gpu.nvidia.com", "pool": "n", "device": "gpu-1"});
        let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let status = format!(
            r#"{{"reservedFor": {nested}, "devices": {nested}, "allocation": {{"nodeSelector": {nested}, "devices": {{
                "results": [{result}], "config": [
                    {{"source": "FromClaim", "opaque": {{"driver": "other.example.com", "parameters": {nested}}}}},
                    {{"source": "FromClaim", "opaque": {{"driver": "gpu.nvidia.com", "parameters": {nested}}}}}
                ]}}}}}}"#
        );
        let text = format!(
            r#"{{"metadata": {{"uid": "u-\u0031", "managedFields": {nested}}}, "spec": {nested}, "status": {status}}}"#
        );
        let read = claim_of(text.as_bytes(), &requested(), &"gpu.nvidia.com".parse().unwrap()).unwrap();
        let errors =
            read.configs.iter().map(|config| (config.index, config.parameters.clone().unwrap_err().to_string()));
        let refused = "parameters cannot be read: recursion limit exceeded at line 1 column 128".to_owned();
        assert_eq!(errors.collect::<Vec<_>>(), [(1, refused)]);
    }

    #[test]
    fn errors_of_unusable_claims_name_the_field() {
        let result = json!({"request": "r", "driver": "gpu.nvidia.com", "pool": "n", "device": "GPU_1"});
        let config = json!({"source": "FromNowhere", "opaque": {"driver": "gpu.nvidia.com", "parameters": {}}});
        for (given, expect) in [
            (
                json!({"metadata": {"uid": "u-2"}, "spec": {}}),
                "claim ns/train was replaced: the kubelet requested UID u-1, the API server has UID u-2; delete the pod that used the old claim",
            ),
            (
                claim(&json!({})),
                "claim ns/train is not allocated: status.allocation is missing; the claim must be scheduled first",
            ),
            (
                allocated(&json!([result]), &json!([])),
                "claim ns/train has an invalid allocation in status.allocation.devices.results[0].device; delete the pod so that it is scheduled again",
            ),
            (
                allocated(&json!([]), &json!([config])),
                "claim ns/train has the unknown value `FromNowhere` in status.allocation.devices.config[0].source: expected FromClass or FromClaim; upgrade the driver",
            ),
        ] {
            assert_eq!(read(&given).unwrap_err(), expect);
        }
    }
}
