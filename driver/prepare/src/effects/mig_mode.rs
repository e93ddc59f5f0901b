// SPDX-License-Identifier: Apache-2.0
//! MIG mode of a GPU: turned on for the first partition where it is off, turned off after the last.
//!
//! The ledger names a mode that this driver turned on from before the change until it is off again. A mode that an administrator
//! turned on stays.

use std::time::Duration;

use dra_checkpoint::GpuLedger;
use dra_hardware::GpuError;
use dra_model::{GpuUuid, MigMode};

use crate::effects::error::EffectError;
use crate::effects::holders::for_caller;
use crate::effects::ledger;
use crate::effects::retry::retry;
use crate::effects::tools::Tools;

/// A process that ends releases the GPU within a moment.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Turns MIG mode on unless it is on. The undo of an earlier attempt may just have turned it off.
pub(super) fn turn_on(uuid: &GpuUuid, tools: &Tools<'_>) -> Result<(), EffectError> {
    if tools.host.mig_state(uuid).map_err(|source| failed(uuid, source, tools))?.is_on {
        return Ok(());
    }
    let ledger = ledger::load(uuid, tools)?.unwrap_or_else(|| ledger::new(uuid, tools));
    ledger::put(&GpuLedger { mig_mode_on: true, ..ledger }, tools)?;
    set(uuid, true, tools)
}

/// Turns off the mode that this driver turned on, if the GPU has no instance any more. The caller writes the ledger.
pub(super) fn turn_off_unused(ledger: &mut GpuLedger, tools: &Tools<'_>) -> Result<(), EffectError> {
    if !ledger.mig_mode_on || tools.references.to_partitions(&ledger.gpu) {
        return Ok(());
    }
    let uuid = &ledger.gpu;
    let gpu = match tools.host.gpu(uuid) {
        Ok(gpu) => gpu,
        // The mode does not outlive the driver.
        Err(error) if error.is_driver_unloaded() => {
            ledger.mig_mode_on = false;
            return Ok(());
        }
        Err(source) => return Err(failed(uuid, source, tools)),
    };
    match &gpu.mig {
        // An instance of an administrator needs the mode.
        MigMode::On { gpu_instances, .. } if !gpu_instances.is_empty() => return Ok(()),
        MigMode::On { .. } => set(uuid, false, tools)?,
        MigMode::Off(_) | MigMode::Unsupported => {}
    }
    ledger.mig_mode_on = false;
    Ok(())
}

pub(super) fn set(gpu: &GpuUuid, on: bool, tools: &Tools<'_>) -> Result<(), EffectError> {
    let change = || tools.host.set_mig_mode(gpu, on);
    let changed = retry(BUSY_TIMEOUT, tools.host.deadline(), GpuError::is_in_use, change);
    changed.map_err(|source| failed(gpu, source, tools))
}

fn failed(gpu: &GpuUuid, source: GpuError, tools: &Tools<'_>) -> EffectError {
    let processes = if source.is_in_use() { for_caller(tools.host.holders(gpu), tools) } else { Vec::new() };
    EffectError::MigMode { gpu: gpu.clone(), processes, source: Box::new(source) }
}
