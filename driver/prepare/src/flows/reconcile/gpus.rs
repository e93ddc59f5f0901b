// SPDX-License-Identifier: Apache-2.0
//! Finishes pending restores, reports settings that were changed outside this driver, and stops orphaned MPS daemons. Each GPU
//! is handled under its lock; one that another call holds waits for the next reconciliation.

use std::collections::BTreeSet;

use dra_checkpoint::{ClaimRecord, Step};
use dra_hardware::Daemon;
use dra_model::{DaemonId, GpuUuid};

use crate::effects::error::EffectError;
use crate::effects::tools::Tools;
use crate::effects::{gpu_settings, mps_daemon, restore};
use crate::flows::report::{Problem, Reconciliation};
use crate::flows::restore::{RECONCILIATION, at_gpu, gpus_of};
use crate::state::call::Call;
use crate::state::node::Node;
use crate::state::other_claims::OtherClaims;
use crate::state::references::Caller;

pub(super) fn reconcile(node: &Node, call: &Call<'_>, report: &mut Reconciliation) {
    let listing = match node.ledgers.list() {
        Ok(listing) => listing,
        Err(source) => return report.problems.push(Problem::Ledgers { source }),
    };
    // A claim may rely on a GPU whose ledger was lost.
    let relied_on = node.records.list().map_or_else(|_| Vec::new(), |listing| with_settings(&listing.records));
    for gpu in gpus_of(&listing).into_iter().chain(relied_on).collect::<BTreeSet<_>>() {
        let both = |tools: &Tools<'_>| Ok((restore::restore(&gpu, tools)?, gpu_settings::drifts(&gpu, tools)?));
        if let Some((restored, drifts)) = report.done(at_gpu(node, &gpu, call, both)) {
            report.restored.extend(restored.then(|| gpu.clone()));
            report.drifted.extend(drifts);
        }
    }
    for gpu in &listing.unfinished {
        let remove = |tools: &Tools<'_>| {
            let removed = tools.ledgers.remove_unfinished(gpu);
            removed.map_err(|source| EffectError::Ledger { gpu: gpu.clone(), source })
        };
        report.done(at_gpu(node, gpu, call, remove));
    }
    let damaged = listing.damaged.into_iter();
    report.problems.extend(damaged.map(|ledger| Problem::DamagedLedger { path: ledger.path, reason: ledger.reason }));
    report.foreign.extend(listing.foreign);
    let has_daemons = listing.ledgers.iter().any(|ledger| !ledger.daemons.is_empty());
    reconcile_daemons(node, has_daemons, call, report);
}

/// Stops daemons that no record and no ledger names, as after a loss of the state directory. A daemon that the last
/// reconciliation did not find may get clients soon, and one with clients stays: they may be of pods that no record names.
fn reconcile_daemons(node: &Node, has_daemons: bool, call: &Call<'_>, report: &mut Reconciliation) {
    let daemons = match call.list() {
        Ok(daemons) => daemons,
        // Without MPS claims there need not be an MPS host.
        Err(_) if !has_daemons && !some_claim_has_a_daemon(node) => return,
        Err(source) => return report.problems.push(Problem::Daemons { source }),
    };
    let others = match OtherClaims::read(node) {
        Ok(others) => others,
        Err(source) => return report.problems.push(Problem::OtherClaims { source }),
    };
    let boot_id = node.host.boot_id().ok();
    let references = Tools::new(node, Caller::None, &others, boot_id.as_deref(), call).references;
    let ids = daemons.into_iter().map(|Daemon { id, .. }| id);
    let orphaned: BTreeSet<DaemonId> = ids.filter(|id| !references.to_daemon(id)).collect();
    let before = std::mem::replace(&mut *node.orphaned.lock(), orphaned.clone());
    for id in orphaned.intersection(&before) {
        if let Some(_lock) = report.locked(node.lock_owner(id, RECONCILIATION, call.lock_deadline)) {
            report.problems.extend(stop_orphaned(node, id, call).err());
        }
    }
}

/// The caller holds the lock under which claims of the daemon are prepared.
fn stop_orphaned(node: &Node, id: &DaemonId, call: &Call<'_>) -> Result<(), Problem> {
    // A claim may have been prepared since.
    let others = OtherClaims::read(node).map_err(|source| Problem::OtherClaims { source })?;
    let boot_id = node.host.boot_id().ok();
    let tools = Tools::new(node, Caller::None, &others, boot_id.as_deref(), call);
    if tools.references.to_daemon(id) {
        return Ok(());
    }
    mps_daemon::stop_unused(id, &tools).map_err(|source| Problem::OrphanedDaemon { source })
}

fn some_claim_has_a_daemon(node: &Node) -> bool {
    let has_one = |step: &Step| matches!(step, Step::MpsDaemon { .. });
    node.records.list().is_ok_and(|listing| listing.records.iter().any(|it| it.effects().iter().any(has_one)))
}

/// The GPUs whose settings claims rely on.
fn with_settings(records: &[ClaimRecord]) -> Vec<GpuUuid> {
    let of_step = |step| match step {
        Step::GpuSettings { gpu, .. } => Some(gpu),
        Step::MpsDaemon { .. } | Step::Partition { .. } | Step::ClaimSpec => None,
    };
    records.iter().flat_map(ClaimRecord::effects).filter_map(of_step).collect()
}
