// SPDX-License-Identifier: Apache-2.0
//! Version 3, the current one: version 2 and partitions. Frozen: a change is a new version.
//!
//! Every type is a copy of its own or in [`super::words`], so that no change elsewhere changes the format. Fields this
//! version does not know become [`ClaimRecord::unknown`] and are written back.

use dra_model::{DaemonId, DeviceName, GpuUuid, MigIds, MigUuid, ShareId};
use serde::{Deserialize, Serialize};

use super::words::{self, Claim, Instance, Interval, Limits, Mig, Settings, SharedForm};
use crate::record::{self, ClaimRecord, ClaimState, RecordedDevice, RecordedHardware, RecordedSharing, Unknown};

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
    GpuSettings { gpu: GpuUuid, wanted: Settings },
    MpsDaemon { id: DaemonId, gpus: Vec<GpuUuid> },
    Partition(Instance),
}

/// Present when the partition is created.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ids {
    uuid: MigUuid,
    gpu_instance: u32,
    compute_instance: u32,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    sharing: Option<Sharing>,
    cdi_ids: Vec<String>,
    #[serde(flatten)]
    unknown: Unknown,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Hardware {
    Gpu {
        uuid: GpuUuid,
    },
    Mig(Mig),
    Shared {
        uuid: GpuUuid,
        form: SharedForm,
    },
    Partition {
        #[serde(flatten)]
        instance: Instance,
        profile: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        created: Option<Ids>,
    },
}

/// Absent for a device with its original settings.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Sharing {
    Exclusive,
    TimeSlicing { interval: Interval, limits: Limits },
    Mps { daemon: DaemonId, config: words::Mps, limits: Limits },
}

/// See [`super::device_at`].
pub fn device_at(bytes: &[u8]) -> Option<(RecordedDevice, usize)> {
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<Device>();
    let device = values.next()?.ok()?;
    Some((device.into(), values.byte_offset()))
}

impl From<&ClaimRecord> for Record {
    fn from(record: &ClaimRecord) -> Self {
        let ClaimRecord { claim, boot_id, base, devices, state, unknown } = record;
        Self {
            claim: claim.into(),
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
            record::Step::GpuSettings { gpu, wanted } => {
                Self::GpuSettings { gpu: gpu.clone(), wanted: (*wanted).into() }
            }
            record::Step::MpsDaemon { id, gpus } => Self::MpsDaemon { id: id.clone(), gpus: gpus.clone() },
            record::Step::Partition { identity } => Self::Partition(identity.into()),
        }
    }
}

impl From<Step> for record::Step {
    fn from(step: Step) -> Self {
        match step {
            Step::ClaimSpec => Self::ClaimSpec,
            Step::GpuSettings { gpu, wanted } => Self::GpuSettings { gpu, wanted: wanted.into() },
            Step::MpsDaemon { id, gpus } => Self::MpsDaemon { id, gpus },
            Step::Partition(instance) => Self::Partition { identity: instance.into() },
        }
    }
}

impl From<&RecordedDevice> for Device {
    fn from(device: &RecordedDevice) -> Self {
        let RecordedDevice { request, pool, device, admin_access, share_id, hardware, sharing, cdi_ids, unknown } =
            device;
        Self {
            request: request.clone(),
            pool: pool.clone(),
            name: device.clone(),
            admin_access: *admin_access,
            share_id: share_id.clone(),
            hardware: hardware.into(),
            sharing: Sharing::of(sharing),
            cdi_ids: cdi_ids.clone(),
            unknown: unknown.clone(),
        }
    }
}

impl From<Device> for RecordedDevice {
    fn from(device: Device) -> Self {
        let Device { request, pool, name, admin_access, share_id, hardware, sharing, cdi_ids, unknown } = device;
        Self {
            request,
            pool,
            device: name,
            admin_access,
            share_id,
            hardware: hardware.into(),
            sharing: sharing.map_or(RecordedSharing::Plain, RecordedSharing::from),
            cdi_ids,
            unknown,
        }
    }
}

impl From<&RecordedHardware> for Hardware {
    fn from(hardware: &RecordedHardware) -> Self {
        match hardware {
            RecordedHardware::Gpu { uuid } => Self::Gpu { uuid: uuid.clone() },
            RecordedHardware::Mig { identity, ids, profile } => Self::Mig(Mig::of(identity, ids, profile)),
            RecordedHardware::Shared { uuid, form } => Self::Shared { uuid: uuid.clone(), form: (*form).into() },
            RecordedHardware::Partition { identity, profile, created } => Self::Partition {
                instance: identity.into(),
                profile: profile.clone(),
                created: created.as_ref().map(Ids::from),
            },
        }
    }
}

impl From<Hardware> for RecordedHardware {
    fn from(hardware: Hardware) -> Self {
        match hardware {
            Hardware::Gpu { uuid } => Self::Gpu { uuid },
            Hardware::Mig(mig) => mig.into(),
            Hardware::Shared { uuid, form } => Self::Shared { uuid, form: form.into() },
            Hardware::Partition { instance, profile, created } => {
                Self::Partition { identity: instance.into(), profile, created: created.map(MigIds::from) }
            }
        }
    }
}

impl From<&MigIds> for Ids {
    fn from(ids: &MigIds) -> Self {
        let MigIds { uuid, gpu_instance, compute_instance } = ids.clone();
        Self { uuid, gpu_instance, compute_instance }
    }
}

impl From<Ids> for MigIds {
    fn from(ids: Ids) -> Self {
        let Ids { uuid, gpu_instance, compute_instance } = ids;
        Self { uuid, gpu_instance, compute_instance }
    }
}

impl Sharing {
    fn of(sharing: &RecordedSharing) -> Option<Self> {
        match sharing {
            RecordedSharing::Plain => None,
            RecordedSharing::Exclusive => Some(Self::Exclusive),
            RecordedSharing::TimeSlicing { interval, limits } => {
                Some(Self::TimeSlicing { interval: (*interval).into(), limits: (*limits).into() })
            }
            RecordedSharing::Mps { daemon, config, limits } => {
                Some(Self::Mps { daemon: daemon.clone(), config: config.clone().into(), limits: (*limits).into() })
            }
        }
    }
}

impl From<Sharing> for RecordedSharing {
    fn from(sharing: Sharing) -> Self {
        match sharing {
            Sharing::Exclusive => Self::Exclusive,
            Sharing::TimeSlicing { interval, limits } => {
                Self::TimeSlicing { interval: interval.into(), limits: limits.into() }
            }
            Sharing::Mps { daemon, config, limits } => {
                Self::Mps { daemon, config: config.into(), limits: limits.into() }
            }
        }
    }
}
