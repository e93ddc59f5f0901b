// SPDX-License-Identifier: Apache-2.0
//! Compute instances and the MIG devices they make.
//!
//! In: GPU instances and compute profile ids. Out: compute instances with the UUID of their MIG device.

use crate::catalog::{ComputeProfile, Placement};
use crate::state::{ComputeInstance, GpuInstance, MigUuids, State};
use crate::{Code, identity};

use super::InstanceRef;

/// One compute instance, which is one MIG device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ComputeRef {
    /// The GPU instance it is part of.
    pub instance: InstanceRef,
    /// `nvmlComputeInstanceInfo_t.id`, reused after the instance is destroyed.
    pub id: u32,
    /// Distinguishes instances with the same id.
    pub incarnation: u64,
}

impl State {
    /// `nvmlGpuInstanceGetComputeInstanceProfileInfo`: `NOT_SUPPORTED` for a profile this instance lacks.
    pub fn compute_profile(&self, target: InstanceRef, profile: u32) -> Result<&'static ComputeProfile, Code> {
        if profile > LAST_PROFILE {
            return Err(Code::INVALID_ARGUMENT);
        }
        self.profile_of(target)?.compute_profile(profile).ok_or(Code::NOT_SUPPORTED)
    }

    /// `nvmlGpuInstanceGetComputeInstanceRemainingCapacity`.
    pub fn compute_remaining(&self, target: InstanceRef, profile_id: u32) -> Result<u32, Code> {
        self.profile_of(target)?.compute_profile(profile_id).ok_or(Code::INVALID_ARGUMENT)?;
        let mut trial = self.clone();
        let mut count = 0;
        while trial.create_compute_instance(target, profile_id, None).is_ok() {
            count += 1;
        }
        Ok(count)
    }

    /// `nvmlGpuInstanceCreateComputeInstance` and `…WithPlacement`.
    pub fn create_compute_instance(
        &mut self,
        target: InstanceRef,
        profile_id: u32,
        placement: Option<Placement>,
    ) -> Result<ComputeRef, Code> {
        let profile = self.profile_of(target)?.compute_profile(profile_id).ok_or(Code::INVALID_ARGUMENT)?;
        let instance = self.gpu_instance(target)?;
        let free = |at: Placement| !instance.compute.values().any(|other| other.placement.overlaps(at));
        let placement = match placement {
            Some(wanted) => profile.placements().find(|&at| at == wanted).ok_or(Code::INVALID_ARGUMENT)?,
            None => profile.placements().find(|&at| free(at)).ok_or(Code::INSUFFICIENT_RESOURCES)?,
        };
        if !free(placement) {
            return Err(Code::INSUFFICIENT_RESOURCES);
        }
        let id = (0..=MAX_COMPUTE_INSTANCE_ID)
            .find(|id| !instance.compute.contains_key(id))
            .ok_or(Code::INSUFFICIENT_RESOURCES)?;
        let incarnation = self.incarnations + 1;
        let uuid = self.mig_uuid(target, instance, placement, id, incarnation)?;
        let created = ComputeInstance { profile_id, placement, incarnation, uuid };
        self.gpu_instance_mut(target)?.compute.insert(id, created);
        self.incarnations = incarnation;
        self.effects += 1;
        self.report_mig_change(target.gpu);
        Ok(ComputeRef { instance: target, id, incarnation })
    }

    /// `nvmlComputeInstanceDestroy`: `IN_USE` while a process holds its GPU instance.
    pub fn destroy_compute_instance(&mut self, target: ComputeRef) -> Result<(), Code> {
        self.compute_instance(target)?;
        if self.live_gpu(target.instance.gpu)?.is_instance_in_use(target.instance.id) {
            return Err(Code::IN_USE);
        }
        self.gpu_instance_mut(target.instance)?.compute.remove(&target.id);
        self.effects += 1;
        self.report_mig_change(target.instance.gpu);
        Ok(())
    }

    /// `nvmlGpuInstanceGetComputeInstances`: those of one profile, by id.
    pub fn compute_instances(&self, target: InstanceRef, profile_id: u32) -> Result<Vec<ComputeRef>, Code> {
        self.profile_of(target)?.compute_profile(profile_id).ok_or(Code::INVALID_ARGUMENT)?;
        let all = compute_of(target, self.gpu_instance(target)?);
        Ok(all.into_iter().filter(|(_, compute)| compute.profile_id == profile_id).map(|(found, _)| found).collect())
    }

    /// `nvmlGpuInstanceGetComputeInstanceById`.
    pub fn compute_instance_by_id(&self, target: InstanceRef, id: u32) -> Result<ComputeRef, Code> {
        let found = self.gpu_instance(target)?.compute.get(&id).ok_or(Code::NOT_FOUND)?;
        Ok(ComputeRef { instance: target, id, incarnation: found.incarnation })
    }

    /// The compute instance, unless it was destroyed.
    pub fn compute_instance(&self, target: ComputeRef) -> Result<&ComputeInstance, Code> {
        let found = self.gpu_instance(target.instance)?.compute.get(&target.id);
        found.filter(|compute| compute.incarnation == target.incarnation).ok_or(Code::NOT_FOUND)
    }

    /// The profile of a compute instance.
    pub fn compute_profile_of(&self, target: ComputeRef) -> Result<&'static ComputeProfile, Code> {
        let id = self.compute_instance(target)?.profile_id;
        self.profile_of(target.instance)?.compute_profile(id).ok_or(Code::UNKNOWN)
    }

    /// All MIG devices of a GPU, by GPU instance and compute instance id; none while MIG mode is off.
    pub fn mig_devices(&self, gpu: usize) -> Result<Vec<ComputeRef>, Code> {
        let instances = self.live_gpu(gpu)?.instances.iter();
        let of = |(&id, instance): (&u32, &GpuInstance)| {
            let target = InstanceRef { gpu, id, incarnation: instance.incarnation };
            compute_of(target, instance).into_iter().map(|(found, _)| found).collect::<Vec<_>>()
        };
        Ok(instances.flat_map(of).collect())
    }

    /// The MIG device with this UUID on any GPU that answers.
    pub fn mig_device_by_uuid(&self, uuid: &str) -> Option<ComputeRef> {
        let devices = (0..self.gpus.len()).filter_map(|gpu| self.mig_devices(gpu).ok()).flatten();
        devices.into_iter().find(|&device| self.compute_instance(device).is_ok_and(|compute| compute.uuid == uuid))
    }

    /// Product name of a MIG device: `NVIDIA H100 80GB HBM3 MIG 1g.10gb`.
    pub fn mig_device_name(&self, target: ComputeRef) -> Result<String, Code> {
        let profile = self.profile_of(target.instance)?;
        let model = self.live_gpu(target.instance.gpu)?.model()?;
        Ok(format!("{} MIG {}", model.name, profile.compute_name(self.compute_profile_of(target)?)))
    }

    fn gpu_instance_mut(&mut self, target: InstanceRef) -> Result<&mut GpuInstance, Code> {
        let found = self.live_gpu_mut(target.gpu)?.instances.get_mut(&target.id);
        found.filter(|instance| instance.incarnation == target.incarnation).ok_or(Code::NOT_FOUND)
    }

    /// A hash of board, placement and id, and of the incarnation if each UUID is new.
    fn mig_uuid(
        &self,
        target: InstanceRef,
        instance: &GpuInstance,
        placement: Placement,
        id: u32,
        incarnation: u64,
    ) -> Result<String, Code> {
        let place = format!(
            "{}:{}/{id}@{}:{}",
            instance.placement.start, instance.placement.size, placement.start, placement.size
        );
        let salt = match self.mig_uuids {
            MigUuids::Stable => String::new(),
            MigUuids::Fresh => incarnation.to_string(),
        };
        let gpu = &self.live_gpu(target.gpu)?.uuid;
        Ok(format!("MIG-{}", identity::uuid(&[gpu, &place, &salt])))
    }
}

/// The last `NVML_COMPUTE_INSTANCE_PROFILE_*` of the simulated driver (nvml.h of R580).
const LAST_PROFILE: u32 = 7;

/// Compute instance ids go from 0 to this, as the capability minors have room for eight (nv-caps.c).
const MAX_COMPUTE_INSTANCE_ID: u32 = 7;

fn compute_of(target: InstanceRef, instance: &GpuInstance) -> Vec<(ComputeRef, &ComputeInstance)> {
    let all = instance.compute.iter();
    all.map(|(&id, compute)| (ComputeRef { instance: target, id, incarnation: compute.incarnation }, compute)).collect()
}
