// SPDX-License-Identifier: Apache-2.0
//! The devices of a prepared claim, for the kubelet and for `status.devices`.

use dra_checkpoint::{ClaimRecord, RecordedDevice, RecordedHardware, RecordedSharing};
use dra_model::{Claim, DaemonId, DeviceName, GpuSettings, Interval, LiveIdentity, ShareId, ShareLimits};

use crate::decide::form::Form;
use crate::decide::refusal::Refusal;
use crate::decide::{configuration, limits, sharing};

/// One allocation result of a prepared claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedDevice {
    /// The request without its subrequest: the name the kubelet expects.
    pub request: String,
    pub pool: String,
    pub device: DeviceName,
    pub admin_access: bool,
    /// Absent where the device has no shares.
    pub share_id: Option<ShareId>,
    /// Fully qualified CDI device names, the claim's own first: the kubelet takes the first one for the identity of the device
    /// in the pod's status, and for one resource what has the same.
    pub cdi_ids: Vec<String>,
    pub identity: LiveIdentity,
    pub sharing: PreparedSharing,
    /// The settings of the GPU that the sharing needs.
    pub settings: GpuSettings,
}

/// How the users of a device share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PreparedSharing {
    /// No setting is changed.
    Plain,
    /// Compute mode `EXCLUSIVE_PROCESS`: one process at a time.
    Exclusive,
    TimeSlicing {
        interval: Interval,
        /// The amounts that the scheduler counted for this share.
        limits: ShareLimits,
    },
    Mps {
        daemon: DaemonId,
        /// The most a client can use of this device, by its environment or by the daemon.
        limits: ShareLimits,
    },
}

/// Why configurations of a prepared claim are ignored for some of its shares.
pub fn ignored(claim: &Claim, devices: &[PreparedDevice]) -> Vec<Refusal> {
    configuration::ignored(claim, devices.iter().map(|device| Form::of_identity(&device.identity)).collect())
}

/// The prepared devices of a record. A partition that is not created is not prepared.
pub(crate) fn of_record(record: &ClaimRecord) -> Vec<PreparedDevice> {
    record.devices.iter().filter_map(|device| of_device(&record.devices, device)).collect()
}

fn of_device(devices: &[RecordedDevice], device: &RecordedDevice) -> Option<PreparedDevice> {
    Some(PreparedDevice {
        request: device.request.split('/').next().unwrap_or_default().to_owned(),
        pool: device.pool.clone(),
        device: device.device.clone(),
        admin_access: device.admin_access,
        share_id: device.share_id.clone(),
        // Records of every version have the base first.
        cdi_ids: device.cdi_ids.iter().rev().cloned().collect(),
        identity: match &device.hardware {
            RecordedHardware::Gpu { uuid } => LiveIdentity::Gpu { uuid: uuid.clone() },
            RecordedHardware::Mig { identity, ids, profile } => {
                LiveIdentity::Mig { identity: identity.clone(), ids: ids.clone(), profile: profile.clone() }
            }
            RecordedHardware::Partition { identity, profile, created } => {
                LiveIdentity::Mig { identity: identity.clone(), ids: created.clone()?, profile: profile.clone() }
            }
            RecordedHardware::Shared { uuid, form } => LiveIdentity::Shared { uuid: uuid.clone(), form: *form },
        },
        sharing: sharing_of(devices, device),
        settings: sharing::settings(&device.hardware, &device.sharing),
    })
}

fn sharing_of(devices: &[RecordedDevice], device: &RecordedDevice) -> PreparedSharing {
    match &device.sharing {
        RecordedSharing::Plain => PreparedSharing::Plain,
        RecordedSharing::Exclusive => PreparedSharing::Exclusive,
        RecordedSharing::TimeSlicing { interval, limits } => {
            PreparedSharing::TimeSlicing { interval: *interval, limits: *limits }
        }
        RecordedSharing::Mps { daemon, config, limits: share } => {
            let memory = share.memory.or_else(|| limits::memory_limit(devices, device));
            let limits = ShareLimits { memory, threads: share.threads.or(config.threads) };
            PreparedSharing::Mps { daemon: daemon.clone(), limits }
        }
    }
}
