// SPDX-License-Identifier: Apache-2.0
//! Events and condition of a GPU by NVML.

use std::sync::Arc;
use std::time::Duration;

use dra_model::{GpuUuid, Slowdown};
use dra_nvml::events::kind;
use dra_nvml::{Device, EventSet, Nvml, NvmlError};

use super::subject::Subject;
use crate::gpu_error::GpuError;
use crate::health::{GpuCondition, GpuEvent, GpuEvents};
use crate::machine::GpuSelector;

/// Every kind that may concern the health of a GPU. Kinds that a driver does not know are not registered.
const WANTED: u64 = kind::XID
    | kind::DOUBLE_BIT_ECC
    | kind::SINGLE_BIT_ECC_STORM
    | kind::DRAM_RETIREMENT
    | kind::NON_FATAL_POISON
    | kind::FATAL_POISON
    | kind::GPU_UNAVAILABLE
    | kind::RECOVERY_ACTION;

/// `NVML_GPU_FABRIC_STATE_NOT_STARTED` and `…_IN_PROGRESS`.
const FABRIC_PENDING: [u32; 2] = [1, 2];

/// See [`crate::health::HealthMachine::condition`].
pub(super) fn condition(gpu: &GpuUuid, device: &Device<'_>) -> Result<GpuCondition, GpuError> {
    read(device).map_err(|error| Subject::of(GpuSelector::Uuid(gpu)).failed(error))
}

fn read(device: &Device<'_>) -> Result<GpuCondition, NvmlError> {
    let recovery_action = known(device.recovery_action())?;
    let rows = known(device.remapped_rows())?;
    let has_pending_pages = known(device.has_pending_pages())?.unwrap_or(false);
    let fabric = known(device.fabric_state())?;
    let is_divided = known(device.mig_mode())?.unwrap_or(false);
    let reasons = known(device.throttle_reasons())?.unwrap_or(0);
    Ok(GpuCondition {
        recovery_action,
        is_remap_pending: has_pending_pages || rows.is_some_and(|rows| rows.is_pending),
        has_remap_failed: rows.is_some_and(|rows| rows.has_failed),
        is_fabric_pending: fabric.is_some_and(|state| FABRIC_PENDING.contains(&state)) && !is_divided,
        slowdown: Slowdown::of_reasons(reasons),
    })
}

/// Converts an unsupported call into nothing.
fn known<T>(answer: Result<T, NvmlError>) -> Result<Option<T>, NvmlError> {
    match answer {
        Err(error) if error.is_unsupported() => Ok(None),
        answer => answer.map(Some),
    }
}

/// The event set of a GPU.
#[derive(Debug)]
pub(super) struct NvmlEvents {
    gpu: GpuUuid,
    set: EventSet,
}

impl NvmlEvents {
    pub(super) fn open(gpu: &GpuUuid, nvml: Arc<Nvml>) -> Result<Self, GpuError> {
        let set = EventSet::of_gpu(nvml, gpu.as_str(), WANTED);
        let set = set.map_err(|error| Subject::of(GpuSelector::Uuid(gpu)).failed(error))?;
        Ok(Self { gpu: gpu.clone(), set })
    }
}

impl GpuEvents for NvmlEvents {
    fn wait(&mut self, timeout: Duration) -> Result<Option<GpuEvent>, GpuError> {
        let event = self.set.wait(timeout).map_err(|error| Subject::of(GpuSelector::Uuid(&self.gpu)).failed(error))?;
        Ok(event.map(|event| match event.kind {
            kind::XID => GpuEvent::Xid { xid: event.data, gpu_instance: event.gpu_instance },
            _ => GpuEvent::Other,
        }))
    }
}
