// SPDX-License-Identifier: Apache-2.0
//! Version 1. Frozen: nothing here changes once a release has written it; a change is a new version.
//!
//! Every type is its own copy, so that no change elsewhere changes what is on disk. Fields this version does not know
//! are kept and written back.

use dra_model::{ClaimRef, ClaimUid, ComputeShare, DeviceName, GpuUuid, MigIdentity, MigUuid, Placement};
use serde::{Deserialize, Serialize};

use crate::record::{self, ClaimRecord, ClaimState, RecordedDevice, RecordedHardware, Unknown};

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
struct Claim {
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
    share_id: Option<String>,
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
struct Mig {
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

/// The device that begins with these bytes, and how many of them it has; for records that are damaged elsewhere.
pub fn device_at(bytes: &[u8]) -> Option<(RecordedDevice, usize)> {
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<Device>();
    let device = values.next()?.ok()?;
    Some((device.into(), values.byte_offset()))
}

/// The claim that begins with these bytes; for records that are damaged elsewhere.
pub fn claim_at(bytes: &[u8]) -> Option<ClaimRef> {
    let Claim { namespace, name, uid } = serde_json::Deserializer::from_slice(bytes).into_iter().next()?.ok()?;
    Some(ClaimRef { namespace, name, uid })
}

impl From<&ClaimRecord> for Record {
    fn from(record: &ClaimRecord) -> Self {
        let ClaimRecord { claim, boot_id, base, devices, state, unknown } = record;
        Self {
            claim: Claim { namespace: claim.namespace.clone(), name: claim.name.clone(), uid: claim.uid.clone() },
            boot_id: boot_id.clone(),
            base: base.clone(),
            state: state.into(),
            devices: devices.iter().map(Device::from).collect(),
            unknown: unknown.clone(),
        }
    }
}

impl From<Record> for ClaimRecord {
    fn from(record: Record) -> Self {
        let Record { claim: Claim { namespace, name, uid }, boot_id, base, state, devices, unknown } = record;
        Self {
            claim: ClaimRef { namespace, name, uid },
            boot_id,
            base,
            devices: devices.into_iter().map(RecordedDevice::from).collect(),
            state: state.into(),
            unknown,
        }
    }
}

impl From<&ClaimState> for State {
    fn from(state: &ClaimState) -> Self {
        let steps = |steps: &[record::Step]| steps.iter().map(Step::from).collect();
        match state {
            ClaimState::Preparing { done, next } => Self::Preparing { done: steps(done), next: steps(next) },
            ClaimState::Ready { done } => Self::Preparing { done: steps(done), next: Vec::new() },
            ClaimState::Undoing { left, last_error } => {
                Self::Undoing { left: steps(left), last_error: last_error.clone() }
            }
        }
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

impl From<&record::Step> for Step {
    fn from(step: &record::Step) -> Self {
        match step {
            record::Step::ClaimSpec => Self::ClaimSpec,
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

impl From<&RecordedDevice> for Device {
    fn from(device: &RecordedDevice) -> Self {
        let RecordedDevice { request, pool, device, admin_access, share_id, hardware, cdi_ids, unknown } = device;
        Self {
            request: request.clone(),
            pool: pool.clone(),
            name: device.clone(),
            admin_access: *admin_access,
            share_id: share_id.clone(),
            hardware: hardware.into(),
            cdi_ids: cdi_ids.clone(),
            unknown: unknown.clone(),
        }
    }
}

impl From<Device> for RecordedDevice {
    fn from(device: Device) -> Self {
        let Device { request, pool, name, admin_access, share_id, hardware, cdi_ids, unknown } = device;
        Self { request, pool, device: name, admin_access, share_id, hardware: hardware.into(), cdi_ids, unknown }
    }
}

impl From<&RecordedHardware> for Hardware {
    fn from(hardware: &RecordedHardware) -> Self {
        match hardware {
            RecordedHardware::Gpu { uuid } => Self::Gpu { uuid: uuid.clone() },
            RecordedHardware::Mig { identity, uuid, gpu_instance, compute_instance, profile } => Self::Mig(Mig {
                parent: identity.parent.clone(),
                profile_id: identity.profile_id,
                start: identity.placement.start,
                size: identity.placement.size,
                compute_start: identity.share.start,
                compute_slices: identity.share.slices,
                compute_of: identity.share.of,
                uuid: uuid.clone(),
                gpu_instance: *gpu_instance,
                compute_instance: *compute_instance,
                profile: profile.clone(),
            }),
        }
    }
}

impl From<Hardware> for RecordedHardware {
    fn from(hardware: Hardware) -> Self {
        match hardware {
            Hardware::Gpu { uuid } => Self::Gpu { uuid },
            Hardware::Mig(mig) => Self::Mig {
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
            },
        }
    }
}
