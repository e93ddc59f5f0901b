// SPDX-License-Identifier: Apache-2.0
//! Partitions: the MIG devices that this driver can create on a GPU, each a GPU instance of one profile at one placement with one
//! compute instance that spans it.
//!
//! Profiles and placements are those that the NVIDIA driver reports. A partition exists only while a claim is prepared that was
//! allocated it. Which partitions are offered depends on what administrators did with the GPU, never on running claims.

use crate::engines::Engines;
use crate::gpu::{Gpu, MigLayout, MigMode};
use crate::ids::GpuUuid;
use crate::mig::{ComputeShare, MigDevice, MigIdentity, MigOrigin, MigProfile, Placement};

/// A MIG device that this driver can create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition<'a> {
    pub profile: &'a MigProfile,
    pub placement: Placement,
}

impl Partition<'_> {
    pub fn identity(&self, parent: &GpuUuid) -> MigIdentity {
        let slices = self.profile.slices;
        MigIdentity {
            parent: parent.clone(),
            profile_id: self.profile.id,
            placement: self.placement,
            share: ComputeShare { start: 0, slices, of: slices },
        }
    }
}

impl MigLayout {
    /// A profile by id.
    pub fn profile(&self, id: u32) -> Option<&MigProfile> {
        self.profiles.iter().find(|profile| profile.id == id)
    }

    /// Every profile at every placement.
    pub fn partitions(&self) -> impl Iterator<Item = Partition<'_>> {
        self.profiles.iter().flat_map(|profile| {
            profile.placements.iter().map(move |placement| Partition { profile, placement: *placement })
        })
    }

    /// The compute slices of the GPU: those of the largest profile.
    pub fn compute_slices(&self) -> u32 {
        self.profiles.iter().map(|profile| profile.slices).max().unwrap_or(0)
    }
}

impl Gpu {
    /// Whether the GPU can be used as a whole: MIG mode is off, or this driver turned it on and can turn it off.
    pub fn is_whole(&self) -> bool {
        match &self.mig {
            MigMode::Unsupported | MigMode::Off(_) => true,
            MigMode::On { origin, .. } => *origin == MigOrigin::ThisDriver && self.foreign_placements().is_empty(),
        }
    }

    /// The MIG devices that an administrator created.
    pub fn foreign_mig_devices(&self) -> impl Iterator<Item = &MigDevice> {
        self.mig_devices().iter().filter(|mig| mig.origin == MigOrigin::Administrator)
    }

    /// The partitions that this driver can create beside the instances of administrators, in the order of the profiles' ids.
    ///
    /// With MIG mode off there are none, unless the mode can be turned on without a reset of the GPU.
    pub fn partitions(&self) -> Vec<Partition<'_>> {
        let Some(layout) = self.mig_layout() else { return Vec::new() };
        if matches!(self.mig, MigMode::Off(_)) && !layout.resetless {
            return Vec::new();
        }
        let taken = self.foreign_placements();
        let left = Left::beside(layout, &taken);
        let is_free = |placement: Placement| taken.iter().all(|(_, other)| !other.overlaps(placement));
        layout.partitions().filter(|one| left.admits(one.profile) && is_free(one.placement)).collect()
    }

    /// The partition of an identity, if this driver can create it.
    pub fn partition(&self, identity: &MigIdentity) -> Option<Partition<'_>> {
        self.partitions().into_iter().find(|partition| partition.identity(&self.uuid) == *identity)
    }

    fn foreign_placements(&self) -> Vec<(u32, Placement)> {
        self.placements(|origin| origin == MigOrigin::Administrator)
    }

    /// Profile id and placement of the GPU instances, listed or known by their MIG devices.
    pub(crate) fn placements(&self, of: impl Fn(MigOrigin) -> bool) -> Vec<(u32, Placement)> {
        let listed = self.gpu_instances().iter().filter(|instance| of(instance.origin));
        let listed = listed.map(|instance| (instance.profile_id, instance.placement));
        let devices = self.mig_devices().iter().filter(|mig| of(mig.origin));
        let of_devices = devices.map(|mig| (mig.identity.profile_id, mig.identity.placement));
        let mut all: Vec<(u32, Placement)> = listed.chain(of_devices).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// What GPU instances leave of a GPU: those of administrators exist whether a claim uses them or not.
#[derive(Clone, Copy)]
pub(crate) struct Left {
    slices: u32,
    engines: Engines,
}

impl Left {
    pub(crate) fn beside(layout: &MigLayout, taken: &[(u32, Placement)]) -> Self {
        let taken = taken.iter().filter_map(|(id, _)| layout.profile(*id));
        let all = Self { slices: layout.compute_slices(), engines: layout.engines };
        taken.fold(all, Self::without)
    }

    pub(crate) fn without(self, profile: &MigProfile) -> Self {
        Self { slices: self.slices.saturating_sub(profile.slices), engines: self.engines.without(profile.engines) }
    }

    pub(crate) fn admits(&self, profile: &MigProfile) -> bool {
        profile.slices <= self.slices && profile.engines.fits_in(self.engines)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::gpu::tests::plain_gpu as gpu;
    use crate::ids::Bytes;
    use crate::mig::GpuInstance;

    const NONE: Engines =
        Engines { multiprocessors: 0, copy_engines: 0, decoders: 0, encoders: 0, jpeg_engines: 0, ofa_engines: 0 };

    fn profile(id: u32, slices: u32, size: u32, starts: &[u32], ofa_engines: u32) -> MigProfile {
        MigProfile {
            id,
            name: format!("{slices}g"),
            slices,
            memory: Bytes::from_mib(u64::from(size) * 10_000),
            engines: Engines { ofa_engines, ..NONE },
            placements: starts.iter().map(|start| Placement { start: *start, size }).collect(),
        }
    }

    /// As an H100, without some profiles.
    pub(crate) fn layout(resetless: bool) -> MigLayout {
        let profiles = vec![
            profile(0, 7, 8, &[0], 1),
            profile(9, 3, 4, &[0, 4], 0),
            profile(19, 1, 1, &[0, 1, 2, 3, 4, 5, 6], 0),
            profile(20, 1, 1, &[0, 1, 2, 3, 4, 5, 6], 1),
        ];
        MigLayout { memory_slices: 8, engines: Engines { ofa_engines: 1, ..NONE }, resetless, profiles }
    }

    pub(crate) fn instance(profile_id: u32, start: u32, size: u32, origin: MigOrigin) -> GpuInstance {
        GpuInstance { id: 9, profile_id, placement: Placement { start, size }, origin }
    }

    pub(crate) fn on(origin: MigOrigin, gpu_instances: Vec<GpuInstance>) -> Gpu {
        gpu(MigMode::On { layout: Some(layout(true)), devices: Vec::new(), gpu_instances, origin })
    }

    fn starts(gpu: &Gpu, profile_id: u32) -> Vec<u32> {
        let all = gpu.partitions().into_iter();
        all.filter(|one| one.profile.id == profile_id).map(|one| one.placement.start).collect()
    }

    #[test]
    fn a_gpu_is_divided_where_mig_mode_is_on_or_can_be_turned_on_without_a_reset() {
        assert_eq!(gpu(MigMode::Unsupported).partitions().len(), 0);
        assert_eq!(gpu(MigMode::Off(layout(false))).partitions().len(), 0);
        assert_eq!(gpu(MigMode::Off(layout(true))).partitions().len(), 17);
        assert_eq!(on(MigOrigin::Administrator, Vec::new()).partitions().len(), 17);
    }

    #[test]
    fn instances_of_an_administrator_leave_the_rest_and_own_ones_take_nothing() {
        let own = on(MigOrigin::ThisDriver, vec![instance(19, 0, 1, MigOrigin::ThisDriver)]);
        assert_eq!((own.partitions().len(), own.is_whole()), (17, true));
        // The instance has the only OFA engine, and with four of seven compute slices left no second one of three.
        let foreign = on(MigOrigin::ThisDriver, vec![instance(20, 5, 1, MigOrigin::Administrator)]);
        assert_eq!(starts(&foreign, 19), [0, 1, 2, 3, 4, 6]);
        assert_eq!((starts(&foreign, 20), starts(&foreign, 9), starts(&foreign, 0)), (vec![], vec![0], vec![]));
        assert!(!foreign.is_whole());
    }

    #[test]
    fn the_mode_of_an_administrator_withdraws_the_whole_gpu() {
        assert!(!on(MigOrigin::Administrator, Vec::new()).is_whole());
        assert!(on(MigOrigin::ThisDriver, Vec::new()).is_whole());
        assert!(gpu(MigMode::Off(layout(false))).is_whole());
    }
}
