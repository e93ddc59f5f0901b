// SPDX-License-Identifier: Apache-2.0
//! GPU instances: profiles, placements, create, list, destroy.

use std::ffi::c_uint;

use dra_sim::Code;
use dra_sim::catalog::{GpuProfile, Placement};
use nvml_wrapper_sys::bindings as nvml;

use crate::call::{Call, exports};
use crate::ffi::{InOut, ListOut, Out, Versioned, narrow, put, text_field};
use crate::handle::Handle;

/// `nvmlGpuInstancePlacement_t`.
type Place = nvml::nvmlGpuInstancePlacement_t;

exports! {
    nvmlDeviceGetGpuInstanceProfileInfo: (device: Handle, profile: c_uint, info: Out<'_, nvml::nvmlGpuInstanceProfileInfo_t>) |call| {
        let gpu = call.gpu(device)?;
        put(info, info_v1(call.state.gpu_profile(gpu, profile)?))
    };

    nvmlDeviceGetGpuInstanceProfileInfoV: (device: Handle, profile: c_uint, info: Versioned) |call| {
        let gpu = call.gpu(device)?;
        put_info(info, call.state.gpu_profile(gpu, profile)?)
    };

    nvmlDeviceGetGpuInstanceProfileInfoByIdV: (device: Handle, id: c_uint, info: Versioned) |call| {
        let gpu = call.gpu(device)?;
        put_info(info, call.state.gpu_profile_by_id(gpu, id)?)
    };

    nvmlDeviceGetGpuInstancePossiblePlacements_v2: (device: Handle, id: c_uint, places: ListOut<Place>, count: InOut<'_, c_uint>) |call| {
        let all = placements(call, device, id)?;
        places.put(count, all)
    };

    // The first version trusts the caller to have room for as many as the profile has instances.
    nvmlDeviceGetGpuInstancePossiblePlacements: (device: Handle, id: c_uint, places: ListOut<Place>, count: Out<'_, c_uint>) |call| {
        let all = placements(call, device, id)?;
        put(count, narrow(all.len()))?;
        places.fill(all)
    };

    nvmlDeviceGetGpuInstanceRemainingCapacity: (device: Handle, id: c_uint, count: Out<'_, c_uint>) |call| {
        let gpu = call.gpu(device)?;
        put(count, call.state.remaining(gpu, id)?)
    };

    nvmlDeviceCreateGpuInstance: (device: Handle, id: c_uint, instance: Out<'_, Handle>) |call| {
        let gpu = call.gpu(device)?;
        let instance = instance.ok_or(Code::INVALID_ARGUMENT)?;
        let created = call.change(|state| state.create_gpu_instance(gpu, id, None))?;
        put(Some(instance), Handle::instance(created))
    };

    nvmlDeviceCreateGpuInstanceWithPlacement: (device: Handle, id: c_uint, place: InOut<'_, Place>, instance: Out<'_, Handle>) |call| {
        let gpu = call.gpu(device)?;
        let place = place.ok_or(Code::INVALID_ARGUMENT)?;
        let instance = instance.ok_or(Code::INVALID_ARGUMENT)?;
        let placement = Placement { start: place.start, size: place.size };
        let created = call.change(|state| state.create_gpu_instance(gpu, id, Some(placement)))?;
        put(Some(instance), Handle::instance(created))
    };

    nvmlGpuInstanceDestroy: (instance: Handle) |call| {
        let target = call.instance(instance)?;
        call.change(|state| state.destroy_gpu_instance(target))
    };

    // The caller prescribes room for as many as the profile has instances; the count is only set.
    nvmlDeviceGetGpuInstances: (device: Handle, id: c_uint, instances: ListOut<Handle>, count: Out<'_, c_uint>) |call| {
        let gpu = call.gpu(device)?;
        let all = call.state.gpu_instances(gpu, id)?;
        put(count, narrow(all.len()))?;
        instances.fill(all.into_iter().map(Handle::instance).collect())
    };

    nvmlDeviceGetGpuInstanceById: (device: Handle, id: c_uint, instance: Out<'_, Handle>) |call| {
        let gpu = call.gpu(device)?;
        put(instance, Handle::instance(call.state.gpu_instance_by_id(gpu, id)?))
    };

    nvmlGpuInstanceGetInfo: (instance: Handle, info: Out<'_, nvml::nvmlGpuInstanceInfo_t>) |call| {
        let target = call.instance(instance)?;
        let found = call.state.gpu_instance(target)?;
        let Placement { start, size } = found.placement;
        put(info, nvml::nvmlGpuInstanceInfo_t {
            device: Handle::gpu(target.gpu).as_pointer(),
            id: target.id,
            profileId: found.profile_id,
            placement: Place { start, size },
        })
    };
}

fn placements(call: &Call, device: Handle, id: c_uint) -> Result<Vec<Place>, Code> {
    let gpu = call.gpu(device)?;
    let profile = call.state.gpu_profile_by_id(gpu, id)?;
    Ok(profile.placements.all().map(|Placement { start, size }| Place { start, size }).collect())
}

/// One version of the struct: the figures that all have, and what only this one has.
macro_rules! info {
    ($name:ident, $profile:expr, $($own:ident: $value:expr),+) => {
        nvml::$name {
            id: $profile.id,
            sliceCount: $profile.slices,
            instanceCount: $profile.max_instances,
            multiprocessorCount: $profile.multiprocessors,
            copyEngineCount: $profile.engines.copy,
            decoderCount: $profile.engines.decoder,
            encoderCount: $profile.engines.encoder,
            jpegCount: $profile.engines.jpeg,
            ofaCount: $profile.engines.ofa,
            memorySizeMB: $profile.memory_mib,
            $($own: $value),+
        }
    };
}

fn info_v1(profile: &GpuProfile) -> nvml::nvmlGpuInstanceProfileInfo_t {
    info!(nvmlGpuInstanceProfileInfo_t, profile, isP2pSupported: 0)
}

/// Versions 2 and 3 carry the name.
fn put_info(info: Versioned, profile: &GpuProfile) -> Result<(), Code> {
    let name = text_field(&format!("MIG {}", profile.name));
    let second = info.put_if(
        2,
        |version| info!(nvmlGpuInstanceProfileInfo_v2_t, profile, version: version, isP2pSupported: 0, name: name),
    )?;
    if second {
        return Ok(());
    }
    info.put(
        3,
        |version| info!(nvmlGpuInstanceProfileInfo_v3_t, profile, version: version, name: name, capabilities: 0),
    )
}
