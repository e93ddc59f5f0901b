// SPDX-License-Identifier: Apache-2.0
//! A ResourceClaim as far as this driver is concerned: results and configuration of other drivers are gone.

use std::fmt;

use crate::ids::{ClaimUid, DeviceName, ShareId};

/// Which claim; displayed as `namespace/name`, which is what users know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimRef {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID; a claim of the same name with another UID is another claim.
    pub uid: ClaimUid,
}

impl fmt::Display for ClaimRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// An allocated claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Which claim.
    pub reference: ClaimRef,
    /// One entry per allocation result of this driver, in the order of the allocation.
    pub devices: Vec<AllocatedDevice>,
    /// Configuration for this driver, lowest precedence first: classes, then the claim (KEP-4381).
    pub configs: Vec<ClaimConfig>,
}

/// One allocation result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllocatedDevice {
    /// `request`, or `request/subrequest` for a `firstAvailable` request.
    pub request: String,
    /// Pool, which for this driver is a node name.
    pub pool: String,
    /// Device in the pool.
    pub device: DeviceName,
    /// Access for monitoring: takes no ownership and is not limited by others.
    pub admin_access: bool,
    /// Set when the device may be allocated many times.
    pub share_id: Option<ShareId>,
}

impl AllocatedDevice {
    /// The request without its subrequest, which is the name pods and the kubelet use.
    pub fn base_request(&self) -> &str {
        self.request.split('/').next().unwrap_or(&self.request)
    }
}

/// One opaque configuration for this driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimConfig {
    /// Where it was written.
    pub source: ConfigSource,
    /// Position within `status.allocation.devices.config`, which error messages name.
    pub index: usize,
    /// Requests (or `request/subrequest`) it is for; empty means all.
    pub requests: Vec<String>,
    /// The parameters as the user wrote them.
    pub parameters: serde_json::Value,
}

/// Where a configuration was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigSource {
    /// In the DeviceClass, by an administrator.
    Class,
    /// In the ResourceClaim, by its user.
    Claim,
}

impl ClaimConfig {
    /// Whether this configuration is for an allocation result: `req` reaches `req/sub` as well.
    pub fn applies_to(&self, device: &AllocatedDevice) -> bool {
        self.requests.is_empty()
            || self.requests.iter().any(|request| *request == device.request || request == device.base_request())
    }
}
