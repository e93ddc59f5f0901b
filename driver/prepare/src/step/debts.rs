// SPDX-License-Identifier: Apache-2.0
//! What is owed to a GPU and no claim needs any more: settings that were not taken back, daemons that did not end, and all
//! that a record did which was lost.

use std::collections::BTreeSet;

use dra_checkpoint::GpuLedger;
use dra_model::{DaemonId, GpuUuid};

use super::{StepError, Tools, daemon, ledger, settings};

/// Gives back what nobody relies on; says whether anything was. The caller holds the GPU's lock.
pub(crate) fn pay(gpu: &GpuUuid, tools: &Tools<'_>) -> Result<bool, StepError> {
    let Some(before) = ledger::load(gpu, tools)? else { return Ok(false) };
    let mut ledger = before.clone();
    let stopped = stop_unused(&mut ledger, tools);
    let restored = if tools.users.rely_on_settings(gpu) { Ok(()) } else { settings::restore(&mut ledger, tools) };
    let changed = ledger != before;
    if changed {
        ledger::keep(&ledger, tools)?;
    }
    restored.and(stopped).map(|()| changed)
}

fn stop_unused(ledger: &mut GpuLedger, tools: &Tools<'_>) -> Result<(), StepError> {
    let is_unused = |id: &&DaemonId| !tools.users.rely_on_daemon(id);
    let unused: Vec<_> = ledger.daemons.iter().filter(is_unused).cloned().collect();
    let mut failed = None;
    for id in unused {
        match daemon::stop(&id, tools) {
            Ok(()) => {
                ledger.daemons.remove(&id);
            }
            Err(error) if daemon::is_unanswered(&error) => {}
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Gives everything back, whoever relies on it. A daemon that nobody can be asked about ended with the MPS host.
pub(crate) fn pay_regardless(gpu: &GpuUuid, tools: &Tools<'_>) -> Result<bool, StepError> {
    let paid = pay(gpu, tools)?;
    if let Some(ledger) = ledger::load(gpu, tools)? {
        ledger::keep(&GpuLedger { daemons: BTreeSet::new(), ..ledger }, tools)?;
    }
    Ok(paid)
}
