// SPDX-License-Identifier: Apache-2.0
//! The entries of `status.devices` as a JSON patch, for claims whose server-side apply fails.
//!
//! An apply rewrites the opaque parameters of every configuration with sorted keys. If a client wrote them in another order, the API
//! server detects a changed allocation and refuses the request with code 422 (observed with Kubernetes 1.37). A JSON patch does not
//! change fields that it does not name, except for spaces and the escapes of `<`, `>` and `&`. The patch has indexes, so it is valid
//! for one version of the claim.

use std::borrow::Cow;

use dra_model::{ClaimRef, ShareId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::DeviceStatus;
use crate::names::DriverName;

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow)]
    metadata: Version<'a>,
    #[serde(borrow)]
    status: Option<Status<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version<'a> {
    #[serde(borrow)]
    uid: Cow<'a, str>,
    #[serde(borrow)]
    resource_version: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Status<'a> {
    #[serde(borrow)]
    allocation: Option<Allocation<'a>>,
    #[serde(borrow)]
    devices: Option<Vec<Key<'a>>>,
}

#[derive(Deserialize)]
struct Allocation<'a> {
    #[serde(borrow)]
    devices: Option<Devices<'a>>,
}

#[derive(Deserialize)]
struct Devices<'a> {
    #[serde(borrow)]
    results: Option<Vec<Key<'a>>>,
}

/// The key of a device in the allocation and the status.
#[derive(Deserialize)]
struct Key<'a> {
    #[serde(borrow)]
    driver: Cow<'a, str>,
    #[serde(borrow)]
    pool: Cow<'a, str>,
    #[serde(borrow)]
    device: Cow<'a, str>,
    #[serde(borrow, rename = "shareID")]
    share_id: Option<Cow<'a, str>>,
}

/// The operations for the current version of a claim; none if these devices are not allocated to it any more.
pub fn json_patch(
    json: &[u8],
    claim: &ClaimRef,
    driver: &DriverName,
    devices: &[DeviceStatus<'_>],
) -> Result<Option<Value>, serde_json::Error> {
    let Object { metadata, status } = serde_json::from_slice(json)?;
    let Some(Status { allocation, devices: before }) = status else { return Ok(None) };
    let allocated = allocation.and_then(|allocation| allocation.devices?.results).unwrap_or_default();
    let is_allocated = |device: &DeviceStatus<'_>| allocated.iter().any(|result| result.is(device, driver));
    if metadata.uid != claim.uid.as_str() || !devices.iter().all(is_allocated) {
        return Ok(None);
    }
    // The API server refuses the patch of an older version as a conflict.
    let version = json!({"op": "replace", "path": "/metadata/resourceVersion", "value": metadata.resource_version});
    let mut operations = vec![version];
    match before {
        None => operations.push(json!({"op": "add", "path": "/status/devices", "value": []})),
        Some(before) => {
            let own = before.iter().enumerate().filter(|(_, entry)| entry.driver == driver.as_str());
            // From the last index to the first, so that the other indexes remain valid.
            operations
                .extend(own.rev().map(|(at, _)| json!({"op": "remove", "path": format!("/status/devices/{at}")})));
        }
    }
    let add =
        |device: &DeviceStatus<'_>| json!({"op": "add", "path": "/status/devices/-", "value": device.entry(driver)});
    operations.extend(devices.iter().map(add));
    Ok(Some(Value::Array(operations)))
}

impl Key<'_> {
    fn is(&self, device: &DeviceStatus<'_>, driver: &DriverName) -> bool {
        self.driver == driver.as_str()
            && self.pool == device.pool
            && self.device == device.device.as_str()
            && self.share_id.as_deref() == device.share_id.map(ShareId::as_str)
    }
}

#[cfg(test)]
mod tests {
    use dra_model::LiveIdentity;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::super::SharingStatus;
    use super::*;

    /// The operations as name, path and device of the value.
    fn patch(object: &Value) -> Option<Vec<(String, String, Value)>> {
        let claim = ClaimRef { namespace: "ns".to_owned(), name: "c".to_owned(), uid: "u-1".parse().unwrap() };
        let uuid = "GPU-12345678-0000-0000-0000-000000000001".parse().unwrap();
        let (identity, sharing) = (LiveIdentity::Gpu { uuid }, SharingStatus::default());
        let (device, share) = ("gpu-1".parse().unwrap(), "s".parse().unwrap());
        let since = Time("2026-11-22T03:00:00Z".parse().unwrap());
        let (identity, sharing) = (&identity, &sharing);
        let status = DeviceStatus {
            pool: "n",
            device: &device,
            share_id: Some(&share),
            identity,
            sharing,
            finding: None,
            since,
        };
        let json = object.to_string();
        let patch = json_patch(json.as_bytes(), &claim, &"gpu.nvidia.com".parse().unwrap(), &[status]).unwrap()?;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let operation_of = |operation: &Value| {
            let value = &operation["value"];
            let device = value.get("device").unwrap_or(value).clone();
            (text(&operation["op"]), text(&operation["path"]), device)
        };
        Some(patch.as_array().unwrap().iter().map(operation_of).collect())
    }

    #[test]
    fn entries_of_other_drivers_are_not_named_and_the_version_is() {
        let result = |driver: &str, device: &str, share: &str| json!({"request": "r", "driver": driver, "pool": "n", "device": device, "shareID": share});
        let other = json!({"driver": "net.example.com", "pool": "n", "device": "eth0"});
        let old = json!({"driver": "gpu.nvidia.com", "pool": "n", "device": "gpu-1", "shareID": "s"});
        let object = |uid: &str, results: &[Value], devices: &[&Value]| {
            let devices = (!devices.is_empty()).then_some(devices);
            json!({"metadata": {"name": "c", "uid": uid, "resourceVersion": "7"}, "spec": {},
            "status": {"allocation": {"devices": {"results": results}}, "devices": devices}})
        };
        let (net, ours) = (result("net.example.com", "eth0", "s"), result("gpu.nvidia.com", "gpu-1", "s"));
        let operation = |name: &str, path: &str, value: Value| (name.to_owned(), path.to_owned(), value);
        let version = operation("replace", "/metadata/resourceVersion", json!("7"));
        let entry = operation("add", "/status/devices/-", json!("gpu-1"));
        let remove = |at: usize| operation("remove", &format!("/status/devices/{at}"), Value::Null);
        let allocated = [net.clone(), ours.clone()];
        let found = patch(&object("u-1", &allocated, &[&old, &other, &old])).unwrap();
        assert_eq!(found, [version.clone(), remove(2), remove(0), entry.clone()]);
        let list = operation("add", "/status/devices", json!([]));
        assert_eq!(patch(&object("u-1", &allocated, &[])).unwrap(), [version, list, entry]);
        for moved_on in [
            object("u-2", &[ours], &[]),
            object("u-1", &[net], &[]),
            object("u-1", &[result("gpu.nvidia.com", "gpu-1", "t")], &[]),
            json!({"metadata": {"uid": "u-1", "resourceVersion": "7"}}),
        ] {
            assert_eq!(patch(&moved_on), None, "{moved_on}");
        }
    }
}
