// SPDX-License-Identifier: Apache-2.0
//! Events and condition of a GPU by NVML.

use std::sync::Arc;
use std::time::Duration;

use dra_model::GpuUuid;
use dra_nvml::events::kind;
use dra_nvml::{Device, EventSet, Nvml};

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

/// See [`crate::health::HealthMachine::condition`].
pub(super) fn condition(gpu: &GpuUuid, device: &Device<'_>) -> Result<GpuCondition, GpuError> {
    match device.recovery_action() {
        Ok(action) => Ok(GpuCondition { recovery_action: Some(action) }),
        Err(error) if error.is_unsupported() => Ok(GpuCondition { recovery_action: None }),
        Err(error) => Err(Subject::of(GpuSelector::Uuid(gpu)).failed(error)),
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
