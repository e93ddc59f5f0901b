// SPDX-License-Identifier: Apache-2.0
//! What a claim holds whose record was set aside. Pure.
//!
//! In come the remains of the record, the device names in the claim's spec and the inventory; out goes what counts as
//! held until the claim is prepared again, unprepared or gone. Containers of it may be running.

use std::collections::BTreeSet;

use dra_checkpoint::{Quarantined, RecordedDevice, RecordedHardware};
use dra_model::{ClaimRef, ClaimUid, DeviceName, GpuUuid, Inventory};

use crate::holder::{DoubtfulHolder, Holder};
use crate::refusal::Refusal;
use crate::resolve::{Target, resolve};

/// One such claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    /// The record that was set aside.
    pub record: Quarantined,
    hardware: Vec<Target>,
    /// Names of which the hardware is not known.
    names: Vec<DeviceName>,
}

impl Doubt {
    /// What is held. `in_spec` is what the claim's spec names; admin access does not tell itself apart there.
    pub fn new(record: Quarantined, in_spec: Vec<DeviceName>, inventory: &Inventory) -> Self {
        let mut hardware: Vec<Target> = record.salvaged.hardware.iter().map(target_of).collect();
        let mut names = Vec::new();
        let told: BTreeSet<_> = record.salvaged.devices.iter().cloned().chain(in_spec).collect();
        for name in told.into_iter().filter(|name| !record.salvaged.admin.contains(name)) {
            match resolve(inventory, &name) {
                Ok(target) => hardware.push(target),
                Err(_) => names.push(name),
            }
        }
        Self { record, hardware, names }
    }

    /// Whether another claim cannot have this device.
    pub fn holds(&self, device: &RecordedDevice) -> bool {
        let wanted = target_of(&device.hardware);
        self.hardware.iter().any(|held| held.overlaps(&wanted))
            || self.names.iter().any(|held| gpu_part(held) == gpu_part(&device.device))
    }

    /// Whether the claim may rely on the settings of a GPU or on its daemons.
    pub fn may_use(&self, gpu: &GpuUuid) -> bool {
        let hex = gpu.hex();
        let is_of_gpu = |name| gpu_part(name).strip_prefix("gpu-").is_some_and(|digits| hex.starts_with(digits));
        self.hardware.iter().any(|held| held.gpu() == gpu) || self.names.iter().any(is_of_gpu)
    }

    /// Why another claim cannot have this device.
    pub fn refusal(&self, refused: &ClaimRef, device: &RecordedDevice) -> Refusal {
        let (device, path) = (device.device.clone(), self.record.path.clone());
        let holder = match (&self.record.salvaged.claim, &self.record.uid) {
            (Some(claim), _) => DoubtfulHolder::Claim(Holder::new(claim, refused)),
            (None, Some(uid)) => DoubtfulHolder::Uid(uid.clone()),
            (None, None) => DoubtfulHolder::Unknown,
        };
        Refusal::HeldInDoubt { device, holder, path }
    }

    /// Whether it is this claim itself.
    pub fn is_about(&self, uid: &ClaimUid) -> bool {
        self.record.is_about(uid)
    }
}

pub(crate) fn target_of(hardware: &RecordedHardware) -> Target {
    match hardware {
        RecordedHardware::Gpu { uuid } => Target::Gpu(uuid.clone()),
        RecordedHardware::Shared { uuid, form } => Target::Shared(uuid.clone(), *form),
        RecordedHardware::Mig { identity, .. } => Target::Mig(identity.clone()),
    }
}

/// The GPU in the name of a device, `gpu-<digits>`. A MIG device of which only the name is left may be anywhere on it.
fn gpu_part(name: &DeviceName) -> &str {
    let name = name.as_str();
    let end = name.match_indices('-').nth(1).map(|(at, _)| at);
    end.and_then(|end| name.get(..end)).unwrap_or(name)
}
