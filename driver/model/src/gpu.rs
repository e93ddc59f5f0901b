// SPDX-License-Identifier: Apache-2.0
//! One physical GPU, whole or with its MIG devices.

use serde::{Deserialize, Serialize};

use crate::engines::Engines;
use crate::ids::{Bytes, GpuUuid, PciAddress, Version};
use crate::mig::{GpuInstance, MigDevice, MigOrigin, MigProfile};
use crate::unreported;

/// Whether MIG mode is on, and the MIG devices of the GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "mode")]
pub enum MigMode {
    /// `nvmlDeviceGetMigMode` returns NOT_SUPPORTED.
    Unsupported,
    /// The GPU can be divided, but MIG mode is off.
    Off(MigLayout),
    /// The whole GPU is not usable, even if no instance exists.
    On {
        /// Absent where the driver does not list the profiles, for example in a guest.
        #[serde(with = "unreported")]
        layout: Option<MigLayout>,
        /// Ordered by placement.
        devices: Vec<MigDevice>,
        /// Those behind `devices` included. Empty where the driver does not list the profiles.
        #[serde(default)]
        gpu_instances: Vec<GpuInstance>,
        /// Who turned MIG mode on.
        #[serde(default)]
        origin: MigOrigin,
    },
}

/// The units of memory and engines of a GPU in MIG mode, and how it can be divided.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigLayout {
    /// Number of memory slices, 8 on most GPUs.
    pub memory_slices: u32,
    /// The largest count of each engine over all profiles.
    pub engines: Engines,
    /// Whether MIG mode changes without a reset of the GPU (Hopper and later).
    #[serde(default)]
    pub resetless: bool,
    /// Ordered by id.
    #[serde(default)]
    pub profiles: Vec<MigProfile>,
}

/// A GPU of which NVML reported everything that publishing and preparing need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    pub uuid: GpuUuid,
    /// N of `/dev/nvidiaN`; not the NVML index.
    pub minor: u32,
    pub pci: PciAddress,
    /// The PCI root complex above the GPU, such as `pci0000:00` (standard attribute `pcieRoot`).
    pub pcie_root: Option<String>,
    /// The NUMA node of the PCI slot; absent if the kernel reports none.
    pub numa_node: Option<u32>,
    /// `NVIDIA H100 80GB HBM3`, if reported.
    #[serde(with = "unreported")]
    pub product_name: Option<String>,
    /// `Nvidia`, `Tesla`, `GeForce` and so on.
    pub brand: String,
    /// `Hopper`, `Ampere` and so on; `Unknown` for an architecture that is newer than this driver.
    pub architecture: String,
    /// CUDA compute capability, if reported.
    #[serde(with = "unreported")]
    pub compute_capability: Option<Version>,
    /// Total memory; absent on GPUs with unified memory, for which NVML reports none.
    pub memory: Option<Bytes>,
    /// The part of `memory` that driver and firmware reserve; drivers before R510 do not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<Bytes>,
    /// `HMM`, `ATS` or `None`, if reported.
    pub addressing_mode: Option<String>,
    pub mig: MigMode,
}

/// Reserved memory is rounded up to a multiple of this many MiB, so that retired pages (64 KiB each, at most 64) do not change
/// the published amount. Drivers reserve 430 to 750 MiB on boards from T4 to GB200, none within 5 MiB of a multiple.
const RESERVED_STEP_MIB: u64 = 128;

/// Percentage of the memory that is assumed to be reserved if the driver reports none: that of the smallest boards.
const RESERVED_PERCENT: u64 = 4;

impl Gpu {
    /// The memory that claims can share, in whole MiB: the free memory of an idle GPU. It depends on board and driver only, so
    /// that it is the same after each restart.
    pub fn shareable_memory(&self) -> Option<Bytes> {
        let total = self.memory?.mib();
        let reserved = match self.reserved {
            Some(reserved) => reserved.0.div_ceil(Bytes::from_mib(1).0),
            None => total.saturating_mul(RESERVED_PERCENT).div_ceil(100),
        };
        let left = total.saturating_sub(reserved.next_multiple_of(RESERVED_STEP_MIB));
        (left > 0).then(|| Bytes::from_mib(left))
    }

    /// The MIG devices that exist on this GPU.
    pub fn mig_devices(&self) -> &[MigDevice] {
        match &self.mig {
            MigMode::On { devices, .. } => devices,
            MigMode::Unsupported | MigMode::Off(_) => &[],
        }
    }

    /// The GPU instances that exist on this GPU, as far as they are listed.
    pub fn gpu_instances(&self) -> &[GpuInstance] {
        match &self.mig {
            MigMode::On { gpu_instances, .. } => gpu_instances,
            MigMode::Unsupported | MigMode::Off(_) => &[],
        }
    }

    /// The units of the GPU, if it supports MIG.
    pub fn mig_layout(&self) -> Option<&MigLayout> {
        match &self.mig {
            MigMode::On { layout, .. } => layout.as_ref(),
            MigMode::Off(layout) => Some(layout),
            MigMode::Unsupported => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A GPU without details.
    pub(crate) fn plain_gpu(mig: MigMode) -> Gpu {
        Gpu {
            uuid: "GPU-12345678-1111-1111-1111-111111111111".parse().unwrap(),
            minor: 0,
            pci: "0000:01:00.0".parse().unwrap(),
            pcie_root: None,
            numa_node: None,
            product_name: None,
            brand: String::new(),
            architecture: String::new(),
            compute_capability: None,
            memory: None,
            reserved: None,
            addressing_mode: None,
            mig,
        }
    }

    fn gpu(memory: Option<u64>, reserved: Option<u64>) -> Gpu {
        let (memory, reserved) = (memory.map(Bytes), reserved.map(Bytes));
        Gpu { memory, reserved, ..plain_gpu(MigMode::Unsupported) }
    }

    fn shareable(memory: Option<u64>, reserved: Option<u64>) -> Option<u64> {
        gpu(memory, reserved).shareable_memory().map(Bytes::mib)
    }

    /// As `nvidia-smi -q` shows them idle: total and reserved, rounded to MiB, and how much is then free.
    #[test]
    fn boards_give_what_they_have_free_when_idle_and_some_retired_pages_change_nothing() {
        for (board, total, reserved, free, expect) in [
            ("Tesla T4", 15_360, 448, 14_912, 14_848),
            ("NVIDIA L40S", 46_068, 609, 45_459, 45_428),
            ("NVIDIA A100-SXM4-40GB", 40_960, 518, 40_442, 40_320),
            ("NVIDIA H100 80GB HBM3", 81_559, 480, 81_079, 81_047),
            ("NVIDIA B200", 183_359, 728, 182_631, 182_591),
            ("NVIDIA GB200", 189_471, 742, 188_729, 188_703),
        ] {
            for retired in -5..=5 {
                let reserved = u64::checked_add_signed((reserved << 20) - (1 << 19), retired << 20);
                assert_eq!(shareable(Some(total << 20), reserved), Some(expect), "{board} and {retired} MiB");
            }
            assert!(expect <= free, "{board}");
            let unreported = shareable(Some(total << 20), None).unwrap();
            assert!(
                unreported <= free && unreported >= total * 9 / 10,
                "{board}, if the driver does not report it: {unreported}"
            );
        }
    }

    proptest! {
        #[test]
        fn shares_never_get_what_the_driver_keeps(total in 0_u64..1 << 40, reserved in 0_u64..1 << 32) {
            let free = total.saturating_sub(reserved);
            match gpu(Some(total), Some(reserved)).shareable_memory() {
                Some(memory) => prop_assert!(memory.0 > 0 && memory.0 <= free && memory.0 + (130 << 20) > free),
                None => prop_assert!(free < 130 << 20),
            }
        }
    }

    #[test]
    fn without_a_total_there_is_nothing_to_divide() {
        assert_eq!(shareable(None, Some(1 << 20)), None);
        assert_eq!(shareable(Some(1 << 20), Some(2 << 20)), None);
    }

    /// A controller from before these could be absent reads what the plugin sends, and the plugin's own reads it back.
    #[test]
    fn an_unreported_property_has_a_value_on_the_wire() {
        let (gpu_instances, origin) = (Vec::new(), MigOrigin::default());
        let mig = MigMode::On { layout: None, devices: Vec::new(), gpu_instances, origin };
        let gpu = Gpu { mig, ..gpu(None, None) };
        let json = serde_json::to_value(&gpu).unwrap();
        assert_eq!((&json["product_name"], &json["compute_capability"]), (&"Unknown".into(), &"0.0.0".into()));
        assert_eq!(json["mig"]["layout"]["memory_slices"], 0);
        assert_eq!(serde_json::from_value::<Gpu>(json).unwrap(), gpu);
    }

    /// Plugin and controller may be of two versions while one is upgraded.
    #[test]
    fn an_inventory_of_before_is_read() {
        let reported = gpu(Some(15_360 << 20), Some(448 << 20));
        let mut json = serde_json::to_value(&reported).unwrap();
        assert_eq!(serde_json::from_value::<Gpu>(json.clone()).unwrap(), reported);
        json.as_object_mut().unwrap().remove("reserved");
        assert_eq!(serde_json::from_value::<Gpu>(json).unwrap(), Gpu { reserved: None, ..reported });
    }
}
