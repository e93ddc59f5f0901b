// SPDX-License-Identifier: Apache-2.0
//! The parsed fields of a ResourceClaim, borrowed from its JSON. All other fields are skipped.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

/// `ResourceClaim`.
#[derive(Debug, Deserialize)]
pub(super) struct Object<'a> {
    #[serde(borrow, default)]
    pub(super) metadata: Metadata<'a>,
    #[serde(borrow)]
    pub(super) status: Option<Status<'a>>,
}

/// `ObjectMeta`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Metadata<'a> {
    #[serde(borrow, default)]
    pub(super) uid: Cow<'a, str>,
}

/// `ResourceClaimStatus`.
#[derive(Debug, Deserialize)]
pub(super) struct Status<'a> {
    #[serde(borrow)]
    pub(super) allocation: Option<Allocation<'a>>,
}

/// `AllocationResult`.
#[derive(Debug, Deserialize)]
pub(super) struct Allocation<'a> {
    #[serde(borrow)]
    pub(super) devices: Option<Devices<'a>>,
}

/// `DeviceAllocationResult`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Devices<'a> {
    #[serde(borrow)]
    pub(super) results: Option<Vec<DeviceResult<'a>>>,
    #[serde(borrow)]
    pub(super) config: Option<Vec<Configuration<'a>>>,
}

/// `DeviceRequestAllocationResult`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceResult<'a> {
    #[serde(borrow)]
    pub(super) request: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) driver: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) pool: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) device: Cow<'a, str>,
    pub(super) admin_access: Option<bool>,
    #[serde(rename = "shareID")]
    pub(super) share_id: Option<String>,
    pub(super) consumed_capacity: Option<BTreeMap<String, String>>,
}

/// `DeviceAllocationConfiguration`.
#[derive(Debug, Deserialize)]
pub(super) struct Configuration<'a> {
    #[serde(borrow, default)]
    pub(super) source: Cow<'a, str>,
    pub(super) requests: Option<Vec<String>>,
    #[serde(borrow)]
    pub(super) opaque: Option<Opaque<'a>>,
}

/// `OpaqueDeviceConfiguration`.
#[derive(Debug, Deserialize)]
pub(super) struct Opaque<'a> {
    #[serde(borrow)]
    pub(super) driver: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) parameters: Option<&'a RawValue>,
}
