// SPDX-License-Identifier: Apache-2.0
//! Repairs, undoes or leaves each claim that has a record or a quarantined one.
//!
//! The records are listed without a lock and only tell which claims to look at. What is done to a claim is decided again from
//! its record under the claim's lock: the kubelet, or another instance of the plugin, may have prepared or unprepared the
//! claim since.

use dra_checkpoint::{ClaimRecord, Quarantined};
use dra_model::ClaimRef;

use crate::error::{PrepareCause, PrepareError};
use crate::flows::end::{Ending, Fate, Round, confirmed, end_locked, fate, fate_of_quarantined, is_grace_period_over};
use crate::flows::ensure::{Base, Wanted, claim_of, ensure_prepared};
use crate::flows::report::{Problem, Reconciliation};
use crate::state::claim_api::ClaimLookup;
use crate::state::lock_error::NotLocked;
use crate::state::node::Node;

pub(super) fn reconcile(node: &Node, records: &[ClaimRecord], round: Round<'_>, report: &mut Reconciliation) {
    for listed in records {
        let claim = &listed.claim;
        let lookup = (round.look_up)(claim);
        match fate(listed, lookup, round.boot_id) {
            Fate::Stays => node.missing.forget(&claim.uid),
            Fate::Missing if !is_grace_period_over(node, claim) => report.missing.push(claim.clone()),
            Fate::Missing | Fate::Repaired | Fate::Undone => reconcile_claim(node, claim, lookup, round, report),
        }
    }
}

fn reconcile_claim(node: &Node, claim: &ClaimRef, lookup: ClaimLookup, round: Round<'_>, report: &mut Reconciliation) {
    let Some(_lock) = report.locked(node.lock_claim(&claim.uid, round.call.lock_deadline)) else { return };
    let record = match node.load(&claim.uid) {
        Ok(Some(record)) => record,
        Ok(None) => return,
        Err(source) => return report.problems.push(Problem::Records { source }),
    };
    let fate = fate(&record, confirmed(claim, lookup, round.look_up), round.boot_id);
    if fate == Fate::Repaired {
        repair(node, &record, round, report);
    }
    ended(claim, end_locked(node, claim, fate, round), report);
}

/// Claims with nothing but a quarantined record are undone when they are certainly gone.
pub(super) fn reconcile_quarantined(
    node: &Node,
    records: &[ClaimRecord],
    round: Round<'_>,
    report: &mut Reconciliation,
) {
    // The end of the reconciliation reports a directory that cannot be read.
    for Quarantined { salvaged, .. } in node.records.all_quarantined().unwrap_or_default() {
        let Some(claim) = salvaged.claim.filter(|_| salvaged.is_claim_certain) else { continue };
        if records.iter().any(|record| record.claim.uid == claim.uid) {
            continue;
        }
        let lookup = (round.look_up)(&claim);
        match fate_of_quarantined(lookup) {
            Fate::Missing if is_grace_period_over(node, &claim) => {
                reconcile_quarantined_claim(node, &claim, lookup, round, report);
            }
            Fate::Missing => report.missing.push(claim),
            Fate::Stays | Fate::Repaired | Fate::Undone => node.missing.forget(&claim.uid),
        }
    }
}

fn reconcile_quarantined_claim(
    node: &Node,
    claim: &ClaimRef,
    lookup: ClaimLookup,
    round: Round<'_>,
    report: &mut Reconciliation,
) {
    let Some(_lock) = report.locked(node.lock_claim(&claim.uid, round.call.lock_deadline)) else { return };
    // A claim that was prepared meanwhile has a record, which the next reconciliation handles. One that was unprepared has
    // nothing left to undo.
    if matches!(node.load(&claim.uid), Ok(None)) && node.is_quarantined(&claim.uid) {
        let fate = fate_of_quarantined(confirmed(claim, lookup, round.look_up));
        ended(claim, end_locked(node, claim, fate, round), report);
    }
}

fn repair(node: &Node, record: &ClaimRecord, round: Round<'_>, report: &mut Reconciliation) {
    let Some(boot_id) = round.boot_id else { return };
    let claim = claim_of(record);
    let wanted =
        Wanted { claim: &claim, existing: Some(record), boot_id, base: Base::OfVersion(&record.base), driver: None };
    match ensure_prepared(node, wanted, round.call) {
        Ok((_, true)) => report.repaired.push(record.claim.clone()),
        Ok((_, false)) => {}
        Err(cause) if matches!(*cause, PrepareCause::Lock(NotLocked::Busy { .. })) => {}
        Err(cause) => {
            let source = PrepareError { claim: record.claim.clone(), cause };
            report.problems.push(Problem::Repair { source });
        }
    }
}

fn ended(claim: &ClaimRef, ended: Result<Ending, Problem>, report: &mut Reconciliation) {
    match ended {
        Ok(Ending::InUse) => {}
        Ok(Ending::Pending) => report.missing.push(claim.clone()),
        Ok(Ending::Undone) => report.undone.push(claim.clone()),
        Err(problem) => report.problems.push(problem),
    }
}
