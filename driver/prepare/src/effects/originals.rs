// SPDX-License-Identifier: Apache-2.0
//! Restores the original settings of a GPU from its ledger.

use dra_checkpoint::GpuLedger;
use dra_hardware::{GpuError, Setting};

use crate::effects::error::EffectError;
use crate::effects::tools::Tools;
use crate::state::counters::RestoreOutcome;

/// Restores the original settings and removes each restored one from the ledger. Continues past the first failure.
pub(crate) fn restore(ledger: &mut GpuLedger, tools: &Tools<'_>) -> Result<(), EffectError> {
    let GpuLedger { gpu, found, in_force, .. } = ledger;
    let failed = |source| EffectError::Restore { gpu: gpu.clone(), source: Box::new(source) };
    let mode = Original { setting: Setting::ComputeMode, found: found.compute_mode, in_force: in_force.compute_mode };
    let mode = mode.restore(tools, || tools.host.compute_mode(gpu), |mode| tools.host.set_compute_mode(gpu, mode));
    if mode.is_ok() {
        (found.compute_mode, in_force.compute_mode) = (None, None);
    }
    let interval = Original { setting: Setting::Interval, found: found.interval, in_force: in_force.interval };
    let interval =
        interval.restore(tools, || tools.host.interval(gpu), |interval| tools.host.set_interval(gpu, interval));
    if interval.is_ok() {
        (found.interval, in_force.interval) = (None, None);
    }
    mode.and(interval).map_err(failed)
}

/// One setting in the ledger.
struct Original<T> {
    setting: Setting,
    found: Option<T>,
    in_force: Option<T>,
}

impl<T: PartialEq + Copy> Original<T> {
    fn restore(
        self,
        tools: &Tools<'_>,
        read: impl FnOnce() -> Result<Option<T>, GpuError>,
        set: impl FnOnce(T) -> Result<(), GpuError>,
    ) -> Result<(), GpuError> {
        let Some(found) = self.found else { return Ok(()) };
        // Where no claim needed another value the GPU mostly has it still: then a read is enough.
        let now = if self.in_force == Some(found) { read() } else { Ok(None) };
        let restored = match now {
            Ok(now) if now == Some(found) => return Ok(()),
            Ok(_) => set(found),
            Err(error) => Err(error),
        };
        let restored = match restored {
            Err(error) if is_gone(&error) => Ok(()),
            other => other,
        };
        let outcome = match restored {
            Ok(()) => RestoreOutcome::SettingRestored(self.setting),
            Err(_) => RestoreOutcome::SettingNotRestored(self.setting),
        };
        tools.counters.count(outcome);
        restored
    }
}

/// Whether there is nothing to restore: a GPU in MIG mode has no compute mode, and settings do not survive an unloaded driver.
fn is_gone(error: &GpuError) -> bool {
    matches!(error, GpuError::Unsupported { .. }) || error.is_driver_unloaded()
}
