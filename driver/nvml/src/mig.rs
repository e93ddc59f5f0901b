// SPDX-License-Identifier: Apache-2.0
//! What a GPU can be cut into and what it is cut into.
//!
//! Profiles have two numbers that are easily mixed up: the **enum** (`NVML_GPU_INSTANCE_PROFILE_*`) is only good for
//! asking about a profile, its **id** is what instances carry and `nvidia-smi mig -lgip` prints.

use std::ffi::c_char;
use std::ptr::null_mut;

use nvml_wrapper_sys::bindings::{
    nvmlComputeInstance_t, nvmlComputeInstanceInfo_t, nvmlComputeInstancePlacement_t, nvmlGpuInstance_t,
    nvmlGpuInstanceInfo_t, nvmlGpuInstancePlacement_t, nvmlGpuInstanceProfileInfo_t, nvmlGpuInstanceProfileInfo_v2_t,
};

use crate::device::Device;
use crate::error::{NvmlError, code};
use crate::library::symbol;

/// A range of slices, the first slice and the number of slices; of memory for a GPU instance, of compute for a compute instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slices {
    pub start: u32,
    pub size: u32,
}

/// One shape a GPU instance can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuInstanceProfile {
    /// The id that instances of this profile carry.
    pub id: u32,
    /// The profile enum of NVML.
    pub number: u32,
    /// `1g.10gb+me`; absent if the driver does not report names.
    pub name: Option<String>,
    /// Compute slices.
    pub slices: u32,
    pub multiprocessors: u32,
    pub copy_engines: u32,
    pub decoders: u32,
    pub encoders: u32,
    pub jpeg_engines: u32,
    pub ofa_engines: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
}

/// A GPU instance that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuInstance {
    pub profile_id: u32,
    /// Memory slices it covers.
    pub placement: Slices,
}

/// A compute instance that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ComputeInstance {
    pub profile_id: u32,
    /// Compute slices of its GPU instance it covers.
    pub placement: Slices,
}

/// What a MIG device holds (`nvmlDeviceAttributes_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MigAttributes {
    /// Streaming multiprocessors of the compute instance.
    pub multiprocessors: u32,
    /// Copy engines of the GPU instance.
    pub copy_engines: u32,
    /// Video decoders of the GPU instance.
    pub decoders: u32,
    /// Video encoders of the GPU instance.
    pub encoders: u32,
    /// JPEG engines of the GPU instance.
    pub jpeg_engines: u32,
    /// Optical flow accelerators of the GPU instance.
    pub ofa_engines: u32,
    /// Compute slices of the GPU instance.
    pub gpu_instance_slices: u32,
    /// Compute slices of the compute instance.
    pub compute_instance_slices: u32,
    /// Memory of the GPU instance in MiB.
    pub memory_mib: u64,
}

/// `NVML_STRUCT_VERSION(GpuInstanceProfileInfo, 2)`: the size of the struct and its version.
const PROFILE_INFO_V2: u32 = 152 + (2 << 24);

/// Profile enums are queried from 0 until the driver returns INVALID_ARGUMENT, and at most up to this one.
const PROFILE_ENUMS: u32 = 64;

/// `NVML_DEVICE_UUID_V2_BUFFER_SIZE`.
const UUID_BYTES: usize = 96;

/// No profile has more placements.
const MAX_PLACEMENTS: u32 = 1024;

impl Device<'_> {
    /// The profiles of this GPU; works with MIG off.
    pub fn gpu_instance_profiles(&self) -> Result<Vec<GpuInstanceProfile>, NvmlError> {
        let mut profiles = Vec::new();
        for number in 0..PROFILE_ENUMS {
            match self.gpu_instance_profile(number) {
                Ok(profile) => profiles.push(profile),
                Err(error) if error.code == code::NOT_SUPPORTED => {}
                Err(error) if error.code == code::INVALID_ARGUMENT => break,
                Err(error) => return Err(error),
            }
        }
        Ok(profiles)
    }

    fn gpu_instance_profile(&self, number: u32) -> Result<GpuInstanceProfile, NvmlError> {
        match self.gpu_instance_profile_v2(number) {
            Err(error) if error.code == code::FUNCTION_NOT_FOUND => self.gpu_instance_profile_v1(number),
            answer => answer,
        }
    }

    fn gpu_instance_profile_v2(&self, number: u32) -> Result<GpuInstanceProfile, NvmlError> {
        let call = "nvmlDeviceGetGpuInstanceProfileInfoV";
        let function = symbol(call, &self.nvml().lib().nvmlDeviceGetGpuInstanceProfileInfoV)?;
        let mut info = empty_profile_v2();
        // SAFETY: the handle is of this library and `info` carries its own size and version.
        let code = unsafe { function(self.handle(), number, &raw mut info) };
        self.nvml().check(call, code)?;
        Ok(profile_v2(number, &info))
    }

    fn gpu_instance_profile_v1(&self, number: u32) -> Result<GpuInstanceProfile, NvmlError> {
        let call = "nvmlDeviceGetGpuInstanceProfileInfo";
        let function = symbol(call, &self.nvml().lib().nvmlDeviceGetGpuInstanceProfileInfo)?;
        let mut info = empty_profile_v1();
        // SAFETY: the handle is of this library and `info` is the struct the function fills.
        let code = unsafe { function(self.handle(), number, &raw mut info) };
        self.nvml().check(call, code)?;
        Ok(profile_v1(number, &info))
    }

    /// Every possible placement of a GPU instance of a profile on an empty GPU; works with MIG off.
    pub fn possible_placements(&self, profile_id: u32) -> Result<Vec<Slices>, NvmlError> {
        let call = "nvmlDeviceGetGpuInstancePossiblePlacements_v2";
        let function = symbol(call, &self.nvml().lib().nvmlDeviceGetGpuInstancePossiblePlacements_v2)?;
        let mut count = 0;
        // SAFETY: with a null buffer the function only writes the count.
        let code = unsafe { function(self.handle(), profile_id, null_mut(), &raw mut count) };
        self.nvml().check(call, code)?;
        let mut count = count.min(MAX_PLACEMENTS);
        let mut found = vec![nvmlGpuInstancePlacement_t { start: 0, size: 0 }; usize::try_from(count).unwrap_or(0)];
        // SAFETY: the buffer has room for `count` placements, and the function receives `count`.
        let code = unsafe { function(self.handle(), profile_id, found.as_mut_ptr(), &raw mut count) };
        self.nvml().check(call, code)?;
        found.truncate(usize::try_from(count).unwrap_or(0));
        Ok(found.into_iter().map(|placement| Slices { start: placement.start, size: placement.size }).collect())
    }

    /// Of a MIG device: the id of its GPU instance.
    pub fn gpu_instance_id(&self) -> Result<u32, NvmlError> {
        self.number("nvmlDeviceGetGpuInstanceId", &self.nvml().lib().nvmlDeviceGetGpuInstanceId)
    }

    /// Of a MIG device: the id of its compute instance.
    pub fn compute_instance_id(&self) -> Result<u32, NvmlError> {
        self.number("nvmlDeviceGetComputeInstanceId", &self.nvml().lib().nvmlDeviceGetComputeInstanceId)
    }

    /// Of a MIG device: what it holds.
    pub fn mig_attributes(&self) -> Result<MigAttributes, NvmlError> {
        let answer = self.nvml().answer("nvmlDeviceGetAttributes_v2", self.wrapped().attributes())?;
        Ok(MigAttributes {
            multiprocessors: answer.multiprocessor_count,
            copy_engines: answer.shared_copy_engine_count,
            decoders: answer.shared_decoder_count,
            encoders: answer.shared_encoder_count,
            jpeg_engines: answer.shared_jpeg_count,
            ofa_engines: answer.shared_ofa_count,
            gpu_instance_slices: answer.gpu_instance_slice_count,
            compute_instance_slices: answer.compute_instance_slice_count,
            memory_mib: answer.memory_size_mb,
        })
    }

    /// Of a GPU: one of its GPU instances.
    pub fn gpu_instance(&self, gpu_instance: u32) -> Result<GpuInstance, NvmlError> {
        self.gpu_instance_info(self.gpu_instance_handle(gpu_instance)?).map(|(_, instance)| instance)
    }

    /// Of a GPU: one of the compute instances of one of its GPU instances.
    pub fn compute_instance(&self, gpu_instance: u32, compute_instance: u32) -> Result<ComputeInstance, NvmlError> {
        let handle = self.compute_instance_handle(gpu_instance, compute_instance)?;
        self.compute_instance_info(handle).map(|(_, instance)| instance)
    }

    /// Of a GPU: the UUID of the MIG device that a compute instance is.
    pub fn mig_uuid(&self, gpu_instance: u32, compute_instance: u32) -> Result<String, NvmlError> {
        let info = self.compute_instance_answer(self.compute_instance_handle(gpu_instance, compute_instance)?)?;
        let call = "nvmlDeviceGetUUID";
        let function = symbol(call, &self.nvml().lib().nvmlDeviceGetUUID)?;
        let mut text: [c_char; UUID_BYTES] = [0; UUID_BYTES];
        // SAFETY: the library gave the device handle just now; the buffer has the length that the function receives.
        let code = unsafe { function(info.device, text.as_mut_ptr(), u32::try_from(UUID_BYTES).unwrap_or(0)) };
        self.nvml().check(call, code)?;
        c_text(&text).ok_or(NvmlError { call, code: code::UNKNOWN })
    }

    /// The id and the values of a GPU instance that the library gave just now.
    pub(crate) fn gpu_instance_info(&self, handle: nvmlGpuInstance_t) -> Result<(u32, GpuInstance), NvmlError> {
        let call = "nvmlGpuInstanceGetInfo";
        let function = symbol(call, &self.nvml().lib().nvmlGpuInstanceGetInfo)?;
        let placement = nvmlGpuInstancePlacement_t { start: 0, size: 0 };
        let mut info = nvmlGpuInstanceInfo_t { device: null_mut(), id: 0, profileId: 0, placement };
        // SAFETY: the library gave the handle just now and checks it; `info` is the struct the function fills.
        let code = unsafe { function(handle, &raw mut info) };
        self.nvml().check(call, code)?;
        let placement = Slices { start: info.placement.start, size: info.placement.size };
        Ok((info.id, GpuInstance { profile_id: info.profileId, placement }))
    }

    /// The id and the values of a compute instance that the library gave just now.
    pub(crate) fn compute_instance_info(
        &self,
        handle: nvmlComputeInstance_t,
    ) -> Result<(u32, ComputeInstance), NvmlError> {
        let info = self.compute_instance_answer(handle)?;
        let placement = Slices { start: info.placement.start, size: info.placement.size };
        Ok((info.id, ComputeInstance { profile_id: info.profileId, placement }))
    }

    fn compute_instance_answer(&self, handle: nvmlComputeInstance_t) -> Result<nvmlComputeInstanceInfo_t, NvmlError> {
        let call = "nvmlComputeInstanceGetInfo_v2";
        let function = symbol(call, &self.nvml().lib().nvmlComputeInstanceGetInfo_v2)?;
        let mut info = empty_compute_instance();
        // SAFETY: the library gave the handle just now and checks it; `info` is the struct the function fills.
        let code = unsafe { function(handle, &raw mut info) };
        self.nvml().check(call, code)?;
        Ok(info)
    }

    pub(crate) fn gpu_instance_handle(&self, id: u32) -> Result<nvmlGpuInstance_t, NvmlError> {
        let call = "nvmlDeviceGetGpuInstanceById";
        let function = symbol(call, &self.nvml().lib().nvmlDeviceGetGpuInstanceById)?;
        let mut handle: nvmlGpuInstance_t = null_mut();
        // SAFETY: the device handle is of this library and the function writes one handle.
        let code = unsafe { function(self.handle(), id, &raw mut handle) };
        self.nvml().check(call, code)?;
        Ok(handle)
    }

    pub(crate) fn compute_instance_handle(&self, gpu: u32, id: u32) -> Result<nvmlComputeInstance_t, NvmlError> {
        let gpu_instance = self.gpu_instance_handle(gpu)?;
        let call = "nvmlGpuInstanceGetComputeInstanceById";
        let function = symbol(call, &self.nvml().lib().nvmlGpuInstanceGetComputeInstanceById)?;
        let mut handle: nvmlComputeInstance_t = null_mut();
        // SAFETY: the library gave the GPU instance handle just now and checks it; the function writes one handle.
        let code = unsafe { function(gpu_instance, id, &raw mut handle) };
        self.nvml().check(call, code)?;
        Ok(handle)
    }
}

fn empty_profile_v1() -> nvmlGpuInstanceProfileInfo_t {
    nvmlGpuInstanceProfileInfo_t {
        id: 0,
        isP2pSupported: 0,
        sliceCount: 0,
        instanceCount: 0,
        multiprocessorCount: 0,
        copyEngineCount: 0,
        decoderCount: 0,
        encoderCount: 0,
        jpegCount: 0,
        ofaCount: 0,
        memorySizeMB: 0,
    }
}

fn empty_profile_v2() -> nvmlGpuInstanceProfileInfo_v2_t {
    nvmlGpuInstanceProfileInfo_v2_t {
        version: PROFILE_INFO_V2,
        id: 0,
        isP2pSupported: 0,
        sliceCount: 0,
        instanceCount: 0,
        multiprocessorCount: 0,
        copyEngineCount: 0,
        decoderCount: 0,
        encoderCount: 0,
        jpegCount: 0,
        ofaCount: 0,
        memorySizeMB: 0,
        name: [0; 96],
    }
}

fn empty_compute_instance() -> nvmlComputeInstanceInfo_t {
    let placement = nvmlComputeInstancePlacement_t { start: 0, size: 0 };
    nvmlComputeInstanceInfo_t { device: null_mut(), gpuInstance: null_mut(), id: 0, profileId: 0, placement }
}

fn profile_v1(number: u32, info: &nvmlGpuInstanceProfileInfo_t) -> GpuInstanceProfile {
    GpuInstanceProfile {
        id: info.id,
        number,
        name: None,
        slices: info.sliceCount,
        multiprocessors: info.multiprocessorCount,
        copy_engines: info.copyEngineCount,
        decoders: info.decoderCount,
        encoders: info.encoderCount,
        jpeg_engines: info.jpegCount,
        ofa_engines: info.ofaCount,
        memory_mib: info.memorySizeMB,
    }
}

fn profile_v2(number: u32, info: &nvmlGpuInstanceProfileInfo_v2_t) -> GpuInstanceProfile {
    GpuInstanceProfile {
        id: info.id,
        number,
        name: profile_name(&info.name),
        slices: info.sliceCount,
        multiprocessors: info.multiprocessorCount,
        copy_engines: info.copyEngineCount,
        decoders: info.decoderCount,
        encoders: info.encoderCount,
        jpeg_engines: info.jpegCount,
        ofa_engines: info.ofaCount,
        memory_mib: info.memorySizeMB,
    }
}

/// The text before the first zero, if it is UTF-8.
fn c_text(text: &[c_char]) -> Option<String> {
    let bytes = text.iter().map(|unit| u8::from_ne_bytes(unit.to_ne_bytes())).take_while(|byte| *byte != 0).collect();
    String::from_utf8(bytes).ok()
}

/// The driver writes `MIG 1g.10gb+me`.
fn profile_name(text: &[c_char]) -> Option<String> {
    let name = c_text(text)?;
    let name = name.strip_prefix("MIG ").unwrap_or(&name).trim();
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn padded(text: &str) -> [c_char; 96] {
        let mut units = [0; 96];
        for (unit, byte) in units.iter_mut().zip(text.bytes()) {
            *unit = c_char::from_ne_bytes([byte]);
        }
        units
    }

    #[test]
    fn profile_names_lose_the_prefix_of_the_driver() {
        for (given, expect) in
            [("MIG 1g.10gb+me", Some("1g.10gb+me")), ("3g.40gb", Some("3g.40gb")), ("MIG ", None), ("", None)]
        {
            assert_eq!(profile_name(&padded(given)).as_deref(), expect, "{given}");
        }
        assert_eq!(profile_name(&[c_char::from_ne_bytes([b'a']); 96]).map(|name| name.len()), Some(96));
    }
}
