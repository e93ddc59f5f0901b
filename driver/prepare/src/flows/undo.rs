// SPDX-License-Identifier: Apache-2.0
//! Undoes the effects of a record in reverse order, past failures, with neither API server nor driver.
//!
//! When all effects are undone the record is removed. When one stays, a durable `Undoing` record names it and the error, and
//! the next attempt, by the kubelet or the reconciliation, goes on from there. Nothing is journalled before: every undo can be
//! repeated, so a crash in between leaves a record whose undo starts over.

use std::borrow::Cow;
use std::fmt;

use dra_checkpoint::{ClaimRecord, ClaimState, RecordStore, Step, StoreError};
use dra_model::{Advice, chain};

use crate::effects::error::EffectError;
use crate::effects::step;
use crate::effects::tools::Tools;

/// Everything that failed, at least one thing.
#[derive(Debug)]
pub struct Failures(Vec<UndoError>);

/// One failure.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UndoError {
    #[error(transparent)]
    Effect(EffectError),
    #[error("failed to update the claim record")]
    Record {
        #[source]
        source: StoreError,
    },
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(|failure| chain(failure).to_string()).collect();
        f.write_str(&texts.join("; "))
    }
}

impl Failures {
    /// The advice of the first failure that has one.
    pub(crate) fn advice(&self) -> Option<Cow<'static, str>> {
        self.0.iter().find_map(|failure| match failure {
            UndoError::Effect(source) => source.advice(),
            UndoError::Record { source } => source.advice(),
        })
    }
}

/// Undoes every effect of a record and removes the record. The caller holds the locks.
pub(crate) fn undo(record: &ClaimRecord, records: &RecordStore, tools: &Tools<'_>) -> Result<(), Failures> {
    let (left, mut failures) = undo_each(record, tools);
    let recorded = match failures.first() {
        None => records.remove(&record.claim.uid),
        Some(first) => {
            let state = ClaimState::Undoing { left, last_error: chain(first).to_string() };
            let now = ClaimRecord { state, ..record.clone() };
            // A retry that fails as before writes nothing.
            if now == *record { Ok(()) } else { records.put(&now) }
        }
    };
    failures.extend(recorded.err().map(|source| UndoError::Record { source }));
    if failures.is_empty() { Ok(()) } else { Err(Failures(failures)) }
}

/// Undoes every effect of a record before a new start. The claim keeps its record and with it its devices.
pub(crate) fn undo_effects(record: &ClaimRecord, tools: &Tools<'_>) -> Result<(), Failures> {
    let (_, failures) = undo_each(record, tools);
    if failures.is_empty() { Ok(()) } else { Err(Failures(failures)) }
}

fn undo_each(record: &ClaimRecord, tools: &Tools<'_>) -> (Vec<Step>, Vec<UndoError>) {
    let (mut left, mut failures) = (Vec::new(), Vec::new());
    for step in record.effects() {
        if let Err(source) = step::undo(&step, record, tools) {
            left.push(step);
            failures.push(UndoError::Effect(source));
        }
    }
    (left, failures)
}
