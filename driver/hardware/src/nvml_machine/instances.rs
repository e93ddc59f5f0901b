// SPDX-License-Identifier: Apache-2.0
//! Creates and destroys the instances behind a MIG device, which are found by profile and placement, since ids are reused.

use dra_model::{GpuUuid, MigIdentity, MigIds};
use dra_nvml::error::code;
use dra_nvml::{Activation, Device, NvmlError, Slices};

use super::subject::Subject;
use crate::gpu_error::{GpuError, NvmlCode};
use crate::machine::{GpuSelector, MigState};

/// See [`crate::MigMachine::mig_state`].
pub(super) fn mig_state(gpu: &GpuUuid, device: &Device<'_>) -> Result<MigState, GpuError> {
    let read = || Ok(MigState { is_on: device.mig_mode()?, minor: device.minor_number()? });
    read().map_err(|error| Subject::of(GpuSelector::Uuid(gpu)).failed(error))
}

/// See [`crate::MigMachine::set_mig_mode`].
pub(super) fn set_mig_mode(gpu: &GpuUuid, device: &Device<'_>, on: bool) -> Result<(), GpuError> {
    let failed = |error| Subject::of(GpuSelector::Uuid(gpu)).failed(error);
    let activation = device.set_mig_mode(on).map_err(failed)?;
    let is_on = device.mig_mode().map_err(failed)?;
    if is_on == on {
        return Ok(());
    }
    // The error that counts is that of the change.
    device.set_mig_mode(is_on).ok();
    let code = match activation {
        Activation::Pending(code) => code,
        Activation::InForce => code::IN_USE,
    };
    Err(GpuError::MigModePending { gpu: gpu.clone(), on, code: NvmlCode(code) })
}

/// See [`crate::MigMachine::create_gpu_instance`].
pub(super) fn create_gpu_instance(mig: &MigIdentity, device: &Device<'_>) -> Result<(), GpuError> {
    let created = device.create_gpu_instance(mig.profile_id, placement(mig));
    created.map(drop).map_err(|error| failed(mig, error))
}

/// See [`crate::MigMachine::create_compute_instance`].
pub(super) fn create_compute_instance(mig: &MigIdentity, device: &Device<'_>) -> Result<MigIds, GpuError> {
    let absent = NvmlError { call: "nvmlDeviceGetGpuInstances", code: code::NOT_FOUND };
    let gpu_instance = find(mig, device)?.ok_or_else(|| failed(mig, absent))?;
    let create = || {
        let compute_instance = device.create_compute_instance(gpu_instance, mig.share.slices)?;
        Ok((compute_instance, device.mig_uuid(gpu_instance, compute_instance)?))
    };
    let (compute_instance, text) = create().map_err(|error| failed(mig, error))?;
    match text.parse() {
        Ok(uuid) => Ok(MigIds { uuid, gpu_instance, compute_instance }),
        Err(_) => Err(Subject::of(GpuSelector::Uuid(&mig.parent)).unexpected_value("nvmlDeviceGetUUID", text)),
    }
}

/// See [`crate::MigMachine::destroy_compute_instances`].
pub(super) fn destroy_compute_instances(mig: &MigIdentity, device: &Device<'_>) -> Result<(), GpuError> {
    let Some(gpu_instance) = find(mig, device)? else { return Ok(()) };
    let compute_instances = device.compute_instance_ids(gpu_instance).map_err(|error| failed(mig, error))?;
    for compute_instance in compute_instances {
        let destroyed = device.destroy_compute_instance(gpu_instance, compute_instance);
        destroyed.or_else(unless_absent).map_err(|error| failed(mig, error))?;
    }
    Ok(())
}

/// See [`crate::MigMachine::destroy_gpu_instance`].
pub(super) fn destroy_gpu_instance(mig: &MigIdentity, device: &Device<'_>) -> Result<(), GpuError> {
    let Some(gpu_instance) = find(mig, device)? else { return Ok(()) };
    device.destroy_gpu_instance(gpu_instance).or_else(unless_absent).map_err(|error| failed(mig, error))
}

/// The id of the GPU instance. With MIG mode off there is none.
fn find(mig: &MigIdentity, device: &Device<'_>) -> Result<Option<u32>, GpuError> {
    if !device.mig_mode().map_err(|error| failed(mig, error))? {
        return Ok(None);
    }
    let instances = device.gpu_instances(mig.profile_id).map_err(|error| failed(mig, error))?;
    let is_here = |at: Slices| at == placement(mig);
    Ok(instances.into_iter().find(|(_, instance)| is_here(instance.placement)).map(|(id, _)| id))
}

fn placement(mig: &MigIdentity) -> Slices {
    Slices { start: mig.placement.start, size: mig.placement.size }
}

fn failed(mig: &MigIdentity, error: NvmlError) -> GpuError {
    Subject::of(GpuSelector::Uuid(&mig.parent)).failed(error)
}

/// An instance that is gone by now needs no destroying.
fn unless_absent(error: NvmlError) -> Result<(), NvmlError> {
    if error.code == code::NOT_FOUND { Ok(()) } else { Err(error) }
}
