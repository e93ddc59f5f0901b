// SPDX-License-Identifier: Apache-2.0
//! Devices as they are published, and their names.
//!
//! `gpu-<first 8 hex digits of the UUID>` and `gpu-…-mig-<profile id>-<start>`; a compute instance that does not span
//! its GPU instance adds `-c<start>-<slices>`. A form for many claims is `gpu-…-mps` or `gpu-…-ts`. Names depend on hardware
//! identity alone, so every run and every version of this driver uses the same names.

use std::collections::BTreeMap;

use crate::gpu::Gpu;
use crate::ids::{DeviceName, GpuUuid};
use crate::inventory::{GpuEntry, Inventory};
use crate::mig::{MigDevice, MigIdentity, MigIds, Placement};
use crate::partition::Partition;
use crate::sharing::SharedForm;

/// Something that can be allocated to a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device<'a> {
    Gpu(&'a Gpu),
    /// A MIG device that an administrator created, and its GPU.
    Mig(&'a Gpu, &'a MigDevice),
    /// A MIG device that this driver creates for a claim, and its GPU.
    Partition(&'a Gpu, Partition<'a>),
    /// A whole GPU in a form that many claims use.
    Shared(&'a Gpu, SharedForm),
}

impl<'a> Device<'a> {
    /// The physical GPU behind the device.
    pub fn gpu(self) -> &'a Gpu {
        match self {
            Self::Gpu(gpu) | Self::Mig(gpu, _) | Self::Partition(gpu, _) | Self::Shared(gpu, _) => gpu,
        }
    }

    /// Where a part of the GPU is.
    pub fn placement(self) -> Option<Placement> {
        match self {
            Self::Gpu(_) | Self::Shared(..) => None,
            Self::Mig(_, mig) => Some(mig.identity.placement),
            Self::Partition(_, partition) => Some(partition.placement),
        }
    }
}

/// The identity of a device, with the ids that may change when it is created again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LiveIdentity {
    Gpu {
        uuid: GpuUuid,
    },
    Mig {
        identity: MigIdentity,
        ids: MigIds,
        /// Profile as the driver prints it.
        profile: String,
    },
    /// A whole GPU in a form that many claims use.
    Shared {
        uuid: GpuUuid,
        form: SharedForm,
    },
}

impl LiveIdentity {
    /// The physical GPU behind the device.
    pub fn gpu(&self) -> &GpuUuid {
        match self {
            Self::Gpu { uuid } | Self::Shared { uuid, .. } => uuid,
            Self::Mig { identity, .. } => &identity.parent,
        }
    }

    /// Where a part of the GPU is.
    pub fn placement(&self) -> Option<Placement> {
        match self {
            Self::Gpu { .. } | Self::Shared { .. } => None,
            Self::Mig { identity, .. } => Some(identity.placement),
        }
    }
}

/// The number of hex digits of the UUID in a name, unless two GPUs of the node have the same digits.
const NAME_DIGITS: usize = 8;

/// The names of the devices of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNames {
    digits: usize,
}

impl DeviceNames {
    /// The shortest names, of at least eight digits, that are unique on the node.
    pub fn of<'a>(uuids: impl IntoIterator<Item = &'a GpuUuid>) -> Self {
        let hex: Vec<String> = uuids.into_iter().map(GpuUuid::hex).collect();
        let digits = (NAME_DIGITS..32).find(|digits| distinct(&hex, *digits)).unwrap_or(32);
        Self { digits }
    }

    /// The prefix of every device and counter set of a GPU.
    fn stem(&self, gpu: &GpuUuid) -> String {
        format!("gpu-{}", gpu.hex().chars().take(self.digits).collect::<String>())
    }

    /// The name of a whole GPU.
    pub fn gpu(&self, gpu: &GpuUuid) -> String {
        self.stem(gpu)
    }

    /// The name of a MIG device.
    pub fn mig(&self, identity: &MigIdentity) -> String {
        let name = format!("{}-mig-{}-{}", self.stem(&identity.parent), identity.profile_id, identity.placement.start);
        if identity.share.is_whole() {
            name
        } else {
            format!("{name}-c{}-{}", identity.share.start, identity.share.slices)
        }
    }

    /// The name of a form for many claims.
    pub fn shared(&self, gpu: &GpuUuid, form: SharedForm) -> String {
        format!("{}{}", self.stem(gpu), form.suffix())
    }

    /// The name of a device.
    pub fn device(&self, device: Device<'_>) -> String {
        match device {
            Device::Gpu(gpu) => self.gpu(&gpu.uuid),
            Device::Mig(_, mig) => self.mig(&mig.identity),
            Device::Partition(gpu, partition) => self.mig(&partition.identity(&gpu.uuid)),
            Device::Shared(gpu, form) => self.shared(&gpu.uuid, form),
        }
    }
}

fn distinct(hex: &[String], digits: usize) -> bool {
    let mut prefixes: Vec<&str> = hex.iter().filter_map(|hex| hex.get(..digits)).collect();
    let all = prefixes.len();
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes.len() == all
}

impl Gpu {
    /// The devices that can be allocated: the whole GPU with its forms for many claims, the MIG devices of an administrator, and
    /// those that this driver can create beside them.
    ///
    /// What this driver created withdraws no device, so that publishing does not depend on running claims.
    pub fn forms(&self) -> Vec<Device<'_>> {
        let whole = self.is_whole().then_some(Device::Gpu(self));
        let shared = SharedForm::ALL.into_iter().filter(|_| whole.is_some()).map(|form| Device::Shared(self, form));
        let mig = self.foreign_mig_devices().map(|mig| Device::Mig(self, mig));
        let partitions = self.partitions().into_iter().map(|partition| Device::Partition(self, partition));
        whole.into_iter().chain(shared).chain(mig).chain(partitions).collect()
    }
}

impl Inventory {
    /// The names of this node's devices; GPUs that cannot be read count, so that a name does not change when one fails.
    pub fn names(&self) -> DeviceNames {
        DeviceNames::of(self.gpus.iter().filter_map(GpuEntry::uuid))
    }

    /// Every known device: the forms of each GPU.
    pub fn forms(&self) -> Vec<Device<'_>> {
        self.known_gpus().flat_map(|(gpu, _)| gpu.forms()).collect()
    }

    /// [`Inventory::forms`] by name.
    pub fn devices_by_name(&self) -> BTreeMap<DeviceName, Device<'_>> {
        let names = self.names();
        self.forms().into_iter().filter_map(|device| Some((names.device(device).parse().ok()?, device))).collect()
    }
}

/// The device name in the last part of a CDI device name, where the id of a share follows the name of its device.
pub fn without_share(name: &str) -> String {
    let form = SharedForm::ALL.into_iter().find_map(|form| {
        let (gpu, _) = name.split_once(&format!("{}-", form.suffix()))?;
        Some(format!("{gpu}{}", form.suffix()))
    });
    form.unwrap_or_else(|| name.to_owned())
}

/// Whether a device has a name of NVIDIA's DRA driver: `gpu-<index>`, and parts of it. Those of this driver have 8 or more
/// hexadecimal digits of the UUID.
pub fn is_name_of_nvidia(device: &str) -> bool {
    let index = device.strip_prefix("gpu-").and_then(|rest| rest.split('-').next());
    index.is_some_and(|index| (1..=3).contains(&index.len()) && index.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gpu::MigMode;
    use crate::gpu::tests::plain_gpu;
    use crate::mig::{ComputeShare, Placement};

    fn uuid(text: &str) -> GpuUuid {
        format!("GPU-{text}").parse().unwrap()
    }

    #[test]
    fn names_grow_only_when_two_gpus_would_be_confused() {
        let a = uuid("12345678-1111-1111-1111-111111111111");
        let b = uuid("12345678-1211-1111-1111-111111111111");
        assert_eq!(DeviceNames::of([&a]).gpu(&a), "gpu-12345678");
        let names = DeviceNames::of([&a, &b]);
        assert_eq!((names.gpu(&a), names.gpu(&b)), ("gpu-1234567811".to_owned(), "gpu-1234567812".to_owned()));
    }

    #[test]
    fn names_of_nvidia_have_an_index() {
        for name in ["gpu-0", "gpu-15", "gpu-123", "gpu-0-mig-1g12gb-19-0"] {
            assert!(is_name_of_nvidia(name), "{name}");
        }
        for name in ["gpu-12345678", "gpu-12345678-mig-9-4", "gpu-97722eb3-mps", "gpu-", "gpu-0a", "mig-0"] {
            assert!(!is_name_of_nvidia(name), "{name}");
        }
    }

    #[test]
    fn only_whole_gpus_have_forms_for_many_claims() {
        let layout = crate::MigLayout { memory_slices: 8, ..crate::MigLayout::default() };
        let on = MigMode::On {
            layout: Some(layout.clone()),
            devices: vec![],
            gpu_instances: vec![],
            origin: crate::MigOrigin::Administrator,
        };
        let memory = Some(crate::Bytes::from_mib(81559));
        for (mig, memory, expect) in [
            (MigMode::Unsupported, memory, &["", "-mps", "-ts"][..]),
            (MigMode::Off(layout.clone()), memory, &["", "-mps", "-ts"]),
            (MigMode::Off(layout.clone()), None, &["", "-mps", "-ts"]),
            (MigMode::Off(layout), Some(crate::Bytes(1000)), &["", "-mps", "-ts"]),
            (on, memory, &[]),
        ] {
            let gpu = Gpu { memory, ..plain_gpu(mig) };
            let driver = crate::DriverState::Missing { reason: String::new() };
            let inventory =
                Inventory { driver, gpus: vec![GpuEntry::usable(gpu)], findings: std::collections::BTreeMap::new() };
            let names: Vec<String> = inventory.forms().into_iter().map(|form| inventory.names().device(form)).collect();
            assert_eq!(names, expect.iter().map(|suffix| format!("gpu-12345678{suffix}")).collect::<Vec<_>>());
            assert_eq!(inventory.devices_by_name().len(), names.len());
        }
    }

    #[test]
    fn mig_names_contain_profile_placement_and_partial_compute_instances() {
        let parent = uuid("12345678-1111-1111-1111-111111111111");
        let names = DeviceNames::of([&parent]);
        let placement = Placement { start: 4, size: 4 };
        let whole = ComputeShare { start: 0, slices: 3, of: 3 };
        let mut identity = MigIdentity { parent, profile_id: 9, placement, share: whole };
        assert_eq!(names.mig(&identity), "gpu-12345678-mig-9-4");
        identity.share = ComputeShare { start: 2, slices: 1, of: 3 };
        assert_eq!(names.mig(&identity), "gpu-12345678-mig-9-4-c2-1");
    }

    proptest! {
        #[test]
        fn every_name_is_a_dns_label_and_distinct(seeds in proptest::collection::btree_set(any::<u128>(), 1..16), start in 0_u32..16, profile_id in 0_u32..100) {
            let uuids: Vec<GpuUuid> = seeds.iter().map(|seed| {
                let hex = format!("{seed:032x}");
                uuid(&format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
            }).collect();
            let names = DeviceNames::of(&uuids);
            let mut all = std::collections::BTreeSet::new();
            for parent in uuids {
                prop_assert!(all.insert(names.gpu(&parent)));
                for form in SharedForm::ALL {
                    prop_assert!(all.insert(names.shared(&parent, form)));
                }
                let share = ComputeShare { start: 0, slices: 1, of: 3 };
                let identity = MigIdentity { parent, profile_id, placement: Placement { start, size: 1 }, share };
                prop_assert!(all.insert(names.mig(&identity)));
            }
            for name in all {
                prop_assert!(name.parse::<DeviceName>().is_ok(), "{}", name);
            }
        }
    }
}
