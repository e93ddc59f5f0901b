// SPDX-License-Identifier: Apache-2.0
//! Takes a promise back: every effect in reverse order, past failures, with neither API server nor driver.
//!
//! When all is gone the record goes. When something stays, a durable `Undoing` record says what and why, and the next
//! attempt, by the kubelet or by the reconciliation, goes on from there. Nothing is journalled before: every undo may be
//! repeated, so a crash in between leaves a record whose undoing starts over.

use std::fmt;

use dra_cdi::SpecStore;
use dra_checkpoint::{ClaimRecord, ClaimState, RecordStore, StoreError};

use crate::error::chain;
use crate::step::{self, StepError};

/// Everything that went wrong, at least one thing.
#[derive(Debug)]
pub struct Failures(Vec<UndoError>);

/// One thing that went wrong.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    /// An effect is still there.
    #[error("an effect stays")]
    Step {
        /// Why.
        #[source]
        source: StepError,
    },
    /// The record does not say how far it went.
    #[error("the record stays as it was")]
    Record {
        /// Why.
        #[source]
        source: StoreError,
    },
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(|failure| chain(failure)).collect();
        f.write_str(&texts.join("; "))
    }
}

/// Undoes everything a record stands for and forgets the claim. The caller holds the locks.
pub fn undo(record: &ClaimRecord, records: &RecordStore, specs: &SpecStore) -> Result<(), Failures> {
    let (mut left, mut failures) = (Vec::new(), Vec::new());
    for step in record.effects() {
        if let Err(source) = step::undo(&step, &record.claim.uid, specs) {
            left.push(step);
            failures.push(UndoError::Step { source });
        }
    }
    let recorded = match failures.first() {
        None => records.remove(&record.claim.uid),
        Some(error) => {
            let state = ClaimState::Undoing { left, last_error: chain(error) };
            note(&ClaimRecord { state, ..record.clone() }, record, records)
        }
    };
    failures.extend(recorded.err().map(|source| UndoError::Record { source }));
    if failures.is_empty() { Ok(()) } else { Err(Failures(failures)) }
}

/// A retry that fails as before changes nothing on disk.
fn note(now: &ClaimRecord, before: &ClaimRecord, records: &RecordStore) -> Result<(), StoreError> {
    if now == before { Ok(()) } else { records.put(now) }
}
