// SPDX-License-Identifier: Apache-2.0
//! Restores GPUs apart from any claim: pending restores from time to time, everything at an uninstallation.

use std::collections::BTreeSet;
use std::time::Instant;

use dra_checkpoint::LedgerListing;
use dra_model::{ClaimRef, GpuUuid, explain};
use tracing::warn;

use crate::effects::error::EffectError;
use crate::effects::restore;
use crate::effects::tools::Tools;
use crate::flows::report::Problem;
use crate::state::call::Call;
use crate::state::lock_error::NotLocked;
use crate::state::locks::Guarantee;
use crate::state::node::Node;
use crate::state::other_claims::OtherClaims;
use crate::state::references::Caller;

/// The outcome of a restore.
#[derive(Debug, Default)]
pub struct Restoration {
    /// GPUs with their original settings and without a daemon.
    pub restored: Vec<GpuUuid>,
    /// Claims that are still prepared: their containers go on without the settings.
    pub claims: Vec<ClaimRef>,
    pub problems: Vec<Problem>,
}

/// Restores every GPU, whichever claims rely on it: for the end of an installation, after which no program of this driver
/// will. The records stay.
pub(crate) fn restore_all(node: &Node) -> Restoration {
    let mut done = Restoration::default();
    match node.records.list() {
        Ok(listing) => done.claims.extend(listing.records.into_iter().map(|record| record.claim)),
        Err(source) => done.problems.push(Problem::Records { source }),
    }
    let gpus = match node.ledgers.list() {
        Ok(listing) => gpus_of(&listing),
        Err(source) => {
            done.problems.push(Problem::Ledgers { source });
            return done;
        }
    };
    let (others, boot_id) = (OtherClaims::default(), node.host.boot_id().ok());
    let call = node.background_call(node.lock_deadline());
    let tools = Tools::new(node, Caller::None, &others, boot_id.as_deref(), &call);
    for gpu in gpus {
        let deadline = node.lock_deadline();
        let lock = node.lock_gpu(&gpu, gpu.to_string(), "the uninstallation", deadline, Guarantee::ProcessOnly);
        let lock = lock.map_err(|source| Problem::Lock { source });
        let failed = |source| Problem::Gpu { gpu: gpu.clone(), source };
        match lock.and_then(|_lock| restore::restore_regardless(&gpu, &tools).map_err(failed)) {
            Ok(_) => done.restored.push(gpu),
            Err(problem) => done.problems.push(problem),
        }
    }
    done
}

/// Finishes pending restores of GPUs that no claim relies on.
pub(crate) fn restore_unused(node: &Node, call: &Call<'_>) -> Restoration {
    let mut done = Restoration::default();
    let pending: BTreeSet<GpuUuid> = match node.ledgers.list() {
        Ok(listing) => gpus_of(&listing),
        Err(source) => {
            done.problems.push(Problem::Ledgers { source });
            return done;
        }
    };
    for gpu in pending {
        match at_gpu(node, &gpu, call, |tools| restore::restore(&gpu, tools)) {
            Ok(Some(true)) => done.restored.push(gpu),
            Ok(Some(false) | None) => {}
            Err(problem) => done.problems.push(problem),
        }
    }
    done
}

/// As [`restore_unused`], and returns whether no restore is pending any more.
pub(crate) fn restore_pending(node: &Node, call: &Call<'_>) -> bool {
    for problem in restore_unused(node, call).problems {
        warn!(error = explain(&problem), "restore of a GPU is pending");
    }
    node.ledgers.list().is_ok_and(|listing| gpus_of(&listing).is_empty())
}

/// Does something under the lock of a GPU, unless another call holds it.
pub(super) fn at_gpu<T>(
    node: &Node,
    gpu: &GpuUuid,
    call: &Call<'_>,
    work: impl FnOnce(&Tools<'_>) -> Result<T, EffectError>,
) -> Result<Option<T>, Problem> {
    let lock = node.lock_gpu(gpu, gpu.to_string(), RECONCILIATION, Instant::now(), Guarantee::ProcessOnly);
    let _lock = match lock {
        Ok(lock) => lock,
        Err(NotLocked::Busy { .. }) => return Ok(None),
        Err(source @ NotLocked::Failed { .. }) => return Err(Problem::NotLocked { source }),
    };
    let others = OtherClaims::read(node).map_err(|source| Problem::OtherClaims { source })?;
    let boot_id = node.host.boot_id().ok();
    let done = work(&Tools::new(node, Caller::None, &others, boot_id.as_deref(), call));
    done.map(Some).map_err(|source| Problem::Gpu { gpu: gpu.clone(), source })
}

/// How the lock of a GPU names the reconciliation.
pub(super) const RECONCILIATION: &str = "the reconciliation";

/// The GPUs that have a ledger, readable or not.
pub(super) fn gpus_of(listing: &LedgerListing) -> BTreeSet<GpuUuid> {
    let readable = listing.ledgers.iter().map(|ledger| &ledger.gpu);
    let unreadable = listing.damaged.iter().chain(&listing.newer).map(|unread| &unread.gpu);
    readable.chain(unreadable).cloned().collect()
}
