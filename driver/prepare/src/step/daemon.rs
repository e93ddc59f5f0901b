// SPDX-License-Identifier: Apache-2.0
//! An MPS daemon: started for the first claim that needs it, ended after the last.
//!
//! The ledgers of its GPUs name it before it is started and until it is gone, so that one which cannot be ended now is
//! ended later.

use std::time::Duration;

use dra_checkpoint::{ClaimRecord, GpuLedger};
use dra_hardware::{ClaimUse, DaemonError};
use dra_model::{ClaimUid, DaemonId, GpuUuid};
use tracing::warn;

use super::{StepError, Tools, ledger};
use crate::error::chain;
use crate::limits;
use crate::tally::Deed;

/// The kubelet waits 45 s; a daemon is there after some milliseconds.
const START: Duration = Duration::from_secs(5);

/// For a graceful end, before it is killed.
const STOP: Duration = Duration::from_secs(5);

/// Lets the daemon of these devices run; says whether it was to be started.
pub(super) fn ensure(
    id: &DaemonId,
    gpus: &[GpuUuid],
    record: &ClaimRecord,
    tools: &Tools<'_>,
) -> Result<bool, StepError> {
    let mut is_new = false;
    for gpu in gpus {
        let mut ledger = ledger::load(gpu, tools)?.unwrap_or_else(|| ledger::new(gpu, tools));
        if ledger.daemons.insert(id.clone()) {
            ledger::put(&ledger, tools)?;
            is_new = true;
        }
    }
    let started = tools.daemons.start(&limits::daemon(&record.devices, id), START);
    started.map_err(|source| StepError::Start { id: id.clone(), source: Box::new(source) })?;
    share(id, &record.claim.uid, ClaimUse::Starts, tools);
    Ok(is_new)
}

/// Ends a daemon that nobody else relies on. One that does not end now stays in the ledgers of its GPUs.
pub(super) fn undo(id: &DaemonId, gpus: &[GpuUuid], claim: &ClaimUid, tools: &Tools<'_>) {
    if tools.users.rely_on_daemon(id) {
        return share(id, claim, ClaimUse::Ends, tools);
    }
    let ledgers: Vec<_> = gpus.iter().map(|gpu| ledger::load(gpu, tools)).collect();
    let names_it = |ledger: &GpuLedger| ledger.daemons.contains(id);
    // A ledger that cannot be read may name it.
    if ledgers.iter().flatten().flatten().all(|ledger| !names_it(ledger)) && ledgers.iter().all(Result::is_ok) {
        return;
    }
    if let Err(error) = stop(id, tools) {
        warn!(%id, error = chain(&error), "an MPS daemon is still to be ended");
        return;
    }
    for mut ledger in ledgers.into_iter().flatten().flatten().filter(names_it) {
        ledger.daemons.remove(id);
        if let Err(error) = ledger::keep(&ledger, tools) {
            // A full disk, perhaps. Whoever pays finds out that it has ended.
            warn!(%id, error = chain(&error), "an MPS daemon that ended is still in a ledger");
        }
    }
}

/// Tells of a claim whose daemon is of a GPU, so that others may share it. It keeps nobody from a device if that is not heard:
/// then what a claim leaves in shared memory is there until the last one leaves.
fn share(id: &DaemonId, claim: &ClaimUid, change: ClaimUse, tools: &Tools<'_>) {
    if id.gpu().is_some()
        && let Err(error) = tools.daemons.share(id, claim, change)
    {
        warn!(%id, %claim, ?change, %error, "the shared memory of an MPS daemon is not swept for this claim");
    }
}

/// Ends a daemon.
pub(super) fn stop(id: &DaemonId, tools: &Tools<'_>) -> Result<(), StepError> {
    counted(id, tools.daemons.stop(id, STOP), tools)
}

/// Ends a daemon that has no clients.
pub(crate) fn stop_unused(id: &DaemonId, tools: &Tools<'_>) -> Result<(), StepError> {
    counted(id, tools.daemons.stop_unused(id, STOP), tools)
}

fn counted(id: &DaemonId, stopped: Result<(), DaemonError>, tools: &Tools<'_>) -> Result<(), StepError> {
    tools.tally.count(if stopped.is_ok() { Deed::Stopped } else { Deed::NotStopped });
    stopped.map_err(|source| StepError::Stop { id: id.clone(), source: Box::new(source) })
}

/// Whether nobody could be asked to end a daemon. Where there is no MPS host there is hardly a daemon either: they end
/// with it, so this keeps no GPU from its next claim.
pub(super) fn is_unanswered(error: &StepError) -> bool {
    matches!(error, StepError::Stop { source, .. } if matches!(**source, DaemonError::Unreachable { .. }))
}
