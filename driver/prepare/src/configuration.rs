// SPDX-License-Identifier: Apache-2.0
//! What the opaque configurations of a claim wish for each of its devices. Pure.
//!
//! Every configuration is read, and refused where it is wrong, even when it counts for no device. One without requests is
//! for the devices of its type. One that names a request is for that request's device and must be of its type. One that
//! names the parent of a `firstAvailable` request is, again, for the alternatives of its type, since the scheduler may
//! choose any of them. Admin access looks on and wishes nothing.

use dra_model::config::{self, ConfigKind, DeviceConfig};
use dra_model::{AllocatedDevice, Claim, ClaimConfig, Sharing, claim};

use crate::refusal::{ConfigField, Refusal};
use crate::resolve::Target;

/// What a claim wishes for one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish<'a> {
    /// How its users share it.
    pub sharing: Sharing,
    /// Where that was written.
    pub config: &'a ClaimConfig,
}

impl Wish<'_> {
    /// A field of the configuration, by its path within the parameters.
    pub(crate) fn field(&self, field: &str) -> ConfigField {
        ConfigField { index: self.config.index, from: self.config.source, field: field.to_owned() }
    }
}

/// What is wished for the devices, in their order, where anything is; refuses the first configuration that is wrong.
pub fn wishes<'a>(claim: &'a Claim, targets: &[Target]) -> Result<Vec<Option<Wish<'a>>>, Refusal> {
    let read = |config| Ok((config, read(claim, targets, config)?));
    let configs: Vec<(&ClaimConfig, DeviceConfig)> = claim.configs.iter().map(read).collect::<Result<_, _>>()?;
    let pairs = claim.devices.iter().zip(targets);
    Ok(pairs.map(|(device, target)| wish(&configs, device, target)).collect())
}

fn wish<'a>(
    configs: &[(&'a ClaimConfig, DeviceConfig)],
    device: &AllocatedDevice,
    target: &Target,
) -> Option<Wish<'a>> {
    let fitting = || configs.iter().filter(|(_, read)| !device.admin_access && mismatch(read.kind, target).is_none());
    let counts = claim::effective(fitting().map(|(config, _)| *config), device)?;
    let (config, read) = fitting().find(|(config, _)| std::ptr::eq(*config, counts))?;
    (read.sharing != Sharing::Plain).then(|| Wish { sharing: read.sharing.clone(), config })
}

fn read(claim: &Claim, targets: &[Target], config: &ClaimConfig) -> Result<DeviceConfig, Refusal> {
    let (index, from) = (config.index, config.source);
    let read = config::parse(&config.parameters).map_err(|source| Refusal::Config { index, from, source })?;
    let mut named = claim.devices.iter().zip(targets).filter(|(device, _)| names(config, device));
    match named.find_map(|(device, target)| Some((device, mismatch(read.kind, target)?))) {
        None => Ok(read),
        Some((device, actual)) => Err(Refusal::ConfigKind {
            index,
            from,
            kind: read.kind,
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
        (ConfigKind::Gpu, Target::Gpu(_) | Target::Shared(..)) | (ConfigKind::Mig, Target::Mig(_)) => None,
        (ConfigKind::Gpu, Target::Mig(_)) => Some("a MIG device"),
        (ConfigKind::Mig, Target::Gpu(_)) => Some("a whole GPU"),
        (ConfigKind::Mig, Target::Shared(..)) => Some("a share of a whole GPU"),
    }
}
