// SPDX-License-Identifier: Apache-2.0
//! Resolves the name of a device to its hardware. Pure.
//!
//! A name contains its GPU even when the device is gone, so that a refusal can give the reason.

use dra_model::{
    Device, DeviceName, DeviceNames, DriverState, Gpu, GpuEntry, Inventory, MigDevice, MigIdentity, MigLayout,
    MigOrigin, SharedForm,
};

use crate::decide::target::Target;

/// Why a name has no usable hardware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unresolved {
    NoDriver {
        reason: String,
    },
    /// The GPU cannot be read.
    Unusable {
        reason: String,
    },
    /// The device is a whole GPU, which is in MIG mode now.
    MigModeOn,
    MigGone,
    /// The MIG device cannot be created beside instances of an administrator.
    Occupied {
        gpu_instances: Vec<u32>,
    },
    /// No GPU of this node has such a device.
    Unknown,
}

pub fn resolve(inventory: &Inventory, name: &DeviceName) -> Result<Target, Unresolved> {
    if let DriverState::Missing { reason } = &inventory.driver {
        return Err(Unresolved::NoDriver { reason: reason.clone() });
    }
    let names = inventory.names();
    let of_gpu = |entry: &GpuEntry| {
        let rest = name.as_str().strip_prefix(&names.gpu(entry.uuid()?))?;
        on_gpu(entry, &names, name, &Suffix::of(rest))
    };
    inventory.gpus.iter().find_map(of_gpu).unwrap_or(Err(Unresolved::Unknown))
}

/// The device on the GPU that its name begins with; none if no GPU has such devices.
fn on_gpu(
    entry: &GpuEntry,
    names: &DeviceNames,
    name: &DeviceName,
    suffix: &Suffix,
) -> Option<Result<Target, Unresolved>> {
    match (suffix, entry) {
        (Suffix::Other, _) => None,
        (_, entry) if entry.failure().is_some() => {
            entry.failure().map(|failure| Err(Unresolved::Unusable { reason: failure.reason.clone() }))
        }
        (_, GpuEntry::Unidentified { .. }) => None,
        (Suffix::Whole, GpuEntry::Known { gpu, .. }) if gpu.is_whole() => Some(Ok(Target::Gpu(gpu.uuid.clone()))),
        (Suffix::Shared(form), GpuEntry::Known { gpu, .. }) if gpu.is_whole() => {
            Some(Ok(Target::Shared(gpu.uuid.clone(), *form)))
        }
        (Suffix::Whole | Suffix::Shared(_), GpuEntry::Known { .. }) => Some(Err(Unresolved::MigModeOn)),
        (Suffix::Mig, GpuEntry::Known { gpu, .. }) => Some(mig(gpu, names, name)),
    }
}

fn mig(gpu: &Gpu, names: &DeviceNames, name: &DeviceName) -> Result<Target, Unresolved> {
    let existing = gpu.mig_devices().iter().map(|mig| mig.identity.clone());
    let possible = gpu.partitions().into_iter().map(|partition| partition.identity(&gpu.uuid));
    let is_it = |identity: &MigIdentity| names.mig(identity) == name.as_str();
    if let Some(identity) = existing.chain(possible).find(is_it) {
        return Ok(Target::Mig(identity));
    }
    let wanted = gpu.mig_layout().into_iter().flat_map(MigLayout::partitions);
    let wanted = wanted.map(|partition| partition.identity(&gpu.uuid)).find(is_it);
    Err(wanted.map_or(Unresolved::MigGone, |identity| absent(&identity, gpu)))
}

/// Why a MIG device neither exists nor can be created.
fn absent(identity: &MigIdentity, gpu: &Gpu) -> Unresolved {
    let foreign = gpu.gpu_instances().iter().filter(|instance| instance.origin == MigOrigin::Administrator);
    let gpu_instances: Vec<u32> = foreign.map(|instance| instance.id).collect();
    let is_profile = gpu.mig_layout().is_some_and(|layout| layout.profile(identity.profile_id).is_some());
    if gpu_instances.is_empty() || !is_profile { Unresolved::MigGone } else { Unresolved::Occupied { gpu_instances } }
}

/// What follows the name of the GPU in the name of a device.
enum Suffix {
    Whole,
    Shared(SharedForm),
    Mig,
    Other,
}

impl Suffix {
    fn of(rest: &str) -> Self {
        if let Some(form) = SharedForm::ALL.into_iter().find(|form| form.suffix() == rest) {
            return Self::Shared(form);
        }
        match rest {
            "" => Self::Whole,
            rest if rest.starts_with("-mig-") => Self::Mig,
            _ => Self::Other,
        }
    }
}

/// The device of a target on a GPU that was just read: a MIG device that exists, or else the partition that can be created.
pub fn find<'a>(target: &Target, gpu: &'a Gpu) -> Result<Device<'a>, Unresolved> {
    match target {
        Target::Gpu(_) if gpu.is_whole() => Ok(Device::Gpu(gpu)),
        Target::Shared(_, form) if gpu.is_whole() => Ok(Device::Shared(gpu, *form)),
        Target::Gpu(_) | Target::Shared(..) => Err(Unresolved::MigModeOn),
        Target::Mig(identity) => {
            let existing: Option<&MigDevice> = gpu.mig_devices().iter().find(|mig| mig.identity == *identity);
            let existing = existing.map(|mig| Device::Mig(gpu, mig));
            let found = existing.or_else(|| Some(Device::Partition(gpu, gpu.partition(identity)?)));
            found.ok_or_else(|| absent(identity, gpu))
        }
    }
}

#[cfg(test)]
mod tests {
    use dra_model::{Bytes, ComputeShare, Engines, Failure, Fault, GpuUuid, MigMode, PciAddress, Placement, Version};

    use super::*;

    const LAYOUT: MigLayout = MigLayout { memory_slices: 8, engines: ENGINES, resetless: false, profiles: Vec::new() };
    const ENGINES: Engines =
        Engines { multiprocessors: 0, copy_engines: 0, decoders: 0, encoders: 0, jpeg_engines: 0, ofa_engines: 0 };

    fn uuid(gpu: u32) -> GpuUuid {
        format!("GPU-{gpu:08x}-0000-0000-0000-000000000000").parse().unwrap()
    }

    fn gpu(gpu: u32, mig: MigMode) -> Gpu {
        Gpu {
            uuid: uuid(gpu),
            minor: gpu,
            pci: PciAddress { domain: 0, bus: 1, device: 0, function: 0 },
            pcie_root: None,
            numa_node: None,
            product_name: None,
            brand: String::new(),
            architecture: String::new(),
            compute_capability: Some(Version { major: 9, minor: 0, patch: 0 }),
            memory: Some(Bytes::from_mib(81_559)),
            reserved: None,
            addressing_mode: None,
            mig,
        }
    }

    fn identity(parent: GpuUuid) -> MigIdentity {
        let share = ComputeShare { start: 0, slices: 1, of: 1 };
        MigIdentity { parent, profile_id: 19, placement: Placement { start: 4, size: 1 }, share }
    }

    fn cut(parent: u32) -> MigMode {
        let device = MigDevice {
            identity: identity(uuid(parent)),
            uuid: "MIG-00000000-0000-0000-0000-000000000000".parse().unwrap(),
            gpu_instance: 9,
            compute_instance: 0,
            profile: "1g.10gb".to_owned(),
            memory: Bytes(0),
            engines: ENGINES,
            origin: MigOrigin::Administrator,
        };
        on(vec![device])
    }

    fn on(devices: Vec<MigDevice>) -> MigMode {
        let (gpu_instances, origin) = (Vec::new(), MigOrigin::Administrator);
        MigMode::On { layout: Some(LAYOUT), devices, gpu_instances, origin }
    }

    fn inventory() -> Inventory {
        let version = Version { major: 550, minor: 54, patch: 15 };
        let failure = |reason: &str| Failure { reason: reason.to_owned(), fault: Fault::Failing };
        let unidentified =
            |index, uuid, reason| GpuEntry::Unidentified { index, uuid, pci: None, failure: failure(reason) };
        Inventory {
            driver: DriverState::Loaded { version, cuda: Some(version) },
            gpus: vec![
                GpuEntry::usable(gpu(0, MigMode::Off(LAYOUT))),
                GpuEntry::usable(gpu(1, cut(1))),
                unidentified(2, Some(uuid(2)), "lost"),
                unidentified(3, None, "silent"),
                GpuEntry::unusable(gpu(4, MigMode::Off(LAYOUT)), failure("lost later")),
                GpuEntry::unusable(gpu(5, cut(5)), failure("lost later")),
            ],
            findings: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn a_name_leads_to_its_hardware_or_to_what_became_of_it() {
        for (name, expect) in [
            ("gpu-00000000", Ok(Target::Gpu(uuid(0)))),
            ("gpu-00000001-mig-19-4", Ok(Target::Mig(identity(uuid(1))))),
            ("gpu-00000001", Err(Unresolved::MigModeOn)),
            ("gpu-00000001-mig-19-5", Err(Unresolved::MigGone)),
            ("gpu-00000000-mig-19-4", Err(Unresolved::MigGone)),
            ("gpu-00000002", Err(Unresolved::Unusable { reason: "lost".to_owned() })),
            ("gpu-00000002-mig-19-4", Err(Unresolved::Unusable { reason: "lost".to_owned() })),
            ("gpu-00000000-ts", Ok(Target::Shared(uuid(0), SharedForm::TimeSlicing))),
            ("gpu-00000000-mps", Ok(Target::Shared(uuid(0), SharedForm::Mps))),
            ("gpu-00000000-all", Err(Unresolved::Unknown)),
            ("gpu-00000001-mps", Err(Unresolved::MigModeOn)),
            ("gpu-00000002-ts", Err(Unresolved::Unusable { reason: "lost".to_owned() })),
            ("gpu-00000004", Err(Unresolved::Unusable { reason: "lost later".to_owned() })),
            ("gpu-00000004-mps", Err(Unresolved::Unusable { reason: "lost later".to_owned() })),
            ("gpu-00000005", Err(Unresolved::Unusable { reason: "lost later".to_owned() })),
            ("gpu-00000005-mig-19-4", Err(Unresolved::Unusable { reason: "lost later".to_owned() })),
            ("gpu-00000004-all", Err(Unresolved::Unknown)),
            ("gpu-00000009", Err(Unresolved::Unknown)),
            ("gpu-0", Err(Unresolved::Unknown)),
        ] {
            assert_eq!(resolve(&inventory(), &name.parse().unwrap()), expect, "{name}");
        }
        let nothing = Inventory::without_driver("not loaded".to_owned());
        let why = Unresolved::NoDriver { reason: "not loaded".to_owned() };
        assert_eq!(resolve(&nothing, &"gpu-00000000".parse().unwrap()), Err(why));
    }

    #[test]
    fn a_gpu_that_was_just_read_decides() {
        for (target, mig, expect) in [
            (Target::Gpu(uuid(1)), MigMode::Off(LAYOUT), None),
            (Target::Gpu(uuid(1)), MigMode::Unsupported, None),
            (Target::Gpu(uuid(1)), cut(1), Some(Unresolved::MigModeOn)),
            (Target::Shared(uuid(1), SharedForm::Mps), MigMode::Off(LAYOUT), None),
            (Target::Shared(uuid(1), SharedForm::Mps), cut(1), Some(Unresolved::MigModeOn)),
            (Target::Mig(identity(uuid(1))), cut(1), None),
            (Target::Mig(identity(uuid(1))), MigMode::Off(LAYOUT), Some(Unresolved::MigGone)),
            (Target::Mig(identity(uuid(1))), on(Vec::new()), Some(Unresolved::MigGone)),
        ] {
            let gpu = gpu(1, mig);
            assert_eq!(find(&target, &gpu).err(), expect, "{target:?}");
        }
    }
}
