// SPDX-License-Identifier: Apache-2.0
//! Whether the opaque configurations of a claim are understood and fit the devices they are for. Pure.
//!
//! A configuration without requests is for the devices of its type. One that names a request is for that request's
//! device and must be of its type. One that names the parent of a `firstAvailable` request is, again, for the
//! alternatives of its type, since the scheduler may choose any of them.

use dra_model::config::{self, ConfigError, ConfigKind, DeviceConfig};
use dra_model::{AllocatedDevice, Claim, ClaimConfig, Sharing};

use crate::refusal::Refusal;
use crate::resolve::Target;

/// Refuses the first configuration that is wrong.
pub fn check(claim: &Claim, targets: &[Target]) -> Result<(), Refusal> {
    claim.configs.iter().try_for_each(|config| check_one(claim, targets, config))
}

fn check_one(claim: &Claim, targets: &[Target], config: &ClaimConfig) -> Result<(), Refusal> {
    let (index, from) = (config.index, config.source);
    let refused = |source| Refusal::Config { index, from, source };
    let DeviceConfig { kind, sharing } = config::parse(&config.parameters).map_err(refused)?;
    if sharing != Sharing::Plain {
        return Err(refused(ConfigError::SharingUnsupported));
    }
    let mut named = claim.devices.iter().zip(targets).filter(|(device, _)| names(config, device));
    match named.find_map(|(device, target)| Some((device, mismatch(kind, target)?))) {
        None => Ok(()),
        Some((device, actual)) => Err(Refusal::ConfigKind {
            index,
            from,
            kind,
            request: device.request.clone(),
            device: device.device.clone(),
            actual,
        }),
    }
}

fn names(config: &ClaimConfig, device: &AllocatedDevice) -> bool {
    config.requests.contains(&device.request)
}

fn mismatch(kind: ConfigKind, target: &Target) -> Option<&'static str> {
    match (kind, target) {
        (ConfigKind::Gpu, Target::Gpu(_)) | (ConfigKind::Mig, Target::Mig(_)) => None,
        (ConfigKind::Gpu, Target::Mig(_)) => Some("a MIG device"),
        (ConfigKind::Mig, Target::Gpu(_)) => Some("a whole GPU"),
    }
}
