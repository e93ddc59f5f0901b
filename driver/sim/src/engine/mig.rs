// SPDX-License-Identifier: Apache-2.0
//! GPU instances: profiles, placements, what is left, create and destroy.
//!
//! In: profile ids and placements in memory slices. Out: instance ids from the small recycled set that real boards use.
//! Occupied and used up return the same code, `INSUFFICIENT_RESOURCES`, as on real hardware.

use crate::Code;
use crate::catalog::{Engines, GpuProfile, MigModel, Placement};
use crate::state::{Gpu, GpuInstance, State};

/// The last `NVML_GPU_INSTANCE_PROFILE_*` of the simulated driver (nvml.h of R580).
const LAST_PROFILE: u32 = 16;

/// One GPU instance. It is invalid after it is destroyed, even if its id is reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InstanceRef {
    pub gpu: usize,
    /// `nvmlGpuInstanceInfo_t.id`, reused after the instance is destroyed.
    pub id: u32,
    /// Distinguishes instances with the same id.
    pub incarnation: u64,
}

impl State {
    /// `nvmlDeviceGetGpuInstanceProfileInfo`, by profile enumeration.
    pub fn gpu_profile(&self, gpu: usize, profile: u32) -> Result<&'static GpuProfile, Code> {
        if profile > LAST_PROFILE {
            return Err(Code::INVALID_ARGUMENT);
        }
        let mig = self.mig_model(gpu)?;
        mig.profiles.iter().find(|candidate| candidate.profile == profile).ok_or(Code::NOT_SUPPORTED)
    }

    /// `nvmlDeviceGetGpuInstanceProfileInfoByIdV`, by profile id.
    pub fn gpu_profile_by_id(&self, gpu: usize, id: u32) -> Result<&'static GpuProfile, Code> {
        self.mig_model(gpu)?.profile(id).ok_or(Code::INVALID_ARGUMENT)
    }

    /// `nvmlDeviceGetGpuInstanceRemainingCapacity`: how many more of this profile fit now.
    pub fn remaining(&self, gpu: usize, profile_id: u32) -> Result<u32, Code> {
        let profile = self.mig_on(gpu)?.profile(profile_id).ok_or(Code::INVALID_ARGUMENT)?;
        let mut trial = self.clone();
        let mut count = 0;
        while trial.create_gpu_instance(gpu, profile.id, None).is_ok() {
            count += 1;
        }
        Ok(count)
    }

    /// `nvmlDeviceCreateGpuInstance` and `…WithPlacement`. Without a placement the one that blocks the fewest others.
    pub fn create_gpu_instance(
        &mut self,
        index: usize,
        profile_id: u32,
        placement: Option<Placement>,
    ) -> Result<InstanceRef, Code> {
        let model = self.mig_on(index)?;
        let profile = model.profile(profile_id).ok_or(Code::INVALID_ARGUMENT)?;
        let gpu = self.live_gpu(index)?;
        let placement = match placement {
            Some(wanted) => profile.placements.all().find(|&at| at == wanted).ok_or(Code::INVALID_ARGUMENT)?,
            None => best_placement(gpu, model, profile).ok_or(Code::INSUFFICIENT_RESOURCES)?,
        };
        if !fits(gpu, model, profile, placement) {
            return Err(Code::INSUFFICIENT_RESOURCES);
        }
        let id = instance_id(gpu, model, placement);
        self.incarnations += 1;
        let incarnation = self.incarnations;
        let instance = GpuInstance { profile_id, placement, incarnation, compute: std::collections::BTreeMap::new() };
        self.live_gpu_mut(index)?.instances.insert(id, instance);
        self.effects += 1;
        self.report_mig_change(index);
        Ok(InstanceRef { gpu: index, id, incarnation })
    }

    /// `nvmlGpuInstanceDestroy`: `IN_USE` while a compute instance exists or a process holds it.
    pub fn destroy_gpu_instance(&mut self, target: InstanceRef) -> Result<(), Code> {
        let has_compute = !self.gpu_instance(target)?.compute.is_empty();
        if has_compute || self.live_gpu(target.gpu)?.is_instance_in_use(target.id) {
            return Err(Code::IN_USE);
        }
        self.live_gpu_mut(target.gpu)?.instances.remove(&target.id);
        self.effects += 1;
        self.report_mig_change(target.gpu);
        Ok(())
    }

    /// `nvmlDeviceGetGpuInstances`: those of one profile, by id.
    pub fn gpu_instances(&self, gpu: usize, profile_id: u32) -> Result<Vec<InstanceRef>, Code> {
        self.mig_on(gpu)?.profile(profile_id).ok_or(Code::INVALID_ARGUMENT)?;
        let instances = &self.live_gpu(gpu)?.instances;
        let of_profile = instances.iter().filter(|(_, instance)| instance.profile_id == profile_id);
        Ok(of_profile.map(|(&id, instance)| InstanceRef { gpu, id, incarnation: instance.incarnation }).collect())
    }

    /// `nvmlDeviceGetGpuInstanceById`.
    pub fn gpu_instance_by_id(&self, gpu: usize, id: u32) -> Result<InstanceRef, Code> {
        self.mig_on(gpu)?;
        let instance = self.live_gpu(gpu)?.instances.get(&id).ok_or(Code::NOT_FOUND)?;
        Ok(InstanceRef { gpu, id, incarnation: instance.incarnation })
    }

    /// The instance, unless it was destroyed.
    pub fn gpu_instance(&self, target: InstanceRef) -> Result<&GpuInstance, Code> {
        let found = self.live_gpu(target.gpu)?.instances.get(&target.id);
        found.filter(|instance| instance.incarnation == target.incarnation).ok_or(Code::NOT_FOUND)
    }

    /// The profile of an instance.
    pub fn profile_of(&self, target: InstanceRef) -> Result<&'static GpuProfile, Code> {
        let id = self.gpu_instance(target)?.profile_id;
        self.gpu_profile_by_id(target.gpu, id)
    }

    /// MIG data of the GPU, whatever its mode.
    pub(crate) fn mig_model(&self, gpu: usize) -> Result<&'static MigModel, Code> {
        self.live_gpu(gpu)?.model()?.mig.as_ref().ok_or(Code::NOT_SUPPORTED)
    }

    /// MIG data of the GPU if its mode is on; calls about instances are not supported otherwise.
    pub(crate) fn mig_on(&self, gpu: usize) -> Result<&'static MigModel, Code> {
        let model = self.mig_model(gpu)?;
        if self.mig_mode(gpu)?.current { Ok(model) } else { Err(Code::NOT_SUPPORTED) }
    }
}

/// Whether an instance can be created there: free slices, instances of the profile left, engines and compute slices left.
fn fits(gpu: &Gpu, model: &MigModel, profile: &GpuProfile, placement: Placement) -> bool {
    let mut engines = profile.engines;
    let mut slices = profile.slices;
    let mut same = 0;
    for instance in gpu.instances.values() {
        if instance.placement.overlaps(placement) {
            return false;
        }
        same += u32::from(instance.profile_id == profile.id);
        let other = model.profile(instance.profile_id);
        engines = engines.plus(other.map_or_else(Engines::default, |other| other.engines));
        slices += other.map_or(0, |other| other.slices);
    }
    same < profile.max_instances && slices <= model.compute_slices && engines.within(model.engines())
}

/// The free placement that makes the fewest other placements impossible; the lowest of equals.
fn best_placement(gpu: &Gpu, model: &MigModel, profile: &GpuProfile) -> Option<Placement> {
    let free = |at: Placement| !gpu.instances.values().any(|instance| instance.placement.overlaps(at));
    let broken = |candidate: Placement| {
        let every = model.profiles.iter().flat_map(|other| other.placements.all());
        every.filter(|&at| free(at) && at.overlaps(candidate)).count()
    };
    profile.placements.all().filter(|&at| fits(gpu, model, profile, at)).min_by_key(|&at| broken(at))
}

/// Instance ids form a tree: 0 the whole board, 1 and 2 its halves, 3 to 6 its quarters, 7 to 14 its eighths.
/// Which half comes first differs between boards (NVIDIA MIG user guide: 3g at 4:4 is 1; 1g at 6:1 is 9 or 13).
fn instance_id(gpu: &Gpu, model: &MigModel, placement: Placement) -> u32 {
    let parts = model.memory_slices / placement.size.max(1);
    let position = placement.start / placement.size.max(1);
    let position = if gpu.halves_swapped { position ^ (parts / 2) } else { position };
    parts - 1 + position
}
