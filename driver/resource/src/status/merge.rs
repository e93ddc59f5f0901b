// SPDX-License-Identifier: Apache-2.0
//! The same entries of `status.devices` as a merge patch, for claims that take no server-side apply.
//!
//! An apply writes the opaque parameters of every configuration anew, with their keys in order. Where a client had written
//! them in another order, the API server then finds that the allocation was changed, and refuses with code 422 (seen with
//! Kubernetes 1.37). A merge patch leaves them as they are. It names all of the list, so it is for one version of the claim.

use std::borrow::Cow;

use dra_model::{ClaimRef, ShareId};
use k8s_openapi::api::resource::v1::AllocatedDeviceStatus;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::DeviceStatus;
use crate::names::DriverName;

/// What is read of a claim.
#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow)]
    metadata: Version<'a>,
    #[serde(borrow)]
    status: Option<Status<'a>>,
}

/// Which claim, and which version of it.
#[derive(Debug, Deserialize, Serialize)]
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
    devices: Option<Vec<&'a RawValue>>,
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

/// What the allocation and the status call a device.
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

/// The body of a merge patch of `status`, which has the entries of other drivers as they are.
#[derive(Debug, Serialize)]
pub struct MergePatch<'a> {
    metadata: Version<'a>,
    status: Entries<'a>,
}

#[derive(Debug, Serialize)]
struct Entries<'a> {
    devices: Vec<Entry<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Entry<'a> {
    Other(&'a RawValue),
    Own(Box<AllocatedDeviceStatus>),
}

/// The patch for a claim as the API server has it; none if it has not these devices any more.
pub fn merge_patch<'a>(
    json: &'a [u8],
    claim: &ClaimRef,
    driver: &DriverName,
    devices: &[DeviceStatus<'_>],
) -> Result<Option<MergePatch<'a>>, serde_json::Error> {
    let Object { metadata, status } = serde_json::from_slice(json)?;
    let Some(Status { allocation, devices: before }) = status else { return Ok(None) };
    let allocated = allocation.and_then(|allocation| allocation.devices?.results).unwrap_or_default();
    let is_allocated = |device: &DeviceStatus<'_>| allocated.iter().any(|result| result.is(device, driver));
    if metadata.uid != claim.uid.as_str() || !devices.iter().all(is_allocated) {
        return Ok(None);
    }
    let mut entries = Vec::new();
    for entry in before.unwrap_or_default() {
        if serde_json::from_str::<Key<'_>>(entry.get())?.driver != driver.as_str() {
            entries.push(Entry::Other(entry));
        }
    }
    entries.extend(devices.iter().map(|device| Entry::Own(Box::new(device.entry(driver)))));
    Ok(Some(MergePatch { metadata, status: Entries { devices: entries } }))
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
    use serde_json::{Value, json};

    use super::super::SharingStatus;
    use super::*;

    fn patch(object: &Value) -> Option<Value> {
        let claim = ClaimRef { namespace: "ns".to_owned(), name: "c".to_owned(), uid: "u-1".parse().unwrap() };
        let uuid = "GPU-12345678-0000-0000-0000-000000000001".parse().unwrap();
        let (identity, sharing) = (LiveIdentity::Gpu { uuid }, SharingStatus::default());
        let (device, share) = ("gpu-1".parse().unwrap(), "s".parse().unwrap());
        let since = Time("2026-11-22T03:00:00Z".parse().unwrap());
        let (identity, sharing) = (&identity, &sharing);
        let status = DeviceStatus { pool: "n", device: &device, share_id: Some(&share), identity, sharing, since };
        let json = object.to_string();
        let patch = merge_patch(json.as_bytes(), &claim, &"gpu.nvidia.com".parse().unwrap(), &[status]).unwrap();
        patch.map(|patch| serde_json::to_value(patch).unwrap())
    }

    #[test]
    fn entries_of_other_drivers_stay_as_they_are_and_the_version_is_named() {
        let result = |driver: &str, device: &str, share: &str| json!({"request": "r", "driver": driver, "pool": "n", "device": device, "shareID": share});
        let other = json!({"driver": "net.example.com", "pool": "n", "device": "eth0", "data": {"b": 1.50, "a": [2]}});
        let old = json!({"driver": "gpu.nvidia.com", "pool": "n", "device": "gpu-1", "shareID": "s"});
        let object = |uid: &str, results: &[Value]| {
            json!({"metadata": {"name": "c", "uid": uid, "resourceVersion": "7"}, "spec": {},
            "status": {"allocation": {"devices": {"results": results}}, "devices": [other, old]}})
        };
        let (net, ours) = (result("net.example.com", "eth0", "s"), result("gpu.nvidia.com", "gpu-1", "s"));
        let found = patch(&object("u-1", &[net.clone(), ours.clone()])).unwrap();
        assert_eq!(found["metadata"], json!({"uid": "u-1", "resourceVersion": "7"}));
        let devices = found["status"]["devices"].as_array().unwrap();
        assert_eq!((devices.len(), &devices[0]), (2, &other));
        assert_eq!((&devices[1]["device"], &devices[1]["data"]["type"]), (&json!("gpu-1"), &json!("gpu")));
        for moved_on in [
            object("u-2", &[ours]),
            object("u-1", &[net]),
            object("u-1", &[result("gpu.nvidia.com", "gpu-1", "t")]),
            json!({"metadata": {"uid": "u-1", "resourceVersion": "7"}}),
        ] {
            assert_eq!(patch(&moved_on), None, "{moved_on}");
        }
    }
}
