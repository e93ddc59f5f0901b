// SPDX-License-Identifier: Apache-2.0
//! MIG devices: their placement on the GPU and their resources.

use serde::{Deserialize, Serialize};

use crate::engines::Engines;
use crate::ids::{Bytes, GpuUuid, MigUuid};

/// The position of a GPU instance in memory slices of its GPU (`nvmlGpuInstancePlacement_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Placement {
    /// First memory slice.
    pub start: u32,
    /// Number of memory slices.
    pub size: u32,
}

impl Placement {
    /// The memory slices covered, in order.
    pub fn slices(self) -> impl Iterator<Item = u32> {
        self.start..self.start.saturating_add(self.size)
    }

    /// Whether two placements of one GPU share a memory slice.
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.start.saturating_add(other.size) && other.start < self.start.saturating_add(self.size)
    }
}

/// The part of a GPU instance that a compute instance owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ComputeShare {
    /// First compute slice inside the GPU instance.
    pub start: u32,
    /// Compute slices of the compute instance.
    pub slices: u32,
    /// Compute slices of the GPU instance.
    pub of: u32,
}

impl ComputeShare {
    /// Whether the compute instance spans its whole GPU instance, which is the usual case.
    pub fn is_whole(self) -> bool {
        self.slices == self.of
    }
}

/// The identity of a MIG device across reboots and re-creation.
///
/// Neither the profile's name (it depends on firmware) nor the MIG UUID (it may change, or stay, when the same
/// device is created again) nor the GPU instance id (they are recycled) identifies anything over time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MigIdentity {
    pub parent: GpuUuid,
    /// GPU instance profile id, as `nvidia-smi mig -lgip` prints it (not the NVML enum).
    pub profile_id: u32,
    pub placement: Placement,
    pub share: ComputeShare,
}

impl MigIdentity {
    /// Whether two MIG devices can exist at once; two compute instances may share one GPU instance.
    pub fn overlaps(&self, other: &Self) -> bool {
        if self.parent != other.parent || !self.placement.overlaps(other.placement) {
            return false;
        }
        let same_gpu_instance = self.profile_id == other.profile_id && self.placement == other.placement;
        let disjoint = self.share.start.saturating_add(self.share.slices) <= other.share.start
            || other.share.start.saturating_add(other.share.slices) <= self.share.start;
        !(same_gpu_instance && disjoint)
    }
}

/// A profile of GPU instances (`nvmlGpuInstanceProfileInfo_t`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigProfile {
    /// As `nvidia-smi mig -lgip` prints it (not the NVML enum).
    pub id: u32,
    /// As the driver prints it, such as `1g.10gb+me`.
    pub name: String,
    /// Compute slices.
    pub slices: u32,
    pub memory: Bytes,
    pub engines: Engines,
    /// The possible placements on an empty GPU.
    pub placements: Vec<Placement>,
}

/// Who created an instance or turned MIG mode on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MigOrigin {
    /// An administrator, or another program. This driver never changes it.
    #[default]
    Administrator,
    /// This driver, for a claim.
    ThisDriver,
}

/// A GPU instance that exists, with or without compute instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuInstance {
    /// Reused after the instance is destroyed.
    pub id: u32,
    /// As `nvidia-smi mig -lgip` prints it.
    pub profile_id: u32,
    pub placement: Placement,
    #[serde(default)]
    pub origin: MigOrigin,
}

/// The ids of a MIG device, which may change when it is created again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigIds {
    /// The name for CUDA.
    pub uuid: MigUuid,
    /// GPU instance id, part of the capability path.
    pub gpu_instance: u32,
    /// Compute instance id, part of the capability path.
    pub compute_instance: u32,
}

/// A MIG device that exists on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigDevice {
    pub identity: MigIdentity,
    /// The name for CUDA. It may change when the same device is created again.
    pub uuid: MigUuid,
    /// GPU instance id, part of the capability path. It may change when the same device is created again.
    pub gpu_instance: u32,
    /// Compute instance id, part of the capability path. It may change when the same device is created again.
    pub compute_instance: u32,
    /// Profile name as the driver prints it, such as `1g.10gb`, `1c.3g.40gb` or `1g.10gb+me`.
    pub profile: String,
    /// Memory of its GPU instance.
    pub memory: Bytes,
    /// Engines it can use; those of the GPU instance are shared by its compute instances.
    pub engines: Engines,
    #[serde(default)]
    pub origin: MigOrigin,
}

impl MigDevice {
    pub fn ids(&self) -> MigIds {
        let Self { uuid, gpu_instance, compute_instance, .. } = self;
        MigIds { uuid: uuid.clone(), gpu_instance: *gpu_instance, compute_instance: *compute_instance }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(profile_id: u32, start: u32, size: u32, share: (u32, u32, u32)) -> MigIdentity {
        MigIdentity {
            parent: "GPU-00000000-0000-0000-0000-000000000001".parse().unwrap(),
            profile_id,
            placement: Placement { start, size },
            share: ComputeShare { start: share.0, slices: share.1, of: share.2 },
        }
    }

    #[test]
    fn overlap_depends_on_memory_slices_and_compute_shares() {
        let third = identity(9, 0, 4, (0, 3, 3));
        for (other, expect) in [
            (identity(9, 4, 4, (0, 3, 3)), false),
            (identity(19, 3, 1, (0, 1, 1)), true),
            (identity(9, 0, 4, (0, 3, 3)), true),
            (identity(9, 0, 4, (0, 1, 3)), true),
        ] {
            assert_eq!(third.overlaps(&other), expect, "{other:?}");
            assert_eq!(other.overlaps(&third), expect, "{other:?}");
        }
        assert!(!identity(9, 0, 4, (0, 1, 3)).overlaps(&identity(9, 0, 4, (1, 1, 3))));
        assert!(identity(9, 0, 4, (0, 1, 3)).overlaps(&identity(5, 0, 4, (1, 1, 4))));
    }
}
