// SPDX-License-Identifier: Apache-2.0
//! An MPS daemon: started for the first claim that needs it, stopped after the last.
//!
//! The ledgers of its GPUs name the daemon from before its start until after its stop, so that a daemon that cannot be stopped
//! now is stopped later.

use std::time::Duration;

use dra_checkpoint::{ClaimRecord, GpuLedger};
use dra_hardware::DaemonError;
use dra_model::{ClaimUid, DaemonId, GpuUuid, explain};
use tracing::warn;

use crate::decide::limits;
use crate::effects::error::EffectError;
use crate::effects::ledger;
use crate::effects::tools::Tools;
use crate::state::counters::RestoreOutcome;

/// A daemon is ready after some milliseconds; the kubelet waits 45 s.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// For a graceful stop, before the daemon is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Starts the daemon of these devices unless it runs; returns whether the ledgers did not name it.
pub(super) fn apply(
    id: &DaemonId,
    gpus: &[GpuUuid],
    record: &ClaimRecord,
    tools: &Tools<'_>,
) -> Result<bool, EffectError> {
    let mut is_new = false;
    for gpu in gpus {
        let mut ledger = ledger::load(gpu, tools)?.unwrap_or_else(|| ledger::new(gpu, tools));
        if ledger.daemons.insert(id.clone()) {
            ledger::put(&ledger, tools)?;
            is_new = true;
        }
    }
    let sharer = is_shared(id).then_some(&record.claim.uid);
    let started = tools.daemons.start(&limits::daemon(&record.devices, id), sharer, START_TIMEOUT);
    started.map_err(|source| EffectError::Start { id: id.clone(), source: Box::new(source) })?;
    Ok(is_new)
}

/// Checks that the daemon runs, and starts it if it does not.
pub(super) fn verify(
    id: &DaemonId,
    gpus: &[GpuUuid],
    record: &ClaimRecord,
    tools: &Tools<'_>,
) -> Result<bool, EffectError> {
    apply(id, gpus, record, tools)
}

/// Stops a daemon that no other claim relies on. A daemon that does not stop now stays in the ledgers of its GPUs.
pub(super) fn undo(id: &DaemonId, gpus: &[GpuUuid], claim: &ClaimUid, tools: &Tools<'_>) {
    if tools.references.to_daemon(id) {
        return leave(id, claim, tools);
    }
    let ledgers: Vec<_> = gpus.iter().map(|gpu| ledger::load(gpu, tools)).collect();
    let names_daemon = |ledger: &GpuLedger| ledger.daemons.contains(id);
    // A ledger that cannot be read may name the daemon.
    if ledgers.iter().flatten().flatten().all(|ledger| !names_daemon(ledger)) && ledgers.iter().all(Result::is_ok) {
        return;
    }
    if let Err(error) = stop(id, tools) {
        warn!(%id, error = explain(&error), "stop of an MPS daemon is pending");
        return;
    }
    for mut ledger in ledgers.into_iter().flatten().flatten().filter(names_daemon) {
        ledger.daemons.remove(id);
        if let Err(error) = ledger::put_or_remove(&ledger, tools) {
            // The next restore of the GPU finds that the daemon has stopped.
            warn!(%id, error = explain(&error), "stopped MPS daemon is still in a GPU state record");
        }
    }
}

/// Whether the daemon is that of a GPU, which several claims share.
fn is_shared(id: &DaemonId) -> bool {
    id.gpu().is_some()
}

/// Reports to the MPS host that a claim does not share a daemon any more. After a failure the shared memory that the claim leaves
/// is removed with the daemon.
fn leave(id: &DaemonId, claim: &ClaimUid, tools: &Tools<'_>) {
    if is_shared(id)
        && let Err(error) = tools.daemons.leave(id, claim)
    {
        warn!(%id, %claim, %error, "shared memory of an MPS daemon is not cleaned up after this claim");
    }
}

pub(crate) fn stop(id: &DaemonId, tools: &Tools<'_>) -> Result<(), EffectError> {
    counted(id, tools.daemons.stop(id, STOP_TIMEOUT), tools)
}

/// Stops a daemon without clients.
pub(crate) fn stop_unused(id: &DaemonId, tools: &Tools<'_>) -> Result<(), EffectError> {
    counted(id, tools.daemons.stop_unused(id, STOP_TIMEOUT), tools)
}

fn counted(id: &DaemonId, stopped: Result<(), DaemonError>, tools: &Tools<'_>) -> Result<(), EffectError> {
    tools.counters.count(if stopped.is_ok() {
        RestoreOutcome::DaemonStopped
    } else {
        RestoreOutcome::DaemonNotStopped
    });
    stopped.map_err(|source| EffectError::Stop { id: id.clone(), source: Box::new(source) })
}

/// Whether there is no MPS host. Daemons end with their host, so an absent host stops no claim from its GPU.
pub(crate) fn is_host_absent(error: &EffectError) -> bool {
    matches!(error, EffectError::Stop { source, .. } if matches!(**source, DaemonError::Unreachable { .. }))
}
