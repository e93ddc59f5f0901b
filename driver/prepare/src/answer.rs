// SPDX-License-Identifier: Apache-2.0
//! What a prepared claim got, for the kubelet and for `status.devices`.

use dra_checkpoint::{ClaimRecord, RecordedDevice, RecordedHardware};
use dra_model::{DeviceName, LiveIdentity, ShareId};

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
    /// Fully qualified CDI device names, base first.
    pub cdi_ids: Vec<String>,
    /// What it is right now.
    pub identity: LiveIdentity,
}

/// The answer a record stands for.
pub(crate) fn of_record(record: &ClaimRecord) -> Vec<PreparedDevice> {
    record.devices.iter().map(of_device).collect()
}

fn of_device(device: &RecordedDevice) -> PreparedDevice {
    PreparedDevice {
        request: device.request.split('/').next().unwrap_or_default().to_owned(),
        pool: device.pool.clone(),
        device: device.device.clone(),
        admin_access: device.admin_access,
        share_id: device.share_id.clone(),
        cdi_ids: device.cdi_ids.clone(),
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
    }
}
