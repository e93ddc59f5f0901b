// SPDX-License-Identifier: Apache-2.0
//! Changes how a GPU is divided: MIG mode, GPU instances, compute instances. All of it requires root.
//!
//! Instances are addressed by their ids, which the driver reuses. Handles are asked for at each call, because a handle is
//! invalid after its instance was destroyed.

use std::ptr::null_mut;

use nvml_wrapper_sys::bindings::{
    nvmlComputeInstance_t, nvmlComputeInstanceProfileInfo_t, nvmlGpuInstance_t, nvmlGpuInstancePlacement_t,
};

use crate::device::Device;
use crate::error::{NvmlError, code};
use crate::library::symbol;
use crate::mig::{GpuInstance, Slices};

/// Compute instance profile enums are queried from 0 until the driver returns INVALID_ARGUMENT, and at most up to this one.
const PROFILE_ENUMS: u32 = 64;

/// More instances of one profile than any GPU has.
const MAX_INSTANCES: usize = 64;

/// All engines of a GPU instance are shared by its compute instances (`NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED`).
const SHARED_ENGINES: u32 = 0;

/// Whether a change of the MIG mode is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    InForce,
    /// The mode is pending, for the reason of this code: IN_USE while clients hold the GPU, RESET_REQUIRED.
    Pending(u32),
}

impl Device<'_> {
    /// Turns MIG mode on or off. The call may succeed without effect.
    pub fn set_mig_mode(&self, on: bool) -> Result<Activation, NvmlError> {
        let call = "nvmlDeviceSetMigMode";
        let function = symbol(call, &self.nvml().lib().nvmlDeviceSetMigMode)?;
        let mut status = 0;
        // SAFETY: the handle is of this library and the function writes one code.
        let code = unsafe { function(self.handle(), u32::from(on), &raw mut status) };
        self.nvml().check(call, code)?;
        Ok(if status == 0 { Activation::InForce } else { Activation::Pending(status) })
    }

    /// The GPU instances of a profile with their ids, with MIG mode on.
    pub fn gpu_instances(&self, profile_id: u32) -> Result<Vec<(u32, GpuInstance)>, NvmlError> {
        let call = "nvmlDeviceGetGpuInstances";
        let function = symbol(call, &self.nvml().lib().nvmlDeviceGetGpuInstances)?;
        let mut found: Vec<nvmlGpuInstance_t> = vec![null_mut(); MAX_INSTANCES];
        let mut count = 0;
        // SAFETY: the buffer has room for more instances than the profile can have.
        let code = unsafe { function(self.handle(), profile_id, found.as_mut_ptr(), &raw mut count) };
        self.nvml().check(call, code)?;
        found.truncate(usize::try_from(count).unwrap_or(0));
        let read = |handle| match self.gpu_instance_info(handle) {
            Ok(found) => Some(Ok(found)),
            // It was destroyed since, and its handle is invalid.
            Err(error) if [code::NOT_FOUND, code::INVALID_ARGUMENT].contains(&error.code) => None,
            Err(error) => Some(Err(error)),
        };
        found.into_iter().filter_map(read).collect()
    }

    /// Creates a GPU instance and returns its id.
    pub fn create_gpu_instance(&self, profile_id: u32, placement: Slices) -> Result<u32, NvmlError> {
        let call = "nvmlDeviceCreateGpuInstanceWithPlacement";
        let function = symbol(call, &self.nvml().lib().nvmlDeviceCreateGpuInstanceWithPlacement)?;
        let placement = nvmlGpuInstancePlacement_t { start: placement.start, size: placement.size };
        let mut handle: nvmlGpuInstance_t = null_mut();
        // SAFETY: the device handle is of this library; the function reads one placement and writes one handle.
        let code = unsafe { function(self.handle(), profile_id, &raw const placement, &raw mut handle) };
        self.nvml().check(call, code)?;
        self.gpu_instance_info(handle).map(|(id, _)| id)
    }

    /// Creates a compute instance of this many compute slices, and returns its id.
    pub fn create_compute_instance(&self, gpu_instance: u32, slices: u32) -> Result<u32, NvmlError> {
        let call = "nvmlGpuInstanceCreateComputeInstance";
        let function = symbol(call, &self.nvml().lib().nvmlGpuInstanceCreateComputeInstance)?;
        let owner = self.gpu_instance_handle(gpu_instance)?;
        let profile = self.profile_of_slices(owner, slices)?;
        let mut handle: nvmlComputeInstance_t = null_mut();
        // SAFETY: the library gave the GPU instance handle just now and checks it; the function writes one handle.
        let code = unsafe { function(owner, profile, &raw mut handle) };
        self.nvml().check(call, code)?;
        self.compute_instance_info(handle).map(|(id, _)| id)
    }

    /// The ids of the compute instances of a GPU instance.
    pub fn compute_instance_ids(&self, gpu_instance: u32) -> Result<Vec<u32>, NvmlError> {
        let call = "nvmlGpuInstanceGetComputeInstances";
        let function = symbol(call, &self.nvml().lib().nvmlGpuInstanceGetComputeInstances)?;
        let owner = self.gpu_instance_handle(gpu_instance)?;
        let mut ids = Vec::new();
        for profile in self.compute_profiles(owner) {
            let profile = profile?;
            let mut found: Vec<nvmlComputeInstance_t> = vec![null_mut(); MAX_INSTANCES];
            let mut count = 0;
            // SAFETY: the library gave the GPU instance handle just now and checks it; the buffer has room for more instances
            // than the profile can have.
            let code = unsafe { function(owner, profile.id, found.as_mut_ptr(), &raw mut count) };
            self.nvml().check(call, code)?;
            found.truncate(usize::try_from(count).unwrap_or(0));
            for handle in found {
                ids.push(self.compute_instance_info(handle)?.0);
            }
        }
        // Several profiles may describe one instance.
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// Destroys a compute instance; IN_USE while a process holds it.
    pub fn destroy_compute_instance(&self, gpu_instance: u32, compute_instance: u32) -> Result<(), NvmlError> {
        let call = "nvmlComputeInstanceDestroy";
        let function = symbol(call, &self.nvml().lib().nvmlComputeInstanceDestroy)?;
        let handle = self.compute_instance_handle(gpu_instance, compute_instance)?;
        // SAFETY: the library gave the handle just now and checks it.
        let code = unsafe { function(handle) };
        self.nvml().check(call, code)
    }

    /// Destroys a GPU instance; IN_USE while it has a compute instance or a process holds it.
    pub fn destroy_gpu_instance(&self, gpu_instance: u32) -> Result<(), NvmlError> {
        let call = "nvmlGpuInstanceDestroy";
        let function = symbol(call, &self.nvml().lib().nvmlGpuInstanceDestroy)?;
        let handle = self.gpu_instance_handle(gpu_instance)?;
        // SAFETY: the library gave the handle just now and checks it.
        let code = unsafe { function(handle) };
        self.nvml().check(call, code)
    }

    /// The ids of processes with a compute context on this GPU or on one of its MIG devices, with the id of the GPU instance.
    pub fn processes(&self) -> Result<Vec<(u32, Option<u32>)>, NvmlError> {
        let call = "nvmlDeviceGetComputeRunningProcesses_v3";
        let found = self.nvml().answer(call, self.wrapped().running_compute_processes())?;
        Ok(found.into_iter().map(|process| (process.pid, process.gpu_instance_id)).collect())
    }

    /// The id of the profile of compute instances of this many compute slices.
    fn profile_of_slices(&self, owner: nvmlGpuInstance_t, slices: u32) -> Result<u32, NvmlError> {
        let none = NvmlError { call: "nvmlGpuInstanceGetComputeInstanceProfileInfo", code: code::NOT_SUPPORTED };
        let has_slices = |answer: &Result<nvmlComputeInstanceProfileInfo_t, NvmlError>| {
            answer.as_ref().map_or(true, |profile| profile.sliceCount == slices)
        };
        self.compute_profiles(owner).find(has_slices).unwrap_or(Err(none)).map(|profile| profile.id)
    }

    fn compute_profiles(
        &self,
        owner: nvmlGpuInstance_t,
    ) -> impl Iterator<Item = Result<nvmlComputeInstanceProfileInfo_t, NvmlError>> {
        let is_end =
            |answer: &Result<_, NvmlError>| matches!(answer, Err(NvmlError { code: code::INVALID_ARGUMENT, .. }));
        let is_absent =
            |answer: &Result<_, NvmlError>| matches!(answer, Err(NvmlError { code: code::NOT_SUPPORTED, .. }));
        let profiles = (0..PROFILE_ENUMS).map(move |number| self.compute_profile(owner, number));
        profiles.take_while(move |answer| !is_end(answer)).filter(move |answer| !is_absent(answer))
    }

    fn compute_profile(
        &self,
        owner: nvmlGpuInstance_t,
        number: u32,
    ) -> Result<nvmlComputeInstanceProfileInfo_t, NvmlError> {
        let call = "nvmlGpuInstanceGetComputeInstanceProfileInfo";
        let function = symbol(call, &self.nvml().lib().nvmlGpuInstanceGetComputeInstanceProfileInfo)?;
        let mut info = empty_profile();
        // SAFETY: the library gave the GPU instance handle just now and checks it; `info` is the struct the function fills.
        let code = unsafe { function(owner, number, SHARED_ENGINES, &raw mut info) };
        self.nvml().check(call, code)?;
        Ok(info)
    }
}

fn empty_profile() -> nvmlComputeInstanceProfileInfo_t {
    nvmlComputeInstanceProfileInfo_t {
        id: 0,
        sliceCount: 0,
        instanceCount: 0,
        multiprocessorCount: 0,
        sharedCopyEngineCount: 0,
        sharedDecoderCount: 0,
        sharedEncoderCount: 0,
        sharedJpegCount: 0,
        sharedOfaCount: 0,
    }
}
