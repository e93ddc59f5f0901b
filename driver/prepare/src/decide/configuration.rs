// SPDX-License-Identifier: Apache-2.0
//! What the opaque configurations of a claim request for each of its devices. Pure.
//!
//! Every configuration is read, and refused where it is wrong, even when it counts for no device. Admin access
//! requests no sharing; it gets the capabilities of the driver that the configuration names, as any other device.
//!
//! What a configuration means for a device follows from both:
//!
//! | device | no strategy | `Exclusive` | `TimeSlicing` | `MPS` | `MPS` with `mpsConfig` |
//! |---|---|---|---|---|---|
//! | GPU, `GpuConfig` | applies | applies | applies | applies | applies |
//! | MIG device, `MigDeviceConfig` | applies | refused | applies, `Default` only | applies | applies |
//! | share by `TimeSlicing`, `GpuConfig` | applies | contradicts | applies | contradicts | contradicts |
//! | share by `MPS`, `GpuConfig` | applies | contradicts | contradicts | applies | contradicts |
//! | any device, the other kind | other kind | refused on MIG | other kind | other kind | other kind |
//!
//! `refused` is refused where the configuration is read, for whatever device. For the others it matters how the configuration
//! came to select the device:
//!
//! | the device is selected | other kind | contradicts |
//! |---|---|---|
//! | named by the claim: the request, or the very alternative `request/subrequest` | refused | refused |
//! | named by the claim as the parent of a `firstAvailable` request | does not count | ignored, with an Event |
//! | for all requests, and the device is an alternative of `firstAvailable` | does not count | ignored, with an Event |
//! | for all requests, and it applies to another device of the claim | does not count | ignored, with an Event |
//! | for all requests, and it applies to none | does not count | refused |
//! | by the class, for which the scheduler names the requests | does not count | ignored, with an Event |
//!
//! So a configuration that was written for other devices too never stops the prepare of a share after it was scheduled. When a
//! configuration is ignored, the one that would apply without it applies.

use dra_model::config::{ConfigKind, DeviceConfig};
use dra_model::{
    AllocatedDevice, Capabilities, Capability, Claim, ClaimConfig, ConfigSource, MpsConfig, SharedForm, Sharing, claim,
};

use crate::decide::form::Form;
use crate::decide::refusal::{ConfigField, Refusal};
use crate::decide::target::Target;

/// The sharing that a claim requests for one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedSharing<'a> {
    pub sharing: Sharing,
    /// The configuration that requests it.
    pub config: &'a ClaimConfig,
}

impl RequestedSharing<'_> {
    /// `field` is the path within the parameters.
    pub(crate) fn field(&self, field: &str) -> ConfigField {
        ConfigField { index: self.config.index, from: self.config.source, field: field.to_owned() }
    }
}

/// What a claim requests, one entry for each of its devices, in their order.
#[derive(Debug)]
pub struct Requested<'a> {
    pub sharing: Vec<Option<RequestedSharing<'a>>>,
    pub capabilities: Vec<Capabilities>,
}

/// Refuses the first configuration that is wrong.
pub fn requested<'a>(claim: &'a Claim, targets: &[Target]) -> Result<Requested<'a>, Refusal> {
    let read = Read::new(claim, targets.iter().map(Form::of_target).collect())?;
    let (sharing, capabilities) = read.choices().map(|choice| (choice.requested, choice.capabilities)).unzip();
    Ok(Requested { sharing, capabilities })
}

/// Why configurations of a prepared claim are ignored for some of its shares.
pub(crate) fn ignored(claim: &Claim, forms: Vec<Form>) -> Vec<Refusal> {
    let read = Read::new(claim, forms);
    // A claim with a wrong configuration is not prepared.
    read.map_or_else(|_| Vec::new(), |read| read.choices().flat_map(|choice| choice.ignored).collect())
}

/// The refusal of a configuration that contradicts the form of a share.
pub(crate) fn contradiction(
    device: &AllocatedDevice,
    form: SharedForm,
    requested: &RequestedSharing<'_>,
) -> Option<Refusal> {
    let strategy = match (&requested.sharing, form) {
        (Sharing::Plain, _) | (Sharing::TimeSlicing(_), SharedForm::TimeSlicing) => return None,
        (Sharing::Mps(config), SharedForm::Mps) if *config == MpsConfig::default() => return None,
        (Sharing::Mps(_), SharedForm::Mps) => {
            let (request, device) = (device.request.clone(), device.device.clone());
            return Some(Refusal::LimitsOfShare { field: requested.field("sharing.mpsConfig"), request, device });
        }
        (Sharing::Exclusive, _) => "Exclusive",
        (Sharing::TimeSlicing(_), SharedForm::Mps) => "TimeSlicing",
        (Sharing::Mps(_), SharedForm::TimeSlicing) => "MPS",
    };
    let (field, request) = (requested.field("sharing.strategy"), device.request.clone());
    Some(Refusal::OtherForm { field, strategy, request, device: device.device.clone(), form })
}

/// The configurations of a claim, and the forms of its devices in their order.
struct Read<'a> {
    claim: &'a Claim,
    forms: Vec<Form>,
    configs: Vec<(&'a ClaimConfig, DeviceConfig)>,
}

/// What applies to a device, and what contradicts it and is ignored.
#[derive(Default)]
struct Choice<'a> {
    requested: Option<RequestedSharing<'a>>,
    capabilities: Capabilities,
    ignored: Vec<Refusal>,
}

impl<'a> Read<'a> {
    fn new(claim: &'a Claim, forms: Vec<Form>) -> Result<Self, Refusal> {
        let read = |config| Ok((config, read(claim, &forms, config)?));
        let configs = claim.configs.iter().map(read).collect::<Result<_, Refusal>>()?;
        Ok(Self { claim, forms, configs })
    }

    fn rows(&self) -> impl Iterator<Item = (&'a AllocatedDevice, Form)> {
        self.claim.devices.iter().zip(self.forms.iter().copied())
    }

    fn choices(&self) -> impl Iterator<Item = Choice<'a>> {
        self.rows().map(|(device, form)| self.choose(device, form))
    }

    fn choose(&self, device: &AllocatedDevice, form: Form) -> Choice<'a> {
        let mut fitting: Vec<_> = self.configs.iter().filter(|(_, read)| mismatch(read.kind, form).is_none()).collect();
        let mut ignored = Vec::new();
        while let Some(effective) = claim::effective(fitting.iter().map(|(config, _)| *config), device) {
            let Some(at) = fitting.iter().position(|(config, _)| std::ptr::eq(*config, effective)) else { break };
            let &(config, ref read) = fitting.remove(at);
            let requested = RequestedSharing { sharing: read.sharing.clone(), config };
            let capabilities = read.capabilities.clone();
            if device.admin_access {
                return Choice { requested: None, capabilities, ignored };
            }
            match contradicts(device, form, &requested) {
                Some(refusal) if self.is_for_others(config, read, device) => ignored.push(refusal),
                Some(_) | None => {
                    let requested = (requested.sharing != Sharing::Plain).then_some(requested);
                    return Choice { requested, capabilities, ignored };
                }
            }
        }
        Choice { ignored, ..Choice::default() }
    }

    /// Whether a configuration that reaches a device was written for other devices or alternatives too.
    fn is_for_others(&self, config: &ClaimConfig, read: &DeviceConfig, device: &AllocatedDevice) -> bool {
        if config.requests.is_empty() && config.source == ConfigSource::Claim {
            return is_alternative(device) || self.rows().any(|(other, form)| applies(config, read, other, form));
        }
        !names(config, device)
    }
}

fn is_alternative(device: &AllocatedDevice) -> bool {
    device.request != device.base_request()
}

/// Whether a device can have what the configuration requests.
fn applies(config: &ClaimConfig, read: &DeviceConfig, device: &AllocatedDevice, form: Form) -> bool {
    let requested = RequestedSharing { sharing: read.sharing.clone(), config };
    !device.admin_access && mismatch(read.kind, form).is_none() && contradicts(device, form, &requested).is_none()
}

fn contradicts(device: &AllocatedDevice, form: Form, requested: &RequestedSharing<'_>) -> Option<Refusal> {
    match form {
        Form::Share(form) => contradiction(device, form, requested),
        Form::Whole | Form::Mig => None,
    }
}

fn read(claim: &Claim, forms: &[Form], config: &ClaimConfig) -> Result<DeviceConfig, Refusal> {
    let (index, from) = (config.index, config.source);
    let read = config.parameters.clone().map_err(|source| Refusal::Config { index, from, source })?;
    // Through the sockets of daemons of the host a container could change GPUs of others.
    if from == ConfigSource::Claim && read.capabilities.contains(Capability::Ipc) {
        return Err(Refusal::OnlyOfClass { index, from, capability: Capability::Ipc });
    }
    let mut named = claim.devices.iter().zip(forms).filter(|(device, _)| names(config, device));
    match named.find_map(|(device, form)| Some((device, mismatch(read.kind, *form)?))) {
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

/// Whether the author of the configuration named the device. The scheduler names the requests of a class's configuration.
fn names(config: &ClaimConfig, device: &AllocatedDevice) -> bool {
    config.source == ConfigSource::Claim && config.requests.contains(&device.request)
}

fn mismatch(kind: ConfigKind, form: Form) -> Option<&'static str> {
    match (kind, form) {
        (ConfigKind::Gpu, Form::Whole | Form::Share(_)) | (ConfigKind::Mig, Form::Mig) => None,
        (ConfigKind::Gpu, Form::Mig) => Some("a MIG device"),
        (ConfigKind::Mig, Form::Whole) => Some("a whole GPU"),
        (ConfigKind::Mig, Form::Share(_)) => Some("a share of a whole GPU"),
    }
}
