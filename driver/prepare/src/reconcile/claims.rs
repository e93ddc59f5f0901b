// SPDX-License-Identifier: Apache-2.0
//! What becomes of each claim that has a record, or of which a damaged record is left: repaired, undone, or left alone.
//!
//! The records are listed without a lock and tell only which claims to look at. What is done to a claim is decided again
//! from its record as it is under the claim's lock: the kubelet, or another instance of the plugin, may have prepared or
//! unprepared the claim since.

use std::time::Instant;

use dra_checkpoint::{ClaimRecord, ClaimState, Quarantined};
use dra_model::ClaimRef;

use super::{ClaimLife, Problem, Reconciliation};
use crate::engine::{Base, Call, Engine, claim_of, is_kept};
use crate::error::{NotLocked, PrepareCause, PrepareError, UnprepareCause, UnprepareError};

/// What the reconciliation does with a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Nothing: the kubelet tries again, or takes the claim back.
    Stays,
    /// It gets what it misses.
    Repaired,
    /// It is left to the kubelet for a while, since its containers may still be ending, and then undone.
    Missing,
    /// It is undone.
    Undone,
}

/// What one round knows.
#[derive(Clone, Copy)]
pub(super) struct Round<'a> {
    pub(super) life: &'a dyn Fn(&ClaimRef) -> ClaimLife,
    /// Where this boot cannot be told from others, every claim may have containers.
    pub(super) boot_id: Option<&'a str>,
    pub(super) call: &'a Call<'a>,
}

/// What becomes of a claim. Pure.
fn fate(record: &ClaimRecord, life: ClaimLife, boot_id: Option<&str>) -> Fate {
    let may_have_containers = boot_id.is_none_or(|boot_id| is_kept(record, boot_id));
    match (life, &record.state) {
        (ClaimLife::Gone | ClaimLife::Released, ClaimState::Preparing { .. } | ClaimState::Ready { .. })
            if may_have_containers =>
        {
            Fate::Missing
        }
        (ClaimLife::Gone | ClaimLife::Released, _) | (_, ClaimState::Undoing { .. }) => Fate::Undone,
        (ClaimLife::Alive | ClaimLife::Unknown, ClaimState::Ready { .. }) if may_have_containers => Fate::Repaired,
        (ClaimLife::Alive | ClaimLife::Unknown, ClaimState::Ready { .. } | ClaimState::Preparing { .. }) => Fate::Stays,
    }
}

impl Engine {
    pub(super) fn reconcile_claims(&self, records: &[ClaimRecord], round: Round<'_>, report: &mut Reconciliation) {
        for listed in records {
            let claim = &listed.claim;
            let life = (round.life)(claim);
            match fate(listed, life, round.boot_id) {
                Fate::Stays => self.missing.forget(&claim.uid),
                Fate::Missing if !self.is_over(claim) => report.missing.push(claim.clone()),
                Fate::Missing | Fate::Repaired | Fate::Undone => self.reconcile_claim(claim, life, round, report),
            }
        }
    }

    fn reconcile_claim(&self, claim: &ClaimRef, life: ClaimLife, round: Round<'_>, report: &mut Reconciliation) {
        let Some(_lock) = report.locked(self.lock_claim(claim, round.call.deadline)) else { return };
        let record = match self.load(&claim.uid) {
            Ok(Some(record)) => record,
            Ok(None) => return,
            Err(source) => return report.problems.push(Problem::Records { source }),
        };
        match fate(&record, still(claim, life, round.life), round.boot_id) {
            Fate::Stays => {}
            Fate::Repaired => {
                self.missing.forget(&claim.uid);
                self.repair(&record, round, report);
            }
            Fate::Missing if !self.is_over(claim) => report.missing.push(claim.clone()),
            Fate::Missing | Fate::Undone => self.undo_locked(claim, round, report),
        }
    }

    /// Whether a missing claim is left to the kubelet no longer.
    fn is_over(&self, claim: &ClaimRef) -> bool {
        let missing_for = self.missing.miss(&claim.uid, Instant::now());
        missing_for.is_some_and(|missing_for| missing_for >= self.settings.missing_grace)
    }

    /// Claims of which nothing is left but a record that was set aside are undone when they are surely gone.
    pub(super) fn reconcile_doubts(&self, records: &[ClaimRecord], round: Round<'_>, report: &mut Reconciliation) {
        // A folder that cannot be read is told at the end of the round.
        for Quarantined { remains, .. } in self.records.in_doubt().unwrap_or_default() {
            let Some(claim) = remains.claim.filter(|_| remains.is_claim_certain) else { continue };
            if records.iter().any(|record| record.claim.uid == claim.uid) {
                continue;
            }
            match (round.life)(&claim) {
                ClaimLife::Alive | ClaimLife::Unknown => self.missing.forget(&claim.uid),
                ClaimLife::Gone | ClaimLife::Released if !self.is_over(&claim) => report.missing.push(claim),
                life @ (ClaimLife::Gone | ClaimLife::Released) => self.reconcile_doubt(&claim, life, round, report),
            }
        }
    }

    fn reconcile_doubt(&self, claim: &ClaimRef, life: ClaimLife, round: Round<'_>, report: &mut Reconciliation) {
        let Some(_lock) = report.locked(self.lock_claim(claim, round.call.deadline)) else { return };
        // Prepared again, it has a record and is looked at by the next round; unprepared, nothing is left to undo.
        let is_in_doubt = matches!(self.load(&claim.uid), Ok(None)) && self.is_in_doubt(&claim.uid);
        if is_in_doubt && matches!(still(claim, life, round.life), ClaimLife::Gone | ClaimLife::Released) {
            self.undo_locked(claim, round, report);
        }
    }

    fn undo_locked(&self, claim: &ClaimRef, round: Round<'_>, report: &mut Reconciliation) {
        match self.unprepare_locked(claim, round.call) {
            Ok(()) => report.undone.push(claim.clone()),
            Err(cause) if matches!(*cause, UnprepareCause::Lock(NotLocked::Busy { .. })) => {}
            Err(cause) => {
                let source = UnprepareError { claim: claim.clone(), cause };
                report.problems.push(Problem::Undo { source });
            }
        }
    }

    fn repair(&self, record: &ClaimRecord, round: Round<'_>, report: &mut Reconciliation) {
        let Some(boot_id) = round.boot_id else { return };
        match self.settle(&claim_of(record), Some(record), boot_id, Base::AsTold(&record.base), round.call) {
            Ok((_, true)) => report.repaired.push(record.claim.clone()),
            Ok((_, false)) => {}
            Err(cause) if matches!(*cause, PrepareCause::Lock(NotLocked::Busy { .. })) => {}
            Err(cause) => {
                let source = PrepareError { claim: record.claim.clone(), cause };
                report.problems.push(Problem::Repair { source });
            }
        }
    }
}

/// What the API server says under the claim's lock. A claim that is gone stays gone; one that was released may have been
/// allocated to this node again, and prepared.
fn still(claim: &ClaimRef, life: ClaimLife, ask: &dyn Fn(&ClaimRef) -> ClaimLife) -> ClaimLife {
    match life {
        ClaimLife::Released => ask(claim),
        ClaimLife::Alive | ClaimLife::Gone | ClaimLife::Unknown => life,
    }
}
