// SPDX-License-Identifier: Apache-2.0
//! The GPUs of a node at one moment. The JSON form is the inventory file and the payload of the inventory stream.

use serde::{Deserialize, Serialize};

use crate::gpu::Gpu;
use crate::ids::{GpuUuid, PciAddress, Version};
use crate::unreported;

/// All GPUs of one node, in PCI order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Inventory {
    pub driver: DriverState,
    /// One entry per GPU that the driver counts.
    pub gpus: Vec<GpuEntry>,
}

/// Whether an NVIDIA driver is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum DriverState {
    Loaded {
        version: Version,
        /// The newest CUDA version that the driver supports, if reported.
        #[serde(with = "unreported")]
        cuda: Option<Version>,
    },
    /// NVML is missing, or its kernel driver is.
    Missing {
        /// For messages.
        reason: String,
    },
}

/// One GPU of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
#[expect(clippy::large_enum_variant, reason = "a node has a few, and most of them are good")]
pub enum GpuEntry {
    /// NVML reported everything that publishing and preparing need.
    Good(Gpu),
    /// NVML did not. The GPU is not published, and the Node gets an Event.
    Broken {
        /// Position in the enumeration of NVML, for messages only.
        index: u32,
        /// If it could be read.
        uuid: Option<GpuUuid>,
        /// If it could be read.
        pci: Option<PciAddress>,
        /// The NVML call that failed, and its code.
        reason: String,
        /// Selects the advice for the administrator.
        #[serde(default)]
        fault: Fault,
    },
}

/// The kind of failure of a GPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fault {
    /// The GPU does not work.
    #[default]
    Failing,
    /// The driver does not support the call on this GPU or platform. The GPU may work.
    Unsupported,
    /// The driver or the kernel refuses the call of this process.
    Denied,
}

impl Inventory {
    pub fn without_driver(reason: String) -> Self {
        Self { driver: DriverState::Missing { reason }, gpus: Vec::new() }
    }

    /// The GPUs that work, in PCI order.
    pub fn good_gpus(&self) -> impl Iterator<Item = &Gpu> {
        self.gpus.iter().filter_map(|entry| match entry {
            GpuEntry::Good(gpu) => Some(gpu),
            GpuEntry::Broken { .. } => None,
        })
    }

    /// A working GPU by identity.
    pub fn gpu(&self, uuid: &GpuUuid) -> Option<&Gpu> {
        self.good_gpus().find(|gpu| gpu.uuid == *uuid)
    }
}
