// SPDX-License-Identifier: Apache-2.0
//! The MPS daemon that a claim has for itself or uses with others, and the memory limits it is started with. Pure.
//!
//! A limit names a device by its UUID or by its place among the sorted UUIDs of the daemon's devices; the UUID goes before
//! the place, and both before the limit for all of them. The daemon of shares has no limits: they could only lower those
//! that a share has by its environment.

use std::collections::{BTreeMap, BTreeSet};

use dra_checkpoint::{RecordedDevice, RecordedHardware, RecordedSharing};
use dra_hardware::{DaemonSpec, MultiUser};
use dra_model::{Bytes, DaemonId, DeviceKey, Gpu, GpuUuid, MpsConfig};

use crate::configuration::Wish;
use crate::refusal::Refusal;

const MEMORY: &str = "sharing.mpsConfig.defaultPinnedDeviceMemoryLimit";

const PER_DEVICE: &str = "sharing.mpsConfig.defaultPerDevicePinnedMemoryLimit";

/// Refuses limits for devices that their daemon does not have, and limits beyond the memory of their device.
pub(crate) fn check(
    devices: &[RecordedDevice],
    wishes: &[Option<Wish<'_>>],
    gpus: &BTreeMap<GpuUuid, Gpu>,
) -> Result<(), Refusal> {
    for (device, wish) in devices.iter().zip(wishes) {
        let (RecordedSharing::Mps { daemon, config, .. }, Some(wish)) = (&device.sharing, wish) else { continue };
        let members = members(devices, daemon);
        let (at, uuid) = (place(&members, device), uuid(&device.hardware));
        if let Some(key) = config.per_device.keys().find(|key| names_none(key, &members)) {
            let places = members.iter().enumerate().map(|(at, uuid)| format!("{at} = {uuid}"));
            let devices = places.collect::<Vec<_>>().join(", ");
            return Err(Refusal::LimitOfNothing { field: wish.field(&format!("{PER_DEVICE}.{key}")), devices });
        }
        let (Some((key, limit)), Some(memory)) = (limit(config, at, uuid), memory(&device.hardware, gpus)) else {
            continue;
        };
        if limit > memory {
            let field = key.map_or_else(|| wish.field(MEMORY), |key| wish.field(&format!("{PER_DEVICE}.{key}")));
            return Err(Refusal::LimitTooLarge { field, limit, device: uuid.to_owned(), memory });
        }
    }
    Ok(())
}

/// What the daemon of these devices should be.
pub(crate) fn daemon(devices: &[RecordedDevice], id: &DaemonId) -> DaemonSpec {
    let config = devices.iter().find_map(|device| match (&device.hardware, &device.sharing) {
        (RecordedHardware::Gpu { .. } | RecordedHardware::Mig { .. }, RecordedSharing::Mps { daemon, config, .. })
            if daemon == id =>
        {
            Some(config)
        }
        _ => None,
    });
    let devices: Vec<String> = members(devices, id).into_iter().map(str::to_owned).collect();
    let Some(config) = config else {
        // Of shares, whose users are anybody.
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
    let at = place(&members(devices, daemon), device);
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
        RecordedHardware::Mig { uuid, .. } => uuid.as_str(),
    }
}

fn place(members: &BTreeSet<&str>, device: &RecordedDevice) -> u32 {
    let own = uuid(&device.hardware);
    (0_u32..).zip(members).find(|(_, uuid)| **uuid == own).map_or(u32::MAX, |(at, _)| at)
}

fn limit<'a>(config: &'a MpsConfig, at: u32, uuid: &str) -> Option<(Option<&'a DeviceKey>, Bytes)> {
    // Places come before UUIDs in the order of keys.
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
    }
}
