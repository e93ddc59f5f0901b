// SPDX-License-Identifier: Apache-2.0
//! Version 1. Frozen: nothing here changes once a release has written it; a change is a new version.
//!
//! Every type is its own copy, so that no change elsewhere changes what is on disk. Fields this version does not know
//! are kept and written back. It has no words for shared devices, settings of GPUs and MPS daemons.

use dra_model::{ClaimRef, ClaimUid, ComputeShare, DeviceName, GpuUuid, MigIdentity, MigUuid, Placement, ShareId};
use serde::{Deserialize, Serialize};

use crate::record::{self, ClaimRecord, ClaimState, RecordedDevice, RecordedHardware, RecordedSharing, Unknown};

/// One claim.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    claim: Claim,
    boot_id: String,
    base: String,
    state: State,
    devices: Vec<Device>,
    #[serde(flatten)]
    unknown: Unknown,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Claim {
    namespace: String,
    name: String,
    uid: ClaimUid,
}

/// `Ready` is `Preparing` followed by the mark.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum State {
    Preparing {
        done: Vec<Step>,
        next: Vec<Step>,
    },
    #[serde(rename_all = "camelCase")]
    Undoing {
        left: Vec<Step>,
        last_error: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Step {
    ClaimSpec,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    request: String,
    pool: String,
    #[serde(rename = "device")]
    name: DeviceName,
    admin_access: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    share_id: Option<ShareId>,
    hardware: Hardware,
    cdi_ids: Vec<String>,
    #[serde(flatten)]
    unknown: Unknown,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Hardware {
    Gpu { uuid: GpuUuid },
    Mig(Mig),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mig {
    parent: GpuUuid,
    profile_id: u32,
    start: u32,
    size: u32,
    compute_start: u32,
    compute_slices: u32,
    compute_of: u32,
    uuid: MigUuid,
    gpu_instance: u32,
    compute_instance: u32,
    profile: String,
}

/// A promise that this version has no words for.
#[derive(Debug)]
pub struct Inexpressible;

/// The device that begins with these bytes, and how many of them it has; for records that are damaged elsewhere.
pub fn device_at(bytes: &[u8]) -> Option<(RecordedDevice, usize)> {
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<Device>();
    let device = values.next()?.ok()?;
    Some((device.into(), values.byte_offset()))
}

/// The claim that begins with these bytes; for records that are damaged elsewhere.
pub fn claim_at(bytes: &[u8]) -> Option<ClaimRef> {
    let claim: Claim = serde_json::Deserializer::from_slice(bytes).into_iter().next()?.ok()?;
    Some(claim.into())
}

impl TryFrom<&ClaimRecord> for Record {
    type Error = Inexpressible;

    fn try_from(record: &ClaimRecord) -> Result<Self, Inexpressible> {
        let ClaimRecord { claim, boot_id, base, devices, state, unknown } = record;
        Ok(Self {
            claim: claim.into(),
            boot_id: boot_id.clone(),
            base: base.clone(),
            state: state.try_into()?,
            devices: devices.iter().map(Device::try_from).collect::<Result<_, _>>()?,
            unknown: unknown.clone(),
        })
    }
}

impl From<Record> for ClaimRecord {
    fn from(record: Record) -> Self {
        let Record { claim, boot_id, base, state, devices, unknown } = record;
        Self {
            claim: claim.into(),
            boot_id,
            base,
            devices: devices.into_iter().map(RecordedDevice::from).collect(),
            state: state.into(),
            unknown,
        }
    }
}

impl From<&ClaimRef> for Claim {
    fn from(claim: &ClaimRef) -> Self {
        Self { namespace: claim.namespace.clone(), name: claim.name.clone(), uid: claim.uid.clone() }
    }
}

impl From<Claim> for ClaimRef {
    fn from(claim: Claim) -> Self {
        let Claim { namespace, name, uid } = claim;
        Self { namespace, name, uid }
    }
}

impl TryFrom<&ClaimState> for State {
    type Error = Inexpressible;

    fn try_from(state: &ClaimState) -> Result<Self, Inexpressible> {
        let steps = |steps: &[record::Step]| steps.iter().map(Step::try_from).collect::<Result<Vec<_>, _>>();
        Ok(match state {
            ClaimState::Preparing { done, next } => Self::Preparing { done: steps(done)?, next: steps(next)? },
            ClaimState::Ready { done } => Self::Preparing { done: steps(done)?, next: Vec::new() },
            ClaimState::Undoing { left, last_error } => {
                Self::Undoing { left: steps(left)?, last_error: last_error.clone() }
            }
        })
    }
}

impl From<State> for ClaimState {
    fn from(state: State) -> Self {
        let steps = |steps: Vec<Step>| steps.into_iter().map(record::Step::from).collect();
        match state {
            State::Preparing { done, next } => Self::Preparing { done: steps(done), next: steps(next) },
            State::Undoing { left, last_error } => Self::Undoing { left: steps(left), last_error },
        }
    }
}

impl TryFrom<&record::Step> for Step {
    type Error = Inexpressible;

    fn try_from(step: &record::Step) -> Result<Self, Inexpressible> {
        match step {
            record::Step::ClaimSpec => Ok(Self::ClaimSpec),
            record::Step::GpuSettings { .. } | record::Step::MpsDaemon { .. } => Err(Inexpressible),
        }
    }
}

impl From<Step> for record::Step {
    fn from(step: Step) -> Self {
        match step {
            Step::ClaimSpec => Self::ClaimSpec,
        }
    }
}

impl TryFrom<&RecordedDevice> for Device {
    type Error = Inexpressible;

    fn try_from(device: &RecordedDevice) -> Result<Self, Inexpressible> {
        let RecordedDevice { request, pool, device, admin_access, share_id, hardware, sharing, cdi_ids, unknown } =
            device;
        match sharing {
            RecordedSharing::Plain => Ok(Self {
                request: request.clone(),
                pool: pool.clone(),
                name: device.clone(),
                admin_access: *admin_access,
                share_id: share_id.clone(),
                hardware: hardware.try_into()?,
                cdi_ids: cdi_ids.clone(),
                unknown: unknown.clone(),
            }),
            RecordedSharing::Exclusive | RecordedSharing::TimeSlicing { .. } | RecordedSharing::Mps { .. } => {
                Err(Inexpressible)
            }
        }
    }
}

impl From<Device> for RecordedDevice {
    fn from(device: Device) -> Self {
        let Device { request, pool, name, admin_access, share_id, hardware, cdi_ids, unknown } = device;
        Self {
            request,
            pool,
            device: name,
            admin_access,
            share_id,
            hardware: hardware.into(),
            sharing: RecordedSharing::Plain,
            cdi_ids,
            unknown,
        }
    }
}

impl TryFrom<&RecordedHardware> for Hardware {
    type Error = Inexpressible;

    fn try_from(hardware: &RecordedHardware) -> Result<Self, Inexpressible> {
        match hardware {
            RecordedHardware::Gpu { uuid } => Ok(Self::Gpu { uuid: uuid.clone() }),
            RecordedHardware::Mig { identity, uuid, gpu_instance, compute_instance, profile } => {
                Ok(Self::Mig(Mig::of(identity, uuid, *gpu_instance, *compute_instance, profile)))
            }
            RecordedHardware::Shared { .. } => Err(Inexpressible),
        }
    }
}

impl From<Hardware> for RecordedHardware {
    fn from(hardware: Hardware) -> Self {
        match hardware {
            Hardware::Gpu { uuid } => Self::Gpu { uuid },
            Hardware::Mig(mig) => mig.into(),
        }
    }
}

impl Mig {
    pub(super) fn of(
        identity: &MigIdentity,
        uuid: &MigUuid,
        gpu_instance: u32,
        compute_instance: u32,
        profile: &str,
    ) -> Self {
        Self {
            parent: identity.parent.clone(),
            profile_id: identity.profile_id,
            start: identity.placement.start,
            size: identity.placement.size,
            compute_start: identity.share.start,
            compute_slices: identity.share.slices,
            compute_of: identity.share.of,
            uuid: uuid.clone(),
            gpu_instance,
            compute_instance,
            profile: profile.to_owned(),
        }
    }
}

impl From<Mig> for RecordedHardware {
    fn from(mig: Mig) -> Self {
        Self::Mig {
            identity: MigIdentity {
                parent: mig.parent,
                profile_id: mig.profile_id,
                placement: Placement { start: mig.start, size: mig.size },
                share: ComputeShare { start: mig.compute_start, slices: mig.compute_slices, of: mig.compute_of },
            },
            uuid: mig.uuid,
            gpu_instance: mig.gpu_instance,
            compute_instance: mig.compute_instance,
            profile: mig.profile,
        }
    }
}
