// SPDX-License-Identifier: Apache-2.0
//! The effect behind each step of a record.

use dra_checkpoint::{ClaimRecord, Step};

use crate::effects::error::EffectError;
use crate::effects::prerequisites::Prerequisites;
use crate::effects::tools::{Tools, Trigger};
use crate::effects::{claim_spec, gpu_settings, mps_daemon, partition};

/// Checks before the first effect what can be checked without one.
pub(crate) fn check(
    record: &ClaimRecord,
    prerequisites: &Prerequisites<'_>,
    tools: &Tools<'_>,
) -> Result<(), EffectError> {
    claim_spec::check(record, prerequisites, tools)
}

/// Brings the effect about. It may write into the record what it learned; the caller makes the record durable before the
/// next effect.
pub(crate) fn apply(
    step: &Step,
    record: &mut ClaimRecord,
    prerequisites: &Prerequisites<'_>,
    tools: &Tools<'_>,
) -> Result<(), EffectError> {
    let changed = match step {
        Step::ClaimSpec => claim_spec::apply(record, prerequisites, tools),
        Step::GpuSettings { gpu, wanted } => gpu_settings::apply(gpu, *wanted, tools),
        Step::MpsDaemon { id, gpus } => mps_daemon::apply(id, gpus, record, tools),
        Step::Partition { identity } => partition::apply(identity, record, tools),
    };
    changed.map(drop)
}

/// Checks that the effect is still there, repairs it, and returns whether it was repaired. It may write into the record what it
/// learned.
pub(crate) fn verify(
    step: &Step,
    record: &mut ClaimRecord,
    trigger: Trigger,
    prerequisites: &Prerequisites<'_>,
    tools: &Tools<'_>,
) -> Result<bool, EffectError> {
    match step {
        Step::ClaimSpec => claim_spec::verify(record, prerequisites, tools),
        Step::GpuSettings { gpu, wanted } => gpu_settings::verify(gpu, *wanted, trigger, tools),
        Step::MpsDaemon { id, gpus } => mps_daemon::verify(id, gpus, record, tools),
        Step::Partition { identity } => partition::verify(identity, record, prerequisites, tools),
    }
}

/// Removes the effect, as far as no other claim relies on it.
pub(crate) fn undo(step: &Step, record: &ClaimRecord, tools: &Tools<'_>) -> Result<(), EffectError> {
    let uid = &record.claim.uid;
    match step {
        Step::ClaimSpec => return claim_spec::undo(uid, tools),
        Step::GpuSettings { gpu, .. } => gpu_settings::undo(gpu, tools),
        Step::MpsDaemon { id, gpus } => mps_daemon::undo(id, gpus, uid, tools),
        Step::Partition { identity } => return partition::undo(identity, record, tools),
    }
    Ok(())
}
