// SPDX-License-Identifier: Apache-2.0
//! What is owed to GPUs, away from any claim: given back from time to time, when a GPU can be read again, when a claim that
//! was in doubt is settled, by the last instance, and by an uninstallation. What someone else changed is told.
//!
//! Each GPU is looked at under its lock; one that somebody works on has its turn the next time.

use std::collections::BTreeSet;
use std::time::Instant;

use dra_checkpoint::{ClaimRecord, LedgerListing, Step};
use dra_hardware::Daemon;
use dra_model::{ClaimRef, DaemonId, GpuUuid};
use tracing::warn;

use crate::engine::others::Others;
use crate::engine::{Call, Engine};
use crate::error::{NotLocked, chain};
use crate::locks::Reach;
use crate::reconcile::{Problem, Reconciliation};
use crate::step::{self, StepError, Tools};
use crate::users::Asking;

/// What was given back to the GPUs of a node.
#[derive(Debug, Default)]
pub struct Restoration {
    /// GPUs that are as they were found, and have no daemon.
    pub restored: Vec<GpuUuid>,
    /// Claims that are still prepared: their containers go on without what was given back.
    pub claims: Vec<ClaimRef>,
    /// What failed.
    pub problems: Vec<Problem>,
}

const UNINSTALLATION: &str = "by the uninstallation";

const RECONCILIATION: &str = "by the reconciliation";

impl Engine {
    /// Gives every GPU back, whichever claims rely on it: for the end of an installation, after which nobody else will. The
    /// records stay.
    pub fn restore_all(&self) -> Restoration {
        let mut done = Restoration::default();
        match self.records.list() {
            Ok(listing) => done.claims.extend(listing.records.into_iter().map(|record| record.claim)),
            Err(source) => done.problems.push(Problem::Records { source }),
        }
        let gpus = match self.ledgers.list() {
            Ok(listing) => gpus(&listing),
            Err(source) => {
                done.problems.push(Problem::Ledgers { source });
                return done;
            }
        };
        let (nobody, boot_id) = (Others::default(), self.host.boot_id().ok());
        let call = self.call(self.deadline());
        let tools = self.tools(Asking::Nobody, &nobody, boot_id.as_deref(), &call);
        for gpu in gpus {
            let lock = self.lock_gpu(&gpu, gpu.to_string(), UNINSTALLATION, self.deadline(), Reach::AtLeastHere);
            let lock = lock.map_err(|source| Problem::Lock { source });
            let debt = |source| Problem::Debt { gpu: gpu.clone(), source };
            match lock.and_then(|_lock| step::pay_regardless(&gpu, &tools).map_err(debt)) {
                Ok(_) => done.restored.push(gpu),
                Err(problem) => done.problems.push(problem),
            }
        }
        done
    }

    /// Gives back what no claim relies on, as when a GPU that took no settings may take them again.
    pub fn restore_unused(&self) -> Restoration {
        self.pay_each(&self.call(Instant::now()))
    }

    /// The same, and says whether nothing is owed to any GPU.
    pub(crate) fn pay_all(&self, call: &Call<'_>) -> bool {
        for problem in self.pay_each(call).problems {
            warn!(error = chain(&problem), "a GPU is still owed something");
        }
        self.ledgers.list().is_ok_and(|listing| gpus(&listing).is_empty())
    }

    fn pay_each(&self, call: &Call<'_>) -> Restoration {
        let mut done = Restoration::default();
        let owed = self.ledgers.list().map(|listing| gpus(&listing));
        let owed = owed.map_err(|source| done.problems.push(Problem::Ledgers { source }));
        for gpu in owed.unwrap_or_default() {
            match self.at_gpu(&gpu, call, |tools| step::pay(&gpu, tools)) {
                Ok(Some(true)) => done.restored.push(gpu),
                Ok(Some(false) | None) => {}
                Err(problem) => done.problems.push(problem),
            }
        }
        done
    }

    pub(crate) fn reconcile_gpus(&self, call: &Call<'_>, report: &mut Reconciliation) {
        let listing = match self.ledgers.list() {
            Ok(listing) => listing,
            Err(source) => return report.problems.push(Problem::Ledgers { source }),
        };
        // A claim may rely on a GPU whose ledger was lost.
        let relied_on = self.records.list().map_or_else(|_| Vec::new(), |listing| set_up(&listing.records));
        for gpu in gpus(&listing).into_iter().chain(relied_on).collect::<BTreeSet<_>>() {
            let both = |tools: &Tools<'_>| Ok((step::pay(&gpu, tools)?, step::drifts(&gpu, tools)?));
            if let Some((paid, drifts)) = report.done(self.at_gpu(&gpu, call, both)) {
                report.restored.extend(paid.then(|| gpu.clone()));
                report.drifted.extend(drifts);
            }
        }
        for gpu in &listing.unfinished {
            let remove = |tools: &Tools<'_>| {
                let removed = tools.ledgers.remove_unfinished(gpu);
                removed.map_err(|source| StepError::Ledger { gpu: gpu.clone(), source })
            };
            report.done(self.at_gpu(gpu, call, remove));
        }
        let damaged = listing.damaged.into_iter();
        report.problems.extend(damaged.map(|ledger| Problem::Damaged { path: ledger.path, reason: ledger.reason }));
        report.foreign.extend(listing.foreign);
        let owes_daemons = listing.ledgers.iter().any(|ledger| !ledger.daemons.is_empty());
        self.reconcile_daemons(owes_daemons, call, report);
    }

    /// Ends daemons that no record and no ledger tells of, as after a loss of the state directory. One that was not there
    /// the last time may have clients soon, and one that has clients stays: they may be of pods that nothing here knows of.
    fn reconcile_daemons(&self, owes_daemons: bool, call: &Call<'_>, report: &mut Reconciliation) {
        let daemons = match call.list() {
            Ok(daemons) => daemons,
            // Where nobody uses MPS there need not be anybody to ask.
            Err(_) if !owes_daemons && !self.some_claim_has_a_daemon() => return,
            Err(source) => return report.problems.push(Problem::Daemons { source }),
        };
        let others = match self.others() {
            Ok(others) => others,
            Err(source) => return report.problems.push(Problem::Others { source }),
        };
        let boot_id = self.host.boot_id().ok();
        let users = self.tools(Asking::Nobody, &others, boot_id.as_deref(), call).users;
        let ids = daemons.into_iter().map(|Daemon { id, .. }| id);
        let strange: BTreeSet<DaemonId> = ids.filter(|id| !users.rely_on_daemon(id)).collect();
        let before = std::mem::replace(&mut *self.strange.lock(), strange.clone());
        for id in strange.intersection(&before) {
            let lock = self.locks.take(&lock_name(id), RECONCILIATION, call.deadline, Reach::AtLeastHere);
            let Some(_lock) = report.locked(lock.map_err(|error| NotLocked::new(id.to_string(), error))) else {
                continue;
            };
            report.problems.extend(self.end_strange(id, call).err());
        }
    }

    /// Under the lock that the claims of the daemon are prepared with.
    fn end_strange(&self, id: &DaemonId, call: &Call<'_>) -> Result<(), Problem> {
        // A claim may have come since.
        let others = self.others().map_err(|source| Problem::Others { source })?;
        let boot_id = self.host.boot_id().ok();
        let tools = self.tools(Asking::Nobody, &others, boot_id.as_deref(), call);
        if tools.users.rely_on_daemon(id) {
            return Ok(());
        }
        step::stop_unused(id, &tools).map_err(|source| Problem::Strange { source })
    }

    fn some_claim_has_a_daemon(&self) -> bool {
        let has_one = |step: &Step| matches!(step, Step::MpsDaemon { .. });
        self.records.list().is_ok_and(|listing| listing.records.iter().any(|it| it.effects().iter().any(has_one)))
    }

    /// Does something at a GPU that no call works on; nothing where one does.
    fn at_gpu<T>(
        &self,
        gpu: &GpuUuid,
        call: &Call<'_>,
        work: impl FnOnce(&Tools<'_>) -> Result<T, StepError>,
    ) -> Result<Option<T>, Problem> {
        let now = Instant::now();
        let _lock = match self.lock_gpu(gpu, gpu.to_string(), RECONCILIATION, now, Reach::AtLeastHere) {
            Ok(lock) => lock,
            Err(NotLocked::Busy { .. }) => return Ok(None),
            Err(source @ NotLocked::Failed { .. }) => return Err(Problem::NotLocked { source }),
        };
        let others = self.others().map_err(|source| Problem::Others { source })?;
        let boot_id = self.host.boot_id().ok();
        let done = work(&self.tools(Asking::Nobody, &others, boot_id.as_deref(), call));
        done.map(Some).map_err(|source| Problem::Debt { gpu: gpu.clone(), source })
    }
}

/// The lock of the GPU or the claim whose daemon it is.
fn lock_name(id: &DaemonId) -> String {
    match (id.gpu(), id.claim()) {
        (Some(gpu), _) => format!("gpu-{}", gpu.hex()),
        (None, Some(claim)) => format!("claim-{claim}"),
        (None, None) => id.to_string(),
    }
}

/// The GPUs that were set up for claims.
fn set_up(records: &[ClaimRecord]) -> Vec<GpuUuid> {
    let of_step = |step| match step {
        Step::GpuSettings { gpu, .. } => Some(gpu),
        Step::MpsDaemon { .. } | Step::ClaimSpec => None,
    };
    records.iter().flat_map(ClaimRecord::effects).filter_map(of_step).collect()
}

/// The GPUs to which something is owed, those where it is not known what included.
fn gpus(listing: &LedgerListing) -> Vec<GpuUuid> {
    let known = listing.ledgers.iter().map(|ledger| &ledger.gpu);
    let unknown = listing.damaged.iter().chain(&listing.newer).map(|unread| &unread.gpu);
    known.chain(unknown).cloned().collect()
}
