// SPDX-License-Identifier: Apache-2.0
//! What a node has right now. Its JSON form is the inventory file and the payload of the node's inventory stream.

use serde::{Deserialize, Serialize};

use crate::gpu::Gpu;
use crate::ids::{GpuUuid, PciAddress, Version};

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
        /// Driver version.
        version: Version,
        /// Newest CUDA version it supports.
        cuda: Version,
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
pub enum GpuEntry {
    /// It answered every question.
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
    },
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
