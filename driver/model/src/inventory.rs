// SPDX-License-Identifier: Apache-2.0
//! The GPUs of a node at one moment. The JSON form is the inventory file and the payload of the inventory stream.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::finding::Finding;
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
    /// What is wrong with GPUs, as far as it is judged.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub findings: BTreeMap<GpuUuid, Vec<Finding>>,
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
#[expect(clippy::large_enum_variant, reason = "a node has a few, and most of them are known")]
pub enum GpuEntry {
    /// NVML reported everything that publishing and preparing need, now or earlier.
    #[serde(alias = "good")]
    Known {
        /// The last report.
        #[serde(flatten)]
        gpu: Gpu,
        #[serde(default)]
        health: Health,
    },
    /// NVML never did. The GPU is not published, and the Node gets an Event.
    #[serde(alias = "broken")]
    Unidentified {
        /// Position in the enumeration of NVML, for messages only.
        index: u32,
        /// If it could be read.
        uuid: Option<GpuUuid>,
        /// If it could be read.
        pci: Option<PciAddress>,
        #[serde(flatten)]
        failure: Failure,
    },
}

/// Whether claims can be prepared on a GPU.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Health {
    #[default]
    Usable,
    /// The GPU cannot be read. It stays published with a taint, because a device that leaves its slice loses the pods' claim
    /// status and cannot evict pods.
    Unusable(Failure),
}

/// Why a GPU cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The NVML call that failed, and its code.
    pub reason: String,
    /// Selects the advice for the administrator.
    #[serde(default)]
    pub fault: Fault,
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
        Self { driver: DriverState::Missing { reason }, gpus: Vec::new(), findings: BTreeMap::new() }
    }

    /// The GPUs with their last known state, in PCI order.
    pub fn known_gpus(&self) -> impl Iterator<Item = (&Gpu, &Health)> {
        self.gpus.iter().filter_map(|entry| match entry {
            GpuEntry::Known { gpu, health } => Some((gpu, health)),
            GpuEntry::Unidentified { .. } => None,
        })
    }

    /// The GPUs that claims can be prepared on, in PCI order.
    pub fn usable_gpus(&self) -> impl Iterator<Item = &Gpu> {
        self.known_gpus().filter(|(_, health)| **health == Health::Usable).map(|(gpu, _)| gpu)
    }

    /// What is wrong with a GPU.
    pub fn findings_of(&self, gpu: &GpuUuid) -> &[Finding] {
        self.findings.get(gpu).map_or(&[], Vec::as_slice)
    }

    /// A GPU by identity, as it is known.
    pub fn gpu(&self, uuid: &GpuUuid) -> Option<&Gpu> {
        self.known_gpus().map(|(gpu, _)| gpu).find(|gpu| gpu.uuid == *uuid)
    }
}

impl GpuEntry {
    pub const fn usable(gpu: Gpu) -> Self {
        Self::Known { gpu, health: Health::Usable }
    }

    pub const fn unusable(gpu: Gpu, failure: Failure) -> Self {
        Self::Known { gpu, health: Health::Unusable(failure) }
    }

    /// The identity, if it is known.
    pub const fn uuid(&self) -> Option<&GpuUuid> {
        match self {
            Self::Known { gpu, .. } => Some(&gpu.uuid),
            Self::Unidentified { uuid, .. } => uuid.as_ref(),
        }
    }

    /// The PCI address, if it is known.
    pub const fn pci(&self) -> Option<PciAddress> {
        match self {
            Self::Known { gpu, .. } => Some(gpu.pci),
            Self::Unidentified { pci, .. } => *pci,
        }
    }

    /// Why the GPU cannot be read, unless it is usable.
    pub const fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Known { health: Health::Usable, .. } => None,
            Self::Known { health: Health::Unusable(failure), .. } | Self::Unidentified { failure, .. } => Some(failure),
        }
    }
}
