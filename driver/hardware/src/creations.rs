// SPDX-License-Identifier: Apache-2.0
//! What this driver created on the GPUs of this node. NVML does not know who created an instance or turned MIG mode on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use dra_model::{Gpu, GpuInstance, GpuUuid, MigDevice, MigIdentity, MigMode, MigOrigin, MigUuid};

/// The instances and modes that belong to this driver. Everything else is an administrator's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Creations {
    /// MIG devices that were created, or are being created, with their UUIDs as far as they are known.
    pub mig_devices: BTreeMap<MigIdentity, Option<MigUuid>>,
    /// GPUs whose MIG mode this driver turned on.
    pub mig_modes: BTreeSet<GpuUuid>,
}

/// Knows what this driver created, from its records.
pub trait Ownership: fmt::Debug + Send + Sync {
    /// Of this boot; of every boot where the id of this boot cannot be read.
    fn creations(&self, boot_id: Option<&str>) -> Creations;
}

/// Marks what belongs to this driver.
///
/// A record names a MIG device from before its creation until after its end. So what exists belongs to this driver if the records
/// named it before the GPU was read, or name it after.
pub(crate) fn mark(gpu: &mut Gpu, before: &Creations, after: &Creations) {
    let uuid = gpu.uuid.clone();
    let MigMode::On { devices, gpu_instances, origin, .. } = &mut gpu.mig else { return };
    let is_own_mode = before.mig_modes.contains(&uuid) || after.mig_modes.contains(&uuid);
    *origin = origin_of(is_own_mode);
    for device in devices.iter_mut() {
        device.origin = origin_of(before.owns(device) || after.owns(device));
    }
    for instance in gpu_instances {
        let is_behind = |device: &&MigDevice| device.gpu_instance == instance.id;
        let is_named = before.names(&uuid, instance) || after.names(&uuid, instance);
        // Another MIG device than the recorded one makes its GPU instance foreign too.
        let is_own = devices.iter().filter(is_behind).all(|device| device.origin == MigOrigin::ThisDriver);
        instance.origin = origin_of(is_named && is_own);
    }
}

fn origin_of(is_own: bool) -> MigOrigin {
    if is_own { MigOrigin::ThisDriver } else { MigOrigin::Administrator }
}

impl Creations {
    /// A MIG device with another UUID than the recorded one was created by an administrator at the same placement. The same UUID
    /// proves nothing, because it may be a function of the placement.
    fn owns(&self, device: &MigDevice) -> bool {
        match self.mig_devices.get(&device.identity) {
            None => false,
            Some(None) => true,
            Some(Some(uuid)) => *uuid == device.uuid,
        }
    }

    fn names(&self, gpu: &GpuUuid, instance: &GpuInstance) -> bool {
        let is_it = |mig: &MigIdentity| {
            (&mig.parent, mig.profile_id, mig.placement) == (gpu, instance.profile_id, instance.placement)
        };
        self.mig_devices.keys().any(is_it)
    }
}
