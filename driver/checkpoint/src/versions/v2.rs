// SPDX-License-Identifier: Apache-2.0
//! Version 2: version 1 and how devices are shared. Frozen, and read only: no program writes it any more.
//!
//! Every type is a copy of its own or in [`super::words`], so that no change elsewhere changes the format. Fields this
//! version does not know become [`ClaimRecord::unknown`] and are written back.

use dra_model::{DaemonId, DeviceName, GpuUuid, ShareId};
use serde::Deserialize;

use super::words::{self, Claim, Interval, Limits, Mig, Settings, SharedForm};
use crate::record::{self, ClaimRecord, ClaimState, RecordedDevice, RecordedHardware, RecordedSharing, Unknown};

#[derive(Debug, Deserialize)]
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
#[derive(Debug, Deserialize)]
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

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Step {
    ClaimSpec,
    GpuSettings { gpu: GpuUuid, wanted: Settings },
    MpsDaemon { id: DaemonId, gpus: Vec<GpuUuid> },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    request: String,
    pool: String,
    #[serde(rename = "device")]
    name: DeviceName,
    admin_access: bool,
    share_id: Option<ShareId>,
    hardware: Hardware,
    sharing: Option<Sharing>,
    cdi_ids: Vec<String>,
    #[serde(flatten)]
    unknown: Unknown,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Hardware {
    Gpu { uuid: GpuUuid },
    Mig(Mig),
    Shared { uuid: GpuUuid, form: SharedForm },
}

/// Absent for a device with its original settings.
#[derive(Debug, Deserialize)]
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

impl From<State> for ClaimState {
    fn from(state: State) -> Self {
        let steps = |steps: Vec<Step>| steps.into_iter().map(record::Step::from).collect();
        match state {
            State::Preparing { done, next } => Self::Preparing { done: steps(done), next: steps(next) },
            State::Undoing { left, last_error } => Self::Undoing { left: steps(left), last_error },
        }
    }
}

impl From<Step> for record::Step {
    fn from(step: Step) -> Self {
        match step {
            Step::ClaimSpec => Self::ClaimSpec,
            Step::GpuSettings { gpu, wanted } => Self::GpuSettings { gpu, wanted: wanted.into() },
            Step::MpsDaemon { id, gpus } => Self::MpsDaemon { id, gpus },
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

impl From<Hardware> for RecordedHardware {
    fn from(hardware: Hardware) -> Self {
        match hardware {
            Hardware::Gpu { uuid } => Self::Gpu { uuid },
            Hardware::Mig(mig) => mig.into(),
            Hardware::Shared { uuid, form } => Self::Shared { uuid, form: form.into() },
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
