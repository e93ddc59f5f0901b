// SPDX-License-Identifier: Apache-2.0
//! Keeps a promise: intent on disk, then the effects, then the mark.
//!
//! The first record is durable before the first effect. Between steps it is written again, so that it always names the
//! step that may be half done. The mark of a ready claim is not fsynced; see `dra_checkpoint`.

use dra_checkpoint::{ClaimRecord, ClaimState, RecordStore, StoreError};

use crate::step::{self, Occasion, StepError, Tools, Work};

/// Where it stopped.
#[derive(Debug)]
pub enum RunError {
    /// The record could not be written or marked.
    Record(StoreError),
    /// An effect failed.
    Step(StepError),
}

/// Does all steps of a new promise. On failure the effects so far are still there, and so is their record if it could
/// be written.
pub fn run(work: &mut Work, records: &RecordStore, tools: &Tools<'_>) -> Result<(), RunError> {
    records.put(&work.record).map_err(RunError::Record)?;
    while let ClaimState::Preparing { done, next } = &work.record.state {
        let Some((first, rest)) = next.split_first() else { break };
        step::apply(first, work, Occasion::New, tools).map_err(RunError::Step)?;
        let done = done.iter().chain([first]).cloned().collect();
        if rest.is_empty() {
            records.mark_ready(&work.record.claim.uid).map_err(RunError::Record)?;
            work.record.state = ClaimState::Ready { done };
        } else {
            work.record.state = ClaimState::Preparing { done, next: rest.to_vec() };
            records.put(&work.record).map_err(RunError::Record)?;
        }
    }
    Ok(())
}

/// Lets a promise that is kept already be kept again; says whether anything had to be done.
///
/// What changed in its identity is recorded first. A failure undoes nothing: containers may be running with it.
pub fn repair(
    work: &mut Work,
    kept: &ClaimRecord,
    occasion: Occasion,
    records: &RecordStore,
    tools: &Tools<'_>,
) -> Result<bool, RunError> {
    let ClaimState::Ready { done } = &kept.state else { return Ok(false) };
    work.record.state = kept.state.clone();
    let mut changed = work.record != *kept;
    if changed {
        records.put(&work.record).map_err(RunError::Record)?;
    }
    let mut failed = None;
    for step in done {
        match step::apply(step, work, occasion, tools) {
            Ok(had_to) => changed |= had_to,
            // One that fails keeps no other from being repaired.
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(changed), |error| Err(RunError::Step(error)))
}
