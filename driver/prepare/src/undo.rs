// SPDX-License-Identifier: Apache-2.0
//! Takes a promise back: every effect in reverse order, past failures, with neither API server nor driver.
//!
//! When all is gone the record goes. When something stays, a durable `Undoing` record says what and why, and the next
//! attempt, by the kubelet or by the reconciliation, goes on from there. Nothing is journalled before: every undo may be
//! repeated, so a crash in between leaves a record whose undoing starts over.

use std::fmt;

use dra_checkpoint::{ClaimRecord, ClaimState, RecordStore, Step, StoreError};

use crate::error::chain;
use crate::step::{self, StepError, Tools};

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
pub fn undo(record: &ClaimRecord, records: &RecordStore, tools: &Tools<'_>) -> Result<(), Failures> {
    let (left, mut failures) = undo_each(record, tools);
    let recorded = match failures.first() {
        None => records.remove(&record.claim.uid),
        Some(first) => {
            let state = ClaimState::Undoing { left, last_error: chain(first) };
            let now = ClaimRecord { state, ..record.clone() };
            // A retry that fails as before changes nothing on disk.
            if now == *record { Ok(()) } else { records.put(&now) }
        }
    };
    failures.extend(recorded.err().map(|source| UndoError::Record { source }));
    if failures.is_empty() { Ok(()) } else { Err(Failures(failures)) }
}

/// Undoes everything a record stands for before a new start. The claim keeps its record and with it its devices.
pub fn undo_effects(record: &ClaimRecord, tools: &Tools<'_>) -> Result<(), Failures> {
    let (_, failures) = undo_each(record, tools);
    if failures.is_empty() { Ok(()) } else { Err(Failures(failures)) }
}

fn undo_each(record: &ClaimRecord, tools: &Tools<'_>) -> (Vec<Step>, Vec<UndoError>) {
    let (mut left, mut failures) = (Vec::new(), Vec::new());
    for step in record.effects() {
        if let Err(source) = step::undo(&step, &record.claim.uid, tools) {
            left.push(step);
            failures.push(UndoError::Step { source });
        }
    }
    (left, failures)
}
