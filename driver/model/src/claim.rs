// SPDX-License-Identifier: Apache-2.0
//! The part of a ResourceClaim for this driver, without results and configuration of other drivers.

use std::fmt;

use crate::config::{ConfigError, DeviceConfig};
use crate::ids::{ClaimUid, DeviceName, ShareId};
use crate::sharing::ShareLimits;

/// The identity of a claim, displayed as `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimRef {
    pub namespace: String,
    pub name: String,
    /// A claim of the same name with another UID is another claim.
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
    /// Access for monitoring: reserves nothing and is not limited by other claims.
    pub admin_access: bool,
    /// Set when the device may be allocated many times.
    pub share_id: Option<ShareId>,
    /// The capacity that the scheduler counted for this share; empty for a device that is allocated as a whole.
    pub consumed: ShareLimits,
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
    pub source: ConfigSource,
    /// Position within `status.allocation.devices.config`, which error messages name.
    pub index: usize,
    /// Requests (or `request/subrequest`) that the configuration applies to; empty means all.
    pub requests: Vec<String>,
    /// The parsed parameters. Their text is not stored, because it may be large.
    pub parameters: Result<DeviceConfig, ConfigError>,
}

/// The object with the configuration, lowest precedence first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigSource {
    /// DeviceClass.
    Class,
    /// ResourceClaim.
    Claim,
}

impl ClaimConfig {
    /// How specific this configuration is for an allocation result: 2 if it names the alternative `req/sub`, 1 if it names the
    /// request `req`, 0 if it names no request. Nothing if it does not apply.
    pub fn specificity(&self, device: &AllocatedDevice) -> Option<u8> {
        let names = |request: &str| self.requests.iter().any(|named| named == request);
        if names(&device.request) {
            // Also a request without alternatives.
            Some(2)
        } else if names(device.base_request()) {
            Some(1)
        } else {
            self.requests.is_empty().then_some(0)
        }
    }
}

/// The one configuration that applies to an allocation result: the claim precedes the class, the more specific configuration
/// precedes the general one, the later precedes the earlier. Configurations are not merged.
pub fn effective<'a>(
    configs: impl IntoIterator<Item = &'a ClaimConfig>,
    device: &AllocatedDevice,
) -> Option<&'a ClaimConfig> {
    let ranked = configs.into_iter().filter_map(|config| Some((config.specificity(device)?, config)));
    ranked.max_by_key(|(specificity, config)| (config.source, *specificity, config.index)).map(|(_, config)| config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(source: ConfigSource, index: usize, requests: &[&str]) -> ClaimConfig {
        let requests = requests.iter().map(|&request| request.to_owned()).collect();
        ClaimConfig { source, index, requests, parameters: Err(ConfigError::NotAnObject) }
    }

    fn allocated(request: &str) -> AllocatedDevice {
        AllocatedDevice {
            request: request.to_owned(),
            pool: "node-a".to_owned(),
            device: "gpu-12345678".parse().unwrap(),
            admin_access: false,
            share_id: None,
            consumed: ShareLimits::default(),
        }
    }

    #[test]
    fn the_claim_goes_before_the_class_the_closer_before_the_general_and_the_later_before_the_earlier() {
        use ConfigSource::{Claim, Class};
        for (request, given, expect) in [
            ("r", &[][..], None),
            ("r", &[config(Class, 0, &[])], Some(0)),
            ("r", &[config(Class, 0, &["r"]), config(Claim, 1, &[])], Some(1)),
            ("r", &[config(Claim, 0, &["r"]), config(Claim, 1, &[])], Some(0)),
            ("r", &[config(Claim, 0, &["r"]), config(Claim, 1, &["q", "r"])], Some(1)),
            ("r", &[config(Class, 0, &["r"]), config(Claim, 1, &["q"])], Some(0)),
            ("r", &[config(Claim, 0, &["r/s"])], None),
            ("r/s", &[config(Claim, 0, &["r/s"]), config(Claim, 1, &["r"]), config(Claim, 2, &[])], Some(0)),
            ("r/s", &[config(Claim, 0, &["r"]), config(Claim, 1, &[])], Some(0)),
            ("r/s", &[config(Claim, 0, &["r/t"]), config(Class, 1, &["r/s"])], Some(1)),
        ] {
            let found = effective(given, &allocated(request)).map(|config| config.index);
            assert_eq!(found, expect, "{request} {given:?}");
        }
    }
}
