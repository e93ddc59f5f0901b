// SPDX-License-Identifier: Apache-2.0
//! Compute instances and MIG devices.

use std::ffi::c_uint;

use dra_sim::Code;
use dra_sim::catalog::{ComputeProfile, GpuProfile, Placement};
use nvml_wrapper_sys::bindings as nvml;

use crate::call::{Call, Device, exports};
use crate::ffi::{InOut, ListOut, Out, Versioned, narrow, put, size, text_field};
use crate::handle::Handle;

/// `nvmlComputeInstancePlacement_t`.
type Place = nvml::nvmlComputeInstancePlacement_t;

/// `nvmlComputeInstanceInfo_t` of drivers before placements.
#[repr(C)]
pub(crate) struct InfoV1 {
    device: nvml::nvmlDevice_t,
    instance: nvml::nvmlGpuInstance_t,
    id: c_uint,
    profile_id: c_uint,
}

exports! {
    nvmlGpuInstanceGetComputeInstanceProfileInfo: (instance: Handle, profile: c_uint, engines: c_uint, info: Out<'_, nvml::nvmlComputeInstanceProfileInfo_t>) |call| {
        let (parent, found) = profiles(call, instance, profile, engines)?;
        put(info, info_v1(parent, found))
    };

    nvmlGpuInstanceGetComputeInstanceProfileInfoV: (instance: Handle, profile: c_uint, engines: c_uint, info: Versioned) |call| {
        let (parent, found) = profiles(call, instance, profile, engines)?;
        put_info(info, parent, found)
    };

    nvmlGpuInstanceGetComputeInstancePossiblePlacements: (instance: Handle, id: c_uint, places: ListOut<Place>, count: InOut<'_, c_uint>) |call| {
        let target = call.instance(instance)?;
        let profile = call.state.profile_of(target)?.compute_profile(id).ok_or(Code::INVALID_ARGUMENT)?;
        let all: Vec<Place> = profile.placements().map(|Placement { start, size }| Place { start, size }).collect();
        places.put(count, all)
    };

    nvmlGpuInstanceGetComputeInstanceRemainingCapacity: (instance: Handle, id: c_uint, count: Out<'_, c_uint>) |call| {
        let target = call.instance(instance)?;
        put(count, call.state.compute_remaining(target, id)?)
    };

    nvmlGpuInstanceCreateComputeInstance: (instance: Handle, id: c_uint, compute: Out<'_, Handle>) |call| {
        let target = call.instance(instance)?;
        let compute = compute.ok_or(Code::INVALID_ARGUMENT)?;
        let created = call.change(|state| state.create_compute_instance(target, id, None))?;
        put(Some(compute), Handle::compute(created))
    };

    nvmlGpuInstanceCreateComputeInstanceWithPlacement: (instance: Handle, id: c_uint, place: InOut<'_, Place>, compute: Out<'_, Handle>) |call| {
        let target = call.instance(instance)?;
        let place = place.ok_or(Code::INVALID_ARGUMENT)?;
        let compute = compute.ok_or(Code::INVALID_ARGUMENT)?;
        let placement = Placement { start: place.start, size: place.size };
        let created = call.change(|state| state.create_compute_instance(target, id, Some(placement)))?;
        put(Some(compute), Handle::compute(created))
    };

    nvmlComputeInstanceDestroy: (compute: Handle) |call| {
        let target = call.compute(compute)?;
        call.change(|state| state.destroy_compute_instance(target))
    };

    // The caller prescribes room for as many as the profile has instances; the count is only set.
    nvmlGpuInstanceGetComputeInstances: (instance: Handle, id: c_uint, computes: ListOut<Handle>, count: Out<'_, c_uint>) |call| {
        let target = call.instance(instance)?;
        let all = call.state.compute_instances(target, id)?;
        put(count, narrow(all.len()))?;
        computes.fill(all.into_iter().map(Handle::compute).collect())
    };

    nvmlGpuInstanceGetComputeInstanceById: (instance: Handle, id: c_uint, compute: Out<'_, Handle>) |call| {
        let target = call.instance(instance)?;
        put(compute, Handle::compute(call.state.compute_instance_by_id(target, id)?))
    };

    nvmlComputeInstanceGetInfo_v2: (compute: Handle, info: Out<'_, nvml::nvmlComputeInstanceInfo_t>) |call| {
        let target = call.compute(compute)?;
        let found = call.state.compute_instance(target)?;
        let Placement { start, size } = found.placement;
        put(info, nvml::nvmlComputeInstanceInfo_t {
            device: Handle::mig_device_of(target).as_pointer(),
            gpuInstance: Handle::instance(target.instance).as_pointer(),
            id: target.id,
            profileId: found.profile_id,
            placement: Place { start, size },
        })
    };

    nvmlComputeInstanceGetInfo: (compute: Handle, info: Out<'_, InfoV1>) |call| {
        let target = call.compute(compute)?;
        put(info, InfoV1 {
            device: Handle::mig_device_of(target).as_pointer(),
            instance: Handle::instance(target.instance).as_pointer(),
            id: target.id,
            profile_id: call.state.compute_instance(target)?.profile_id,
        })
    };

    nvmlDeviceGetMaxMigDeviceCount: (device: Handle, count: Out<'_, c_uint>) |call| {
        let gpu = call.gpu(device)?;
        put(count, max_devices(call, gpu)?)
    };

    nvmlDeviceGetMigDeviceHandleByIndex: (device: Handle, index: c_uint, mig: Out<'_, Handle>) |call| {
        let gpu = call.gpu(device)?;
        if !call.state.mig_mode(gpu)?.current {
            return Err(Code::NOT_SUPPORTED);
        }
        if index >= max_devices(call, gpu)? {
            return Err(Code::INVALID_ARGUMENT);
        }
        let target = call.visible_mig_devices(gpu)?.get(size(index)).copied().ok_or(Code::NOT_FOUND)?;
        put(mig, Handle::mig_device(target))
    };

    nvmlDeviceGetDeviceHandleFromMigDeviceHandle: (mig: Handle, device: Out<'_, Handle>) |call| {
        match call.device(mig)? {
            Device::Gpu(_) => Err(Code::INVALID_ARGUMENT),
            Device::Mig(target) => put(device, Handle::gpu(target.instance.gpu)),
        }
    };

    nvmlDeviceIsMigDeviceHandle: (device: Handle, answer: Out<'_, c_uint>) |call| {
        put(answer, u32::from(matches!(call.device(device)?, Device::Mig(_))))
    };

    nvmlDeviceGetGpuInstanceId: (device: Handle, id: Out<'_, c_uint>) |call| {
        match call.device(device)? {
            Device::Gpu(_) => Err(Code::INVALID_ARGUMENT),
            Device::Mig(target) => put(id, target.instance.id),
        }
    };

    nvmlDeviceGetComputeInstanceId: (device: Handle, id: Out<'_, c_uint>) |call| {
        match call.device(device)? {
            Device::Gpu(_) => Err(Code::INVALID_ARGUMENT),
            Device::Mig(target) => put(id, target.id),
        }
    };

    nvmlDeviceGetAttributes_v2 + nvmlDeviceGetAttributes: (device: Handle, attributes: Out<'_, nvml::nvmlDeviceAttributes_t>) |call| {
        let Device::Mig(target) = call.device(device)? else { return Err(Code::NOT_SUPPORTED) };
        let parent = call.state.profile_of(target.instance)?;
        let own = call.state.compute_profile_of(target)?;
        put(attributes, nvml::nvmlDeviceAttributes_t {
            multiprocessorCount: own.multiprocessors,
            sharedCopyEngineCount: parent.engines.copy,
            sharedDecoderCount: parent.engines.decoder,
            sharedEncoderCount: parent.engines.encoder,
            sharedJpegCount: parent.engines.jpeg,
            sharedOfaCount: parent.engines.ofa,
            gpuInstanceSliceCount: parent.slices,
            computeInstanceSliceCount: own.slices,
            memorySizeMB: parent.memory_mib,
        })
    };
}

fn max_devices(call: &Call, gpu: usize) -> Result<c_uint, Code> {
    let found = call.state.live_gpu(gpu)?;
    let on = found.mig.is_some_and(|mig| mig.current);
    Ok(found.model()?.mig.as_ref().filter(|_| on).map_or(0, |mig| mig.max_devices))
}

/// The profile of an instance and one of its compute profiles. Shared engines are the only engine profile there is.
fn profiles(
    call: &Call,
    instance: Handle,
    profile: c_uint,
    engines: c_uint,
) -> Result<(&'static GpuProfile, &'static ComputeProfile), Code> {
    let target = call.instance(instance)?;
    if engines != 0 {
        return Err(Code::INVALID_ARGUMENT);
    }
    Ok((call.state.profile_of(target)?, call.state.compute_profile(target, profile)?))
}

/// One version of the struct: the figures that all have, and what only this one has.
macro_rules! info {
    ($name:ident, $parent:expr, $own:expr $(, $field:ident: $value:expr)*) => {
        nvml::$name {
            id: $own.id,
            sliceCount: $own.slices,
            instanceCount: $parent.slices / $own.slices.max(1),
            multiprocessorCount: $own.multiprocessors,
            sharedCopyEngineCount: $parent.engines.copy,
            sharedDecoderCount: $parent.engines.decoder,
            sharedEncoderCount: $parent.engines.encoder,
            sharedJpegCount: $parent.engines.jpeg,
            sharedOfaCount: $parent.engines.ofa,
            $($field: $value),*
        }
    };
}

fn info_v1(parent: &GpuProfile, own: &ComputeProfile) -> nvml::nvmlComputeInstanceProfileInfo_t {
    info!(nvmlComputeInstanceProfileInfo_t, parent, own)
}

/// Versions 2 and 3 carry the name.
fn put_info(info: Versioned, parent: &GpuProfile, own: &ComputeProfile) -> Result<(), Code> {
    let name = text_field(&format!("MIG {}", parent.compute_name(own)));
    let second = info
        .put_if(2, |version| info!(nvmlComputeInstanceProfileInfo_v2_t, parent, own, version: version, name: name))?;
    if second {
        return Ok(());
    }
    info.put(3, |version| {
        info!(nvmlComputeInstanceProfileInfo_v3_t, parent, own, version: version, name: name, capabilities: 0)
    })
}
