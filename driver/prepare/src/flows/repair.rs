// SPDX-License-Identifier: Apache-2.0
//! Verifies and repairs the effects of a claim that is prepared already.

use dra_checkpoint::{ClaimRecord, ClaimState, RecordStore};

use crate::effects::prerequisites::Prerequisites;
use crate::effects::step;
use crate::effects::tools::{Tools, Trigger};
use crate::flows::journal::RunError;

/// Verifies every effect of `prepared`, and returns whether anything was repaired. `planned` is the record as it would be
/// planned now; what differs in the identity of its devices is recorded first. A failure undoes nothing, because containers
/// may be running.
pub(super) fn repair(
    planned: &mut ClaimRecord,
    prepared: &ClaimRecord,
    trigger: Trigger,
    prerequisites: &Prerequisites<'_>,
    records: &RecordStore,
    tools: &Tools<'_>,
) -> Result<bool, RunError> {
    let ClaimState::Ready { done } = &prepared.state else { return Ok(false) };
    planned.state = prepared.state.clone();
    let mut changed = *planned != *prepared;
    if changed {
        records.put(planned).map_err(RunError::Record)?;
    }
    let mut failed = None;
    for step in done {
        let known = planned.devices.clone();
        let verified = step::verify(step, planned, trigger, prerequisites, tools);
        if planned.devices != known {
            records.put(planned).map_err(RunError::Record)?;
        }
        match verified {
            Ok(repaired) => changed |= repaired,
            // The other effects are repaired all the same.
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(changed), |error| Err(RunError::Effect(error)))
}
