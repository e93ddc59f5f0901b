// SPDX-License-Identifier: Apache-2.0
//! Decides what becomes of a claim that has a record, and ends it when no pod of this node can use it any more.

use std::time::Instant;

use dra_checkpoint::{ClaimRecord, ClaimState};
use dra_model::ClaimRef;

use crate::error::{UnprepareCause, UnprepareError};
use crate::flows::ensure::is_prepared_this_boot;
use crate::flows::report::Problem;
use crate::flows::unprepare::unprepare_locked;
use crate::state::call::Call;
use crate::state::claim_api::ClaimLookup;
use crate::state::lock_error::NotLocked;
use crate::state::node::Node;

/// What becomes of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The kubelet prepares it again, or unprepares it.
    Stays,
    Repaired,
    /// It is left to the kubelet for a grace period, since its containers may still run, and then undone.
    Missing,
    Undone,
}

/// How far a claim was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// A pod of this node can use the claim.
    InUse,
    /// No pod can use the claim, but its effects are still there: its containers may run, or another call works on the claim
    /// or its GPUs.
    Pending,
    Undone,
}

/// What the decisions of one round or call depend on.
#[derive(Clone, Copy)]
pub(super) struct Round<'a> {
    pub(super) look_up: &'a dyn Fn(&ClaimRef) -> ClaimLookup,
    /// Absent where it cannot be read: then every claim may have containers.
    pub(super) boot_id: Option<&'a str>,
    pub(super) call: &'a Call<'a>,
}

/// What becomes of the claim of a record. Pure.
pub(super) fn fate(record: &ClaimRecord, lookup: ClaimLookup, boot_id: Option<&str>) -> Fate {
    let may_have_containers = boot_id.is_none_or(|boot_id| is_prepared_this_boot(record, boot_id));
    match &record.state {
        ClaimState::Undoing { .. } => Fate::Undone,
        ClaimState::Preparing { .. } | ClaimState::Ready { .. } if lookup.is_over() => {
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

/// What becomes of the claim of a quarantined record. Pure.
pub(super) fn fate_of_quarantined(lookup: ClaimLookup) -> Fate {
    if lookup.is_over() { Fate::Missing } else { Fate::Stays }
}

/// Ends a claim that holds what another claim needs, if no pod can use it any more.
pub(super) fn end(node: &Node, claim: &ClaimRef, round: Round<'_>) -> Result<Ending, Problem> {
    let lookup = (round.look_up)(claim);
    if !lookup.is_over() {
        node.missing.forget(&claim.uid);
        return Ok(Ending::InUse);
    }
    let _lock = match node.lock_claim(&claim.uid, Instant::now()) {
        Ok(lock) => lock,
        Err(NotLocked::Busy { .. }) => return Ok(Ending::Pending),
        Err(source @ NotLocked::Failed { .. }) => return Err(Problem::NotLocked { source }),
    };
    let lookup = confirmed(claim, lookup, round.look_up);
    let fate = match node.load(&claim.uid).map_err(|source| Problem::Records { source })? {
        Some(record) => fate(&record, lookup, round.boot_id),
        None if node.is_quarantined(&claim.uid) => fate_of_quarantined(lookup),
        // Another call has undone it.
        None => return Ok(Ending::Undone),
    };
    end_locked(node, claim, fate, round)
}

/// Does what the fate of a claim asks for, but a repair. The caller holds the claim's lock.
pub(super) fn end_locked(node: &Node, claim: &ClaimRef, fate: Fate, round: Round<'_>) -> Result<Ending, Problem> {
    match fate {
        Fate::Stays | Fate::Repaired => {
            node.missing.forget(&claim.uid);
            return Ok(Ending::InUse);
        }
        Fate::Missing if !is_grace_period_over(node, claim) => return Ok(Ending::Pending),
        Fate::Missing | Fate::Undone => {}
    }
    match unprepare_locked(node, claim, round.call) {
        Ok(()) => Ok(Ending::Undone),
        Err(cause) if matches!(*cause, UnprepareCause::Lock(NotLocked::Busy { .. })) => Ok(Ending::Pending),
        Err(cause) => Err(Problem::Undo { source: UnprepareError { claim: claim.clone(), cause } }),
    }
}

/// Records that the claim is missing, and returns whether the kubelet has had its time to unprepare it.
pub(super) fn is_grace_period_over(node: &Node, claim: &ClaimRef) -> bool {
    let missing_for = node.missing.miss(&claim.uid, Instant::now());
    missing_for.is_some_and(|missing_for| missing_for >= node.settings.missing_grace_period)
}

/// The answer of the API server under the claim's lock. A claim that is gone stays gone; a released one may have been
/// allocated to this node again, and prepared.
pub(super) fn confirmed(claim: &ClaimRef, lookup: ClaimLookup, ask: &dyn Fn(&ClaimRef) -> ClaimLookup) -> ClaimLookup {
    match lookup {
        ClaimLookup::Released => ask(claim),
        ClaimLookup::Allocated | ClaimLookup::Gone | ClaimLookup::Unknown => lookup,
    }
}
