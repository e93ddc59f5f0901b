// SPDX-License-Identifier: Apache-2.0
//! Restores a GPU that no claim relies on: original settings and MIG mode, MIG devices and daemons of claims that are gone.

use std::collections::BTreeSet;

use dra_checkpoint::GpuLedger;
use dra_model::{DaemonId, GpuUuid};

use crate::effects::error::EffectError;
use crate::effects::tools::Tools;
use crate::effects::{instances, ledger, mig_mode, mps_daemon, originals};

/// Restores what no claim relies on, and returns whether the ledger changed. The caller holds the GPU's lock.
pub(crate) fn restore(gpu: &GpuUuid, tools: &Tools<'_>) -> Result<bool, EffectError> {
    let Some(before) = ledger::load(gpu, tools)? else { return Ok(false) };
    let mut ledger = before.clone();
    let stopped = stop_unused(&mut ledger, tools);
    let destroyed = instances::destroy_pending(&mut ledger, tools);
    let mode = mig_mode::turn_off_unused(&mut ledger, tools);
    let restored = if tools.references.to_settings(gpu) { Ok(()) } else { originals::restore(&mut ledger, tools) };
    let changed = ledger != before;
    if changed {
        ledger::put_or_remove(&ledger, tools)?;
    }
    restored.and(stopped).and(destroyed).and(mode).map(|()| changed)
}

/// Whether this driver turned MIG mode on and has not turned it off again.
pub(crate) fn is_mig_mode_pending(gpu: &GpuUuid, tools: &Tools<'_>) -> Result<bool, EffectError> {
    Ok(ledger::load(gpu, tools)?.is_some_and(|ledger| ledger.mig_mode_on))
}

fn stop_unused(ledger: &mut GpuLedger, tools: &Tools<'_>) -> Result<(), EffectError> {
    let is_unused = |id: &&DaemonId| !tools.references.to_daemon(id);
    let unused: Vec<_> = ledger.daemons.iter().filter(is_unused).cloned().collect();
    let mut failed = None;
    for id in unused {
        match mps_daemon::stop(&id, tools) {
            Ok(()) => {
                ledger.daemons.remove(&id);
            }
            Err(error) if mps_daemon::is_host_absent(&error) => {}
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Restores everything, whichever claims rely on it. The daemons of an absent MPS host have ended with it.
pub(crate) fn restore_regardless(gpu: &GpuUuid, tools: &Tools<'_>) -> Result<bool, EffectError> {
    let restored = restore(gpu, tools)?;
    if let Some(ledger) = ledger::load(gpu, tools)? {
        ledger::put_or_remove(&GpuLedger { daemons: BTreeSet::new(), ..ledger }, tools)?;
    }
    Ok(restored)
}
