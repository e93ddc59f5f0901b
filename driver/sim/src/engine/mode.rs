// SPDX-License-Identifier: Apache-2.0
//! MIG mode: asking for it, and when it becomes active.
//!
//! In: the requested mode. Out: the activation status beside the return code, as `nvmlDeviceSetMigMode` has both.
//! Never resets a GPU by itself; that is [`State::reset_gpu`].

use crate::Code;
use crate::catalog::Toggle;
use crate::state::{EVENT_MIG_CONFIG, Event, MigMode, State};

impl State {
    /// `nvmlDeviceGetMigMode`.
    pub fn mig_mode(&self, gpu: usize) -> Result<MigMode, Code> {
        self.live_gpu(gpu)?.mig.ok_or(Code::NOT_SUPPORTED)
    }

    /// `nvmlDeviceSetMigMode`. `Ok(None)` is active now; `Ok(Some(code))` succeeded but stays pending for that reason:
    /// `IN_USE` while clients hold the GPU, `RESET_REQUIRED` on boards that need a reset (NVIDIA MIG user guide, MIG mode).
    /// Instances must be destroyed first.
    pub fn set_mig_mode(&mut self, index: usize, on: bool) -> Result<Option<Code>, Code> {
        let gpu = self.live_gpu_mut(index)?;
        let mig = gpu.mig.ok_or(Code::NOT_SUPPORTED)?;
        let toggle = gpu.model()?.mig.as_ref().ok_or(Code::NOT_SUPPORTED)?.toggle;
        if !on && !gpu.instances.is_empty() {
            return Err(Code::IN_USE);
        }
        if mig == (MigMode { current: on, pending: on }) {
            return Ok(None);
        }
        let reason = match toggle {
            Toggle::Live if !gpu.is_in_use() => None,
            Toggle::Live => Some(Code::IN_USE),
            Toggle::Reset if mig.current == on => None,
            Toggle::Reset => Some(Code::RESET_REQUIRED),
        };
        gpu.mig = Some(MigMode { current: if reason.is_none() { on } else { mig.current }, pending: on });
        self.effects += 1;
        self.report_mig_change(index);
        Ok(reason)
    }

    pub(crate) fn report_mig_change(&mut self, gpu: usize) {
        self.report(Event {
            sequence: 0,
            gpu,
            kind: EVENT_MIG_CONFIG,
            data: 0,
            gpu_instance: None,
            compute_instance: None,
        });
    }
}
