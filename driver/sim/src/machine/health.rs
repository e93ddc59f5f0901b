// SPDX-License-Identifier: Apache-2.0
//! Events and condition of simulated GPUs, with the NVML calls of `NvmlMachine`.

use std::time::Duration;

use dra_hardware::{GpuCondition, GpuError, GpuEvent, GpuEvents, GpuSelector, HealthMachine};
use dra_model::{GpuUuid, Slowdown};

use super::question::Question;
use crate::state::{EVENT_XID, Event, Fabric};
use crate::{Code, Simulator};

impl HealthMachine for Simulator {
    fn condition(&self, gpu: &GpuUuid) -> Result<GpuCondition, GpuError> {
        let question = Question::about(self, GpuSelector::Uuid(gpu))?;
        let action = question.ask("nvmlDeviceGetFieldValues", |gpu, _| Ok(gpu.recovery_action));
        let recovery_action = question.supported("nvmlDeviceGetFieldValues", action)?;
        let has_rows = question.required("nvmlDeviceGetArchitecture", |_, model| Ok(model.has_row_remapping()))?;
        let rows = question.ask("nvmlDeviceGetRemappedRows", |gpu, _| Ok(gpu.memory_errors));
        let rows = question.supported("nvmlDeviceGetRemappedRows", rows)?.unwrap_or_default();
        let fabric = question.ask("nvmlDeviceGetGpuFabricInfo", |gpu, model| {
            let is_divided = gpu.mig.is_some_and(|mig| mig.current);
            Ok(model.has_fabric() && gpu.fabric == Fabric::Pending && !is_divided)
        });
        let call = "nvmlDeviceGetCurrentClocksThrottleReasons";
        let reasons = question.supported(call, question.ask(call, |gpu, _| Ok(gpu.load.throttle)))?.unwrap_or(0);
        Ok(GpuCondition {
            recovery_action,
            is_remap_pending: rows.remap_pending,
            has_remap_failed: rows.remap_failed && has_rows,
            is_fabric_pending: question.supported("nvmlDeviceGetGpuFabricInfo", fabric)?.unwrap_or(false),
            slowdown: Slowdown::of_reasons(reasons),
        })
    }

    fn events(&self, gpu: &GpuUuid) -> Result<Box<dyn GpuEvents>, GpuError> {
        let question = Question::about(self, GpuSelector::Uuid(gpu))?;
        let call = "nvmlEventSetCreate";
        let index = question.index;
        let seen =
            self.call(call, None, |state| Ok(state.next_event - 1)).map_err(|code| question.failed(call, code))?;
        for call in ["nvmlDeviceGetSupportedEventTypes", "nvmlDeviceRegisterEvents"] {
            question.required(call, |_, _| Ok(()))?;
        }
        Ok(Box::new(SimulatedEvents { sim: self.clone(), gpu: gpu.clone(), index, seen }))
    }
}

/// The events of one GPU after the last one that was returned.
#[derive(Debug)]
struct SimulatedEvents {
    sim: Simulator,
    gpu: GpuUuid,
    index: usize,
    seen: u64,
}

impl GpuEvents for SimulatedEvents {
    fn wait(&mut self, timeout: Duration) -> Result<Option<GpuEvent>, GpuError> {
        let call = "nvmlEventSetWait_v2";
        let failed = |code: Code| GpuError::Failed {
            call,
            which: self.gpu.to_string(),
            code: dra_hardware::NvmlCode(code.0),
            uuid: None,
            pci: None,
        };
        self.sim.call(call, Some(self.index), |_| Ok(())).map_err(failed)?;
        let index = self.index;
        let event = self.sim.wait_event(self.seen, timeout, |event: &Event| event.gpu == index);
        let Some(event) = event else {
            let is_lost = self.sim.peek(|state| state.gpus.get(index).is_some_and(|gpu| gpu.lost));
            return if is_lost { Err(failed(Code::GPU_IS_LOST)) } else { Ok(None) };
        };
        self.seen = event.sequence;
        Ok(Some(match event.kind {
            EVENT_XID => GpuEvent::Xid { xid: event.data, gpu_instance: event.gpu_instance },
            _ => GpuEvent::Other,
        }))
    }
}
