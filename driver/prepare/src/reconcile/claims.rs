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

/// How far a claim was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It goes on.
    Holds,
    /// No pod can use it any more, and what was done for it is still there: its containers may be ending, or another call
    /// works on it or on its GPUs.
    Left,
    /// Nothing of it is left.
    Undone,
}

/// What a round knows, or a prepare that other claims are in the way of.
#[derive(Clone, Copy)]
pub(crate) struct Round<'a> {
    pub(crate) life: &'a dyn Fn(&ClaimRef) -> ClaimLife,
    /// Where this boot cannot be told from others, every claim may have containers.
    pub(crate) boot_id: Option<&'a str>,
    pub(crate) call: &'a Call<'a>,
}

/// What becomes of a claim. Pure.
fn fate(record: &ClaimRecord, life: ClaimLife, boot_id: Option<&str>) -> Fate {
    let may_have_containers = boot_id.is_none_or(|boot_id| is_kept(record, boot_id));
    match &record.state {
        ClaimState::Undoing { .. } => Fate::Undone,
        ClaimState::Preparing { .. } | ClaimState::Ready { .. } if life.is_over() => {
            if may_have_containers {
                Fate::Missing
            } else {
                Fate::Undone
            }
        }
        ClaimState::Ready { .. } if may_have_containers => Fate::Repaired,
        ClaimState::Preparing { .. } | ClaimState::Ready { .. } => Fate::Stays,
    }
}

/// What becomes of a claim of which only a damaged record is left. Pure.
fn fate_in_doubt(life: ClaimLife) -> Fate {
    if life.is_over() { Fate::Missing } else { Fate::Stays }
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
        let fate = fate(&record, still(claim, life, round.life), round.boot_id);
        if fate == Fate::Repaired {
            self.repair(&record, round, report);
        }
        let ended = self.end_locked(claim, fate, round);
        report.ended(claim, ended);
    }

    /// Undoes a claim that keeps another one from being prepared, if no pod can use it any more.
    pub(crate) fn end(&self, claim: &ClaimRef, round: Round<'_>) -> Result<Ending, Problem> {
        let life = (round.life)(claim);
        if !life.is_over() {
            self.missing.forget(&claim.uid);
            return Ok(Ending::Holds);
        }
        let _lock = match self.lock_claim(claim, Instant::now()) {
            Ok(lock) => lock,
            Err(NotLocked::Busy { .. }) => return Ok(Ending::Left),
            Err(source @ NotLocked::Failed { .. }) => return Err(Problem::NotLocked { source }),
        };
        let life = still(claim, life, round.life);
        let fate = match self.load(&claim.uid).map_err(|source| Problem::Records { source })? {
            Some(record) => fate(&record, life, round.boot_id),
            None if self.is_in_doubt(&claim.uid) => fate_in_doubt(life),
            // Another call was faster.
            None => return Ok(Ending::Undone),
        };
        self.end_locked(claim, fate, round)
    }

    fn end_locked(&self, claim: &ClaimRef, fate: Fate, round: Round<'_>) -> Result<Ending, Problem> {
        match fate {
            Fate::Stays | Fate::Repaired => {
                self.missing.forget(&claim.uid);
                return Ok(Ending::Holds);
            }
            Fate::Missing if !self.is_over(claim) => return Ok(Ending::Left),
            Fate::Missing | Fate::Undone => {}
        }
        match self.unprepare_locked(claim, round.call) {
            Ok(()) => Ok(Ending::Undone),
            Err(cause) if matches!(*cause, UnprepareCause::Lock(NotLocked::Busy { .. })) => Ok(Ending::Left),
            Err(cause) => Err(Problem::Undo { source: UnprepareError { claim: claim.clone(), cause } }),
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
        for Quarantined { salvaged, .. } in self.records.all_quarantined().unwrap_or_default() {
            let Some(claim) = salvaged.claim.filter(|_| salvaged.is_claim_certain) else { continue };
            if records.iter().any(|record| record.claim.uid == claim.uid) {
                continue;
            }
            let life = (round.life)(&claim);
            match fate_in_doubt(life) {
                Fate::Missing if self.is_over(&claim) => self.reconcile_doubt(&claim, life, round, report),
                Fate::Missing => report.missing.push(claim),
                Fate::Stays | Fate::Repaired | Fate::Undone => self.missing.forget(&claim.uid),
            }
        }
    }

    fn reconcile_doubt(&self, claim: &ClaimRef, life: ClaimLife, round: Round<'_>, report: &mut Reconciliation) {
        let Some(_lock) = report.locked(self.lock_claim(claim, round.call.deadline)) else { return };
        // Prepared again, it has a record and is looked at by the next round; unprepared, nothing is left to undo.
        if matches!(self.load(&claim.uid), Ok(None)) && self.is_in_doubt(&claim.uid) {
            let ended = self.end_locked(claim, fate_in_doubt(still(claim, life, round.life)), round);
            report.ended(claim, ended);
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
