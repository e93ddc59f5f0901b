// SPDX-License-Identifier: Apache-2.0
//! Compares what the scheduler allocated, what the driver reports in the status, and what the node has: the record of the claim, its
//! CDI specs and the hardware. Pure; `verifying` reads.

mod compare;
mod table;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use compare::compare;
pub use table::table;

/// A claim as the API server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenClaim {
    /// `namespace/name`.
    pub label: String,
    pub uid: String,
    pub is_allocated: bool,
    pub results: Vec<Key>,
    pub statuses: Vec<SeenStatus>,
}

/// What identifies a device of a claim.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub request: String,
    pub pool: String,
    pub device: String,
    pub share_id: Option<String>,
}

/// An entry of `status.devices`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenStatus {
    pub pool: String,
    pub device: String,
    pub share_id: Option<String>,
    pub uuid: Option<String>,
}

/// The answer of `verify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// `pod NAMESPACE/NAME` or `claim NAMESPACE/NAME`.
    pub subject: String,
    pub agrees: bool,
    pub claims: Vec<VerifiedClaim>,
}

/// One claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifiedClaim {
    pub claim: String,
    pub node: String,
    pub devices: Vec<VerifiedDevice>,
    pub differences: Vec<Difference>,
}

/// One allocated device, and whether each source agrees with the others about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifiedDevice {
    pub request: String,
    pub device: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share_id: Option<String>,
    pub uuid: Option<String>,
    pub status: Mark,
    pub record: Mark,
    pub cdi_spec: Mark,
    pub nvml: Mark,
}

/// Whether a source agrees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Mark {
    Agrees,
    Differs,
    Missing,
}

impl Mark {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agrees => "ok",
            Self::Differs => "differs",
            Self::Missing => "missing",
        }
    }
}

/// What does not agree, and what the reader can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    pub what: String,
    pub next_step: String,
}

/// Reads a claim, as far as it is about a driver.
pub fn claim(label: &str, object: &Value, driver: &str) -> Result<SeenClaim, serde_json::Error> {
    let RawClaim { metadata, status } = RawClaim::deserialize(object)?;
    let is_allocated = status.allocation.is_some();
    let results = status.allocation.into_iter().flat_map(|allocation| allocation.devices.results);
    let results = results.filter(|result| result.driver == driver).map(|result| Key {
        request: result.request,
        pool: result.pool,
        device: result.device,
        share_id: result.share_id,
    });
    let statuses = status.devices.into_iter().filter(|status| status.driver == driver).map(|status| SeenStatus {
        pool: status.pool,
        device: status.device,
        share_id: status.share_id,
        uuid: status.data.get("uuid").and_then(Value::as_str).map(str::to_owned),
    });
    Ok(SeenClaim {
        label: label.to_owned(),
        uid: metadata.uid,
        is_allocated,
        results: results.collect(),
        statuses: statuses.collect(),
    })
}

#[derive(Deserialize)]
struct RawClaim {
    metadata: RawMetadata,
    #[serde(default)]
    status: RawStatus,
}

#[derive(Deserialize)]
struct RawMetadata {
    uid: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawStatus {
    allocation: Option<RawAllocation>,
    devices: Vec<RawDeviceStatus>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawAllocation {
    devices: RawResults,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawResults {
    results: Vec<RawResult>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawResult {
    request: String,
    driver: String,
    pool: String,
    device: String,
    #[serde(rename = "shareID")]
    share_id: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawDeviceStatus {
    driver: String,
    pool: String,
    device: String,
    #[serde(rename = "shareID")]
    share_id: Option<String>,
    data: Value,
}
