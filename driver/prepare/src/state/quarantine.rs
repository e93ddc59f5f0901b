// SPDX-License-Identifier: Apache-2.0
//! The hardware that the claim of a quarantined record may hold. Pure.
//!
//! In come what was salvaged from the record, the device names in the claim's CDI spec and the inventory. The hardware counts
//! as held until the claim is prepared again, unprepared or gone: containers of the claim may be running.

use std::collections::BTreeSet;

use dra_checkpoint::{Quarantined, RecordedDevice};
use dra_model::{ClaimUid, DeviceName, GpuUuid, Inventory};

use crate::decide::resolve::resolve;
use crate::decide::target::Target;

/// The claim of a quarantined record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedClaim {
    pub record: Quarantined,
    hardware: Vec<Target>,
    /// Device names without known hardware.
    names: Vec<DeviceName>,
}

impl QuarantinedClaim {
    /// `in_spec` are the device names of the claim's CDI spec, which does not tell admin access.
    pub fn new(record: Quarantined, in_spec: Vec<DeviceName>, inventory: &Inventory) -> Self {
        let mut hardware: Vec<Target> = record.salvaged.hardware.iter().map(Target::of_record).collect();
        let mut names = Vec::new();
        let listed: BTreeSet<_> = record.salvaged.devices.iter().cloned().chain(in_spec).collect();
        for name in listed.into_iter().filter(|name| !record.salvaged.admin.contains(name)) {
            match resolve(inventory, &name) {
                Ok(target) => hardware.push(target),
                Err(_) => names.push(name),
            }
        }
        Self { record, hardware, names }
    }

    /// Whether another claim cannot have this device.
    pub fn holds(&self, device: &RecordedDevice) -> bool {
        let wanted = Target::of_record(&device.hardware);
        self.hardware.iter().any(|held| held.overlaps(&wanted))
            || self.names.iter().any(|held| gpu_part(held) == gpu_part(&device.device))
    }

    /// Whether the claim may rely on the settings of a GPU or on its daemons.
    pub fn may_use(&self, gpu: &GpuUuid) -> bool {
        let hex = gpu.hex();
        let is_of_gpu = |name| gpu_part(name).strip_prefix("gpu-").is_some_and(|digits| hex.starts_with(digits));
        self.hardware.iter().any(|held| held.gpu() == gpu) || self.names.iter().any(is_of_gpu)
    }

    pub fn is_about(&self, uid: &ClaimUid) -> bool {
        self.record.is_about(uid)
    }
}

/// `gpu-<digits>`, the GPU in the name of a device. The placement of a MIG device with nothing but a name is unknown.
fn gpu_part(name: &DeviceName) -> &str {
    let name = name.as_str();
    let end = name.match_indices('-').nth(1).map(|(at, _)| at);
    end.and_then(|end| name.get(..end)).unwrap_or(name)
}
