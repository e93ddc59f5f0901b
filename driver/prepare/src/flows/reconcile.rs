// SPDX-License-Identifier: Apache-2.0
//! Brings records, specs, locks, settings and daemons into line, at start and from time to time.
//!
//! It repairs ready claims, finishes what was begun, removes what belongs to this driver and to no claim, and reports foreign
//! files without touching them. One failure stops nothing else. A claim on which another call works is left alone.
//!
//! Listings only tell where to look. Everything is read again under the lock that it is changed with.

mod claims;

mod gpus;

mod hook;

mod specs;

use std::time::Instant;

use dra_model::{ClaimRef, ClaimUid};

use crate::flows::end::Round;
use crate::flows::report::{Problem, Reconciliation};
use crate::state::claim_api::ClaimLookup;
use crate::state::node::Node;
use crate::state::other_claims::list_records;

/// `look_up` asks the API server about a claim. A ready claim of this boot that stays missing is undone; see `state::missing`.
pub(crate) fn reconcile(node: &Node, look_up: &dyn Fn(&ClaimRef) -> ClaimLookup) -> Reconciliation {
    let mut report = Reconciliation::default();
    // The reconciliation waits for no lock.
    let call = node.background_call(Instant::now());
    if let Err(source) = node.locks.sweep() {
        report.problems.push(Problem::Locks { source });
    }
    // Specs before records: a spec whose claim has a record by then is in use. And before claims: a base spec that was removed
    // while a prepare of another instance came to need it is written again by the repair of that claim.
    match node.specs.list() {
        Ok(listing) => specs::reconcile(node, listing, &call, &mut report),
        Err(source) => report.problems.push(Problem::Specs { source }),
    }
    match list_records(node) {
        Ok(listing) => {
            let boot_id = node.host.boot_id().map_err(|source| report.problems.push(Problem::Boot { source })).ok();
            let round = Round { look_up, boot_id: boot_id.as_deref(), call: &call };
            claims::reconcile(node, &listing.records, round, &mut report);
            claims::reconcile_quarantined(node, &listing.records, round, &mut report);
            node.missing.retain(|uid| report.missing.iter().any(|missing| missing.uid == *uid));
            listing.unfinished.iter().for_each(|uid| remove_unfinished_record(node, uid, &mut report));
            report.foreign.extend(listing.foreign);
        }
        Err(source) => report.problems.push(Problem::Records { source }),
    }
    // After claims: their repair may have replaced base specs.
    hook::reconcile(node, &mut report);
    gpus::reconcile(node, &call, &mut report);
    match node.records.all_quarantined() {
        Ok(quarantined) => report.quarantined = quarantined,
        Err(source) => report.problems.push(Problem::Records { source }),
    }
    report
}

fn remove_unfinished_record(node: &Node, uid: &ClaimUid, report: &mut Reconciliation) {
    let removed = node.if_idle(uid, || node.records.remove_unfinished(uid));
    report.done_if_idle(removed, |source| Problem::Records { source });
}
