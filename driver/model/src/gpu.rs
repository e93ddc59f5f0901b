// SPDX-License-Identifier: Apache-2.0
//! One physical GPU and what can be said of it.

use serde::{Deserialize, Serialize};

use crate::ids::{Bytes, GpuUuid, PciAddress, Version};
use crate::mig::MigDevice;

/// Counts of the engines of a GPU or of a MIG device (`nvmlDeviceAttributes_t`, `nvmlGpuInstanceProfileInfo_t`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engines {
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Copy engines.
    pub copy_engines: u32,
    /// Video decoders.
    pub decoders: u32,
    /// Video encoders.
    pub encoders: u32,
    /// JPEG engines.
    pub jpeg_engines: u32,
    /// Optical flow accelerators.
    pub ofa_engines: u32,
}

/// Whether and how a GPU is cut into MIG devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "mode")]
pub enum MigMode {
    /// The GPU cannot be cut (`nvmlDeviceGetMigMode` answers NOT_SUPPORTED).
    Unsupported,
    /// It can, but is whole.
    Off(MigLayout),
    /// It is cut; the whole GPU is not usable, not even when no instance exists.
    On {
        /// What the GPU can be cut into.
        layout: MigLayout,
        /// What it is cut into now, ordered by placement.
        devices: Vec<MigDevice>,
    },
}

/// What the memory and engines of a GPU are counted in when it is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigLayout {
    /// Number of memory slices, 8 on most GPUs.
    pub memory_slices: u32,
    /// The largest count of each engine over all profiles.
    pub engines: Engines,
}

/// A GPU that answered all questions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its identity.
    pub uuid: GpuUuid,
    /// N of `/dev/nvidiaN`; not the NVML index.
    pub minor: u32,
    /// Where it sits.
    pub pci: PciAddress,
    /// The PCI root complex it hangs on, such as `pci0000:00` (standard attribute `pcieRoot`).
    pub pcie_root: Option<String>,
    /// The NUMA node of its PCI slot; absent when the kernel knows none.
    pub numa_node: Option<u32>,
    /// `NVIDIA H100 80GB HBM3`.
    pub product_name: String,
    /// `Nvidia`, `Tesla`, `GeForce` and so on.
    pub brand: String,
    /// `Hopper`, `Ampere` and so on; `Unknown` for newer than this driver knows.
    pub architecture: String,
    /// CUDA compute capability.
    pub compute_capability: Version,
    /// Total memory; absent on parts with unified memory, for which NVML has no answer.
    pub memory: Option<Bytes>,
    /// `HMM`, `ATS` or `None`, where the driver tells.
    pub addressing_mode: Option<String>,
    /// Whole or cut.
    pub mig: MigMode,
}

impl Gpu {
    /// The MIG devices that exist on this GPU.
    pub fn mig_devices(&self) -> &[MigDevice] {
        match &self.mig {
            MigMode::On { devices, .. } => devices,
            MigMode::Unsupported | MigMode::Off(_) => &[],
        }
    }

    /// What the GPU is counted in, when it can be cut.
    pub fn mig_layout(&self) -> Option<MigLayout> {
        match &self.mig {
            MigMode::On { layout, .. } | MigMode::Off(layout) => Some(*layout),
            MigMode::Unsupported => None,
        }
    }
}
