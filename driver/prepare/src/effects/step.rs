// SPDX-License-Identifier: Apache-2.0
//! The effect behind each step of a record.

use dra_checkpoint::{ClaimRecord, Step};
use dra_model::ClaimUid;

use crate::effects::error::EffectError;
use crate::effects::prerequisites::Prerequisites;
use crate::effects::tools::{Tools, Trigger};
use crate::effects::{claim_spec, gpu_settings, mps_daemon};

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
    };
    changed.map(drop)
}

/// Checks that the effect is still there, repairs it, and returns whether it was repaired.
pub(crate) fn verify(
    step: &Step,
    record: &ClaimRecord,
    trigger: Trigger,
    prerequisites: &Prerequisites<'_>,
    tools: &Tools<'_>,
) -> Result<bool, EffectError> {
    match step {
        Step::ClaimSpec => claim_spec::verify(record, prerequisites, tools),
        Step::GpuSettings { gpu, wanted } => gpu_settings::verify(gpu, *wanted, trigger, tools),
        Step::MpsDaemon { id, gpus } => mps_daemon::verify(id, gpus, record, tools),
    }
}

/// Removes the effect, as far as no other claim relies on it.
pub(crate) fn undo(step: &Step, uid: &ClaimUid, tools: &Tools<'_>) -> Result<(), EffectError> {
    match step {
        Step::ClaimSpec => return claim_spec::undo(uid, tools),
        Step::GpuSettings { gpu, .. } => gpu_settings::undo(gpu, tools),
        Step::MpsDaemon { id, gpus } => mps_daemon::undo(id, gpus, uid, tools),
    }
    Ok(())
}
