// SPDX-License-Identifier: Apache-2.0
//! How the GPUs of the simulator are divided, with the NVML calls of `NvmlMachine`.

use dra_hardware::{GpuError, GpuProcess, GpuSelector, MigMachine, MigState, NvmlCode};
use dra_model::{GpuUuid, MigIdentity, MigIds};

use super::question::{Question, instance_at, placement};
use crate::{Code, Simulator};

impl MigMachine for Simulator {
    fn mig_state(&self, gpu: &GpuUuid) -> Result<MigState, GpuError> {
        let question = Question::about(self, GpuSelector::Uuid(gpu))?;
        let is_on = question.is_mig_on()?;
        Ok(MigState { is_on, minor: question.required("nvmlDeviceGetMinorNumber", |gpu, _| Ok(gpu.minor))? })
    }

    fn set_mig_mode(&self, gpu: &GpuUuid, on: bool) -> Result<(), GpuError> {
        let call = "nvmlDeviceSetMigMode";
        let question = Question::about(self, GpuSelector::Uuid(gpu))?;
        let index = question.index;
        let pending = self.call(call, Some(index), |state| state.set_mig_mode(index, on));
        let pending = pending.map_err(|code| question.failed(call, code))?;
        let is_on = question.is_mig_on()?;
        if is_on == on {
            return Ok(());
        }
        self.call(call, Some(index), |state| state.set_mig_mode(index, is_on)).ok();
        Err(GpuError::MigModePending { gpu: gpu.clone(), on, code: NvmlCode(pending.unwrap_or(Code::IN_USE).0) })
    }

    fn create_gpu_instance(&self, mig: &MigIdentity) -> Result<(), GpuError> {
        let call = "nvmlDeviceCreateGpuInstanceWithPlacement";
        let question = Question::about(self, GpuSelector::Uuid(&mig.parent))?;
        let (index, placement) = (question.index, placement(mig));
        let created =
            self.call(call, Some(index), |state| state.create_gpu_instance(index, mig.profile_id, Some(placement)));
        created.map(drop).map_err(|code| question.failed(call, code))
    }

    fn create_compute_instance(&self, mig: &MigIdentity) -> Result<MigIds, GpuError> {
        let call = "nvmlGpuInstanceCreateComputeInstance";
        let question = Question::about(self, GpuSelector::Uuid(&mig.parent))?;
        let created = self.call(call, Some(question.index), |state| {
            let instance = instance_at(state, question.index, mig)?.ok_or(Code::NOT_FOUND)?;
            let profile = state.profile_of(instance)?.compute.iter().find(|one| one.slices == mig.share.slices);
            let created = state.create_compute_instance(instance, profile.ok_or(Code::NOT_SUPPORTED)?.id, None)?;
            Ok((created, state.compute_instance(created)?.uuid.clone()))
        });
        let (created, text) = created.map_err(|code| question.failed(call, code))?;
        let uuid = text.parse().map_err(|_bad| question.failed(call, Code::UNKNOWN))?;
        Ok(MigIds { uuid, gpu_instance: created.instance.id, compute_instance: created.id })
    }

    fn destroy_compute_instances(&self, mig: &MigIdentity) -> Result<(), GpuError> {
        let call = "nvmlComputeInstanceDestroy";
        let question = Question::about(self, GpuSelector::Uuid(&mig.parent))?;
        let found = question.compute_instances(mig)?;
        for target in found {
            let destroyed = self.call(call, Some(question.index), |state| state.destroy_compute_instance(target));
            destroyed.or_else(unless_absent).map_err(|code| question.failed(call, code))?;
        }
        Ok(())
    }

    fn destroy_gpu_instance(&self, mig: &MigIdentity) -> Result<(), GpuError> {
        let call = "nvmlGpuInstanceDestroy";
        let question = Question::about(self, GpuSelector::Uuid(&mig.parent))?;
        let list = "nvmlDeviceGetGpuInstances";
        let found = self.call(list, Some(question.index), |state| instance_at(state, question.index, mig));
        let Some(target) = found.map_err(|code| question.failed(list, code))? else { return Ok(()) };
        let destroyed = self.call(call, Some(question.index), |state| state.destroy_gpu_instance(target));
        destroyed.or_else(unless_absent).map_err(|code| question.failed(call, code))
    }

    fn processes(&self, gpu: &GpuUuid) -> Result<Vec<GpuProcess>, GpuError> {
        let call = "nvmlDeviceGetComputeRunningProcesses_v3";
        let question = Question::about(self, GpuSelector::Uuid(gpu))?;
        question.required(call, |gpu, _| {
            Ok(gpu
                .processes
                .iter()
                .map(|process| GpuProcess { id: process.pid, gpu_instance: process.gpu_instance })
                .collect())
        })
    }
}

/// An instance that is gone by now needs no destroying.
fn unless_absent(code: Code) -> Result<(), Code> {
    if code == Code::NOT_FOUND { Ok(()) } else { Err(code) }
}
