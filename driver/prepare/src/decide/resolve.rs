// SPDX-License-Identifier: Apache-2.0
//! Resolves the name of a device to its hardware. Pure.
//!
//! A name contains its GPU even when the device is gone, so that a refusal can give the reason.

use dra_model::{Device, DeviceName, DriverState, Gpu, GpuEntry, GpuUuid, Inventory, MigDevice, MigMode, SharedForm};

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
    /// No GPU of this node has such a device.
    Unknown,
}

pub fn resolve(inventory: &Inventory, name: &DeviceName) -> Result<Target, Unresolved> {
    match inventory.devices_by_name().get(name) {
        Some(device) if !inventory.usable_gpus().any(|gpu| gpu.uuid == device.gpu().uuid) => {
            Err(reason(inventory, name))
        }
        Some(Device::Gpu(gpu)) => Ok(Target::Gpu(gpu.uuid.clone())),
        Some(Device::Mig(_, mig)) => Ok(Target::Mig(mig.identity.clone())),
        Some(Device::Shared(gpu, form)) => Ok(Target::Shared(gpu.uuid.clone(), *form)),
        None => Err(reason(inventory, name)),
    }
}

fn reason(inventory: &Inventory, name: &DeviceName) -> Unresolved {
    if let DriverState::Missing { reason } = &inventory.driver {
        return Unresolved::NoDriver { reason: reason.clone() };
    }
    let names = inventory.names();
    let form_of = |uuid: &GpuUuid| name.as_str().strip_prefix(&names.gpu(uuid)).map(Suffix::of);
    let found = inventory.gpus.iter().find_map(|entry| match (form_of(entry.uuid()?)?, entry.failure(), entry) {
        (Suffix::Other, _, _) => None,
        (_, Some(failure), _) => Some(Unresolved::Unusable { reason: failure.reason.clone() }),
        (Suffix::Mig, None, _) => Some(Unresolved::MigGone),
        (_, None, GpuEntry::Known { gpu, .. }) => {
            matches!(gpu.mig, MigMode::On { .. }).then_some(Unresolved::MigModeOn)
        }
        (_, None, GpuEntry::Unidentified { .. }) => None,
    });
    found.unwrap_or(Unresolved::Unknown)
}

/// What follows the name of the GPU in the name of a device.
enum Suffix {
    Whole,
    Shared,
    Mig,
    Other,
}

impl Suffix {
    fn of(rest: &str) -> Self {
        match rest {
            "" => Self::Whole,
            rest if SharedForm::ALL.iter().any(|form| form.suffix() == rest) => Self::Shared,
            rest if rest.starts_with("-mig-") => Self::Mig,
            _ => Self::Other,
        }
    }
}

/// The device of a target on a GPU that was just read.
pub fn find<'a>(target: &Target, gpu: &'a Gpu) -> Result<Device<'a>, Unresolved> {
    match (target, &gpu.mig) {
        (Target::Gpu(_), MigMode::Unsupported | MigMode::Off(_)) => Ok(Device::Gpu(gpu)),
        (Target::Shared(_, form), MigMode::Unsupported | MigMode::Off(_)) => Ok(Device::Shared(gpu, *form)),
        (Target::Gpu(_) | Target::Shared(..), MigMode::On { .. }) => Err(Unresolved::MigModeOn),
        (Target::Mig(identity), _) => {
            let mig: Option<&MigDevice> = gpu.mig_devices().iter().find(|mig| mig.identity == *identity);
            mig.map(|mig| Device::Mig(gpu, mig)).ok_or(Unresolved::MigGone)
        }
    }
}

#[cfg(test)]
mod tests {
    use dra_model::{
        Bytes, ComputeShare, Engines, Failure, Fault, MigIdentity, MigLayout, MigOrigin, PciAddress, Placement, Version,
    };

    use super::*;

    const LAYOUT: MigLayout = MigLayout { memory_slices: 8, engines: ENGINES };
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
        MigMode::On { layout: Some(LAYOUT), devices: vec![device] }
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
            (
                Target::Mig(identity(uuid(1))),
                MigMode::On { layout: Some(LAYOUT), devices: Vec::new() },
                Some(Unresolved::MigGone),
            ),
        ] {
            let gpu = gpu(1, mig);
            assert_eq!(find(&target, &gpu).err(), expect, "{target:?}");
        }
    }
}
