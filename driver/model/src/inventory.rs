// SPDX-License-Identifier: Apache-2.0
//! What a node has right now. Its JSON form is the inventory file and the payload of the node's inventory stream.

use serde::{Deserialize, Serialize};

use crate::gpu::Gpu;
use crate::ids::{GpuUuid, PciAddress, Version};
use crate::unreported;

/// All GPUs of one node, in PCI order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Inventory {
    /// The driver they were read through.
    pub driver: DriverState,
    /// One entry per GPU the driver counts.
    pub gpus: Vec<GpuEntry>,
}

/// Whether there is a driver to ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum DriverState {
    /// It answers.
    Loaded {
        version: Version,
        /// Newest CUDA version it supports, where it tells.
        #[serde(with = "unreported")]
        cuda: Option<Version>,
    },
    /// NVML is missing, or its kernel driver is.
    Missing {
        /// Why, for people.
        reason: String,
    },
}

/// One GPU: good, or known to be there and broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
#[expect(clippy::large_enum_variant, reason = "a node has a few, and most of them are good")]
pub enum GpuEntry {
    /// It answered every question that handing it out needs an answer to.
    Good(Gpu),
    /// It did not. It is not published, and the node gets an Event.
    Broken {
        /// Position in NVML's enumeration, for people.
        index: u32,
        /// If it could still be read.
        uuid: Option<GpuUuid>,
        /// If it could still be read.
        pci: Option<PciAddress>,
        /// Which question failed and how.
        reason: String,
        /// What kind of failure it is, which decides what can be done about it.
        #[serde(default)]
        fault: Fault,
    },
}

/// Why a question to a GPU failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fault {
    /// The GPU does not work.
    #[default]
    Failing,
    /// The driver has no answer on this GPU or platform; the GPU may work.
    Unsupported,
    /// The driver or the kernel does not let this process ask.
    Denied,
}

impl Inventory {
    /// An inventory without a driver.
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
