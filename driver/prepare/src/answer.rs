// SPDX-License-Identifier: Apache-2.0
//! What a prepared claim got, for the kubelet and for `status.devices`.

use dra_checkpoint::{ClaimRecord, RecordedDevice, RecordedHardware, RecordedSharing};
use dra_model::{DaemonId, DeviceName, GpuSettings, Interval, LiveIdentity, ShareId, ShareLimits};

use crate::{limits, sharing};

/// One allocation result, ready for use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedDevice {
    /// The request without its subrequest: the name the kubelet expects.
    pub request: String,
    /// Pool.
    pub pool: String,
    /// Device in the pool.
    pub device: DeviceName,
    /// Access for monitoring.
    pub admin_access: bool,
    /// The share, where the device has shares.
    pub share_id: Option<ShareId>,
    /// Fully qualified CDI device names, the claim's own first: the kubelet takes the first one for the identity of the device
    /// in the pod's status, and for one resource what has the same.
    pub cdi_ids: Vec<String>,
    /// What it is right now.
    pub identity: LiveIdentity,
    /// How its users share it.
    pub sharing: PreparedSharing,
    /// What that needs of the GPU.
    pub settings: GpuSettings,
}

/// How the users of a device share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PreparedSharing {
    /// As the administrator left the device.
    Plain,
    /// One process at a time.
    Exclusive,
    /// By turns.
    TimeSlicing {
        /// How long they are.
        interval: Interval,
        /// What the scheduler counted for this share.
        limits: ShareLimits,
    },
    /// By an MPS daemon.
    Mps {
        /// Which.
        daemon: DaemonId,
        /// What a client may use of this device at most, by its environment or by the daemon.
        limits: ShareLimits,
    },
}

/// The answer a record stands for.
pub(crate) fn of_record(record: &ClaimRecord) -> Vec<PreparedDevice> {
    record.devices.iter().map(|device| of_device(&record.devices, device)).collect()
}

fn of_device(devices: &[RecordedDevice], device: &RecordedDevice) -> PreparedDevice {
    PreparedDevice {
        request: device.request.split('/').next().unwrap_or_default().to_owned(),
        pool: device.pool.clone(),
        device: device.device.clone(),
        admin_access: device.admin_access,
        share_id: device.share_id.clone(),
        // Records have the base first, those of earlier versions too.
        cdi_ids: device.cdi_ids.iter().rev().cloned().collect(),
        identity: match &device.hardware {
            RecordedHardware::Gpu { uuid } => LiveIdentity::Gpu { uuid: uuid.clone() },
            RecordedHardware::Mig { identity, uuid, gpu_instance, compute_instance, profile } => LiveIdentity::Mig {
                uuid: uuid.clone(),
                parent: identity.parent.clone(),
                gpu_instance: *gpu_instance,
                compute_instance: *compute_instance,
                profile: profile.clone(),
            },
            RecordedHardware::Shared { uuid, form } => LiveIdentity::Shared { uuid: uuid.clone(), form: *form },
        },
        sharing: sharing_of(devices, device),
        settings: sharing::settings(&device.hardware, &device.sharing),
    }
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
