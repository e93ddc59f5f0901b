// SPDX-License-Identifier: Apache-2.0
//! What becomes of each claim that has a record, or of which a damaged record is left: repaired, undone, or left alone.
//!
//! The records are listed without a lock and tell only which claims to look at. What is done to a claim is decided again
//! from its record as it is under the claim's lock: the kubelet, or another instance of the plugin, may have prepared or
//! unprepared the claim since.

use dra_checkpoint::{ClaimRecord, ClaimState, Quarantined};
use dra_model::{ClaimRef, ClaimUid};

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
    /// It is gone, and its containers may still be ending.
    Missing,
    /// It is undone.
    Undone,
}

/// What one round knows.
#[derive(Clone, Copy)]
pub(super) struct Round<'a> {
    pub(super) life: &'a dyn Fn(&ClaimRef) -> ClaimLife,
    /// Claims that the last round found gone although they were ready.
    pub(super) missed_before: &'a [ClaimUid],
    /// Where this boot cannot be told from others, every claim may have containers.
    pub(super) boot_id: Option<&'a str>,
    pub(super) call: &'a Call<'a>,
}

impl Round<'_> {
    fn fate(&self, record: &ClaimRecord, life: ClaimLife) -> Fate {
        let may_have_containers = self.boot_id.is_none_or(|boot_id| is_kept(record, boot_id));
        match (life, &record.state) {
            (ClaimLife::Gone, _) if may_have_containers && !self.missed_before.contains(&record.claim.uid) => {
                Fate::Missing
            }
            (ClaimLife::Gone, _) | (_, ClaimState::Undoing { .. }) => Fate::Undone,
            (ClaimLife::Alive | ClaimLife::Unknown, ClaimState::Ready { .. }) if may_have_containers => Fate::Repaired,
            (ClaimLife::Alive | ClaimLife::Unknown, ClaimState::Ready { .. } | ClaimState::Preparing { .. }) => {
                Fate::Stays
            }
        }
    }
}

impl Engine {
    pub(super) fn reconcile_claims(&self, records: &[ClaimRecord], round: Round<'_>, report: &mut Reconciliation) {
        for listed in records {
            let claim = &listed.claim;
            let life = (round.life)(claim);
            match round.fate(listed, life) {
                Fate::Stays => {}
                Fate::Missing => self.missed.lock().push(claim.uid.clone()),
                Fate::Repaired | Fate::Undone => self.reconcile_claim(claim, life, round, report),
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
        match round.fate(&record, life) {
            Fate::Stays | Fate::Missing => {}
            Fate::Repaired => self.repair(&record, round, report),
            Fate::Undone => self.undo_locked(claim, round, report),
        }
    }

    /// Claims of which nothing is left but a record that was set aside are undone when they are surely gone.
    pub(super) fn reconcile_doubts(&self, records: &[ClaimRecord], round: Round<'_>, report: &mut Reconciliation) {
        // A folder that cannot be read is told at the end of the round.
        for Quarantined { remains, .. } in self.records.in_doubt().unwrap_or_default() {
            let Some(claim) = remains.claim.filter(|_| remains.is_claim_certain) else { continue };
            if records.iter().any(|record| record.claim.uid == claim.uid) || (round.life)(&claim) != ClaimLife::Gone {
                continue;
            }
            if round.missed_before.contains(&claim.uid) {
                self.reconcile_doubt(&claim, round, report);
            } else {
                self.missed.lock().push(claim.uid);
            }
        }
    }

    fn reconcile_doubt(&self, claim: &ClaimRef, round: Round<'_>, report: &mut Reconciliation) {
        let Some(_lock) = report.locked(self.lock_claim(claim, round.call.deadline)) else { return };
        // Prepared again, it has a record and is looked at by the next round; unprepared, nothing is left to undo.
        if matches!(self.load(&claim.uid), Ok(None)) && self.is_in_doubt(&claim.uid) {
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
