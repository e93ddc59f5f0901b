// SPDX-License-Identifier: Apache-2.0
//! The spec of an MPS daemon, and the memory limits it is started with. Pure.
//!
//! A limit names a device by its UUID or by its index among the sorted UUIDs of the daemon's devices. The limit by UUID
//! precedes the limit by index, and both precede the limit for all devices. The daemon of shares has no limits: they could
//! only lower those that a share has by its environment.

use std::collections::{BTreeMap, BTreeSet};

use dra_checkpoint::{RecordedDevice, RecordedHardware, RecordedSharing};
use dra_hardware::{DaemonSpec, MultiUser};
use dra_model::{Bytes, DaemonId, DeviceKey, Gpu, GpuUuid, MpsConfig};

use crate::decide::configuration::RequestedSharing;
use crate::decide::refusal::Refusal;

const MEMORY: &str = "sharing.mpsConfig.defaultPinnedDeviceMemoryLimit";

const PER_DEVICE: &str = "sharing.mpsConfig.defaultPerDevicePinnedMemoryLimit";

/// Instead of the UUID of a partition that is not created yet.
const NOT_CREATED: &str = "the MIG device";

/// Refuses limits for devices that their daemon does not have, and limits beyond the memory of their device.
pub(crate) fn check(
    devices: &[RecordedDevice],
    sharing: &[Option<RequestedSharing<'_>>],
    gpus: &BTreeMap<GpuUuid, Gpu>,
) -> Result<(), Refusal> {
    for (device, requested) in devices.iter().zip(sharing) {
        let (RecordedSharing::Mps { daemon, config, .. }, Some(requested)) = (&device.sharing, requested) else {
            continue;
        };
        let members = members(devices, daemon);
        let (at, uuid) = (index(&members, device), uuid(&device.hardware));
        if let Some(key) = config.per_device.keys().find(|key| names_none(key, &members)) {
            let indexed = members.iter().enumerate().map(|(at, uuid)| format!("{at} = {uuid}"));
            let devices = indexed.collect::<Vec<_>>().join(", ");
            return Err(Refusal::LimitOfNothing { field: requested.field(&format!("{PER_DEVICE}.{key}")), devices });
        }
        let (Some((key, limit)), Some(memory)) = (limit(config, at, uuid), memory(&device.hardware, gpus)) else {
            continue;
        };
        if limit > memory {
            let field =
                key.map_or_else(|| requested.field(MEMORY), |key| requested.field(&format!("{PER_DEVICE}.{key}")));
            return Err(Refusal::LimitTooLarge { field, limit, device: uuid.to_owned(), memory });
        }
    }
    Ok(())
}

/// The spec of the daemon of these devices.
pub(crate) fn daemon(devices: &[RecordedDevice], id: &DaemonId) -> DaemonSpec {
    let config = devices.iter().find_map(|device| match (&device.hardware, &device.sharing) {
        (RecordedHardware::Shared { .. }, _) => None,
        (_, RecordedSharing::Mps { daemon, config, .. }) if daemon == id => Some(config),
        _ => None,
    });
    let devices: Vec<String> = members(devices, id).into_iter().map(str::to_owned).collect();
    let Some(config) = config else {
        // The daemon of shares serves every user.
        let (multi_user, memory) = (MultiUser::IfKnown, BTreeMap::new());
        return DaemonSpec { id: id.clone(), devices, multi_user, threads: None, memory };
    };
    let limits = (0_u32..).zip(&devices).filter_map(|(at, uuid)| Some((at, limit(config, at, uuid)?.1)));
    let memory = limits.collect();
    let multi_user = if config.multi_user { MultiUser::On } else { MultiUser::Off };
    DaemonSpec { id: id.clone(), devices, multi_user, threads: config.threads, memory }
}

/// The memory limit of one device of a daemon.
pub(crate) fn memory_limit(devices: &[RecordedDevice], device: &RecordedDevice) -> Option<Bytes> {
    let RecordedSharing::Mps { daemon, config, .. } = &device.sharing else { return None };
    let at = index(&members(devices, daemon), device);
    limit(config, at, uuid(&device.hardware)).map(|(_, limit)| limit)
}

/// The UUIDs of a daemon's devices, sorted.
fn members<'a>(devices: &'a [RecordedDevice], id: &DaemonId) -> BTreeSet<&'a str> {
    let is_member =
        |device: &&RecordedDevice| matches!(&device.sharing, RecordedSharing::Mps { daemon, .. } if daemon == id);
    devices.iter().filter(is_member).map(|device| uuid(&device.hardware)).collect()
}

fn uuid(hardware: &RecordedHardware) -> &str {
    match hardware {
        RecordedHardware::Gpu { uuid } | RecordedHardware::Shared { uuid, .. } => uuid.as_str(),
        RecordedHardware::Mig { ids, .. } => ids.uuid.as_str(),
        // Its daemon has no other device, so that no limit by index depends on the UUID.
        RecordedHardware::Partition { created, .. } => created.as_ref().map_or(NOT_CREATED, |ids| ids.uuid.as_str()),
    }
}

fn index(members: &BTreeSet<&str>, device: &RecordedDevice) -> u32 {
    let own = uuid(&device.hardware);
    (0_u32..).zip(members).find(|(_, uuid)| **uuid == own).map_or(u32::MAX, |(at, _)| at)
}

fn limit<'a>(config: &'a MpsConfig, at: u32, uuid: &str) -> Option<(Option<&'a DeviceKey>, Bytes)> {
    // Keys are ordered: indexes precede UUIDs.
    let own = config.per_device.iter().rev().find(|(key, _)| names(key, at, uuid));
    let own = own.map(|(key, limit)| (Some(key), *limit));
    own.or_else(|| Some((None, config.memory?)))
}

fn names(key: &DeviceKey, at: u32, uuid: &str) -> bool {
    match key {
        DeviceKey::Index(index) => *index == at,
        DeviceKey::Gpu(gpu) => gpu.as_str() == uuid,
        DeviceKey::Mig(mig) => mig.as_str() == uuid,
    }
}

fn names_none(key: &DeviceKey, members: &BTreeSet<&str>) -> bool {
    !(0_u32..).zip(members).any(|(at, uuid)| names(key, at, uuid))
}

fn memory(hardware: &RecordedHardware, gpus: &BTreeMap<GpuUuid, Gpu>) -> Option<Bytes> {
    let gpu = gpus.get(hardware.gpu())?;
    match hardware {
        RecordedHardware::Gpu { .. } | RecordedHardware::Shared { .. } => gpu.memory,
        RecordedHardware::Mig { identity, .. } => {
            gpu.mig_devices().iter().find(|mig| mig.identity == *identity).map(|mig| mig.memory)
        }
        RecordedHardware::Partition { identity, .. } => {
            gpu.mig_layout()?.profile(identity.profile_id).map(|profile| profile.memory)
        }
    }
}
