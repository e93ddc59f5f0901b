// SPDX-License-Identifier: Apache-2.0
//! The compute mode and the time-slice interval of a GPU: set for the first claim that needs them, restored after the last.
//!
//! What was found is durable before anything is set. Both belong to the GPU and live in the driver, so that a killed
//! process leaves them as they are. What was found comes back after the last claim, whatever the GPU has by then: a setting
//! that an administrator changed meanwhile is not in force, and is never taken for one that was restored.
//!
//! The interval costs a run of `nvidia-smi`, so it is looked at for the first claim and by the reconciliation, and the
//! compute mode, which costs some microseconds, by every prepare.

use std::fmt;

use dra_checkpoint::GpuLedger;
use dra_hardware::{GpuError, MachineError, NvmlCode, Setting};
use dra_model::{ClaimRef, ComputeMode, GpuSettings, GpuUuid, Interval};
use tracing::warn;

use super::{Occasion, StepError, Tools, ledger, pay};
use crate::error::chain;
use crate::tally::Deed;

/// A setting that is not what claims rely on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// Of which GPU.
    pub gpu: GpuUuid,
    /// Which setting.
    pub setting: Setting,
    /// What the claims need.
    pub wanted: String,
    /// What is there.
    pub found: String,
    /// The claims.
    pub claims: Vec<ClaimRef>,
}

/// Lets the GPU have these settings; says whether anything had to be done.
pub(super) fn ensure(
    gpu: &GpuUuid,
    wanted: GpuSettings,
    occasion: Occasion,
    tools: &Tools<'_>,
) -> Result<bool, StepError> {
    let are_set = match occasion {
        // What differs is told, and put right by the next prepare.
        Occasion::Reconcile => return Ok(false),
        Occasion::Repeat => true,
        Occasion::New => tools.users.with_settings(gpu).next().is_some(),
    };
    let mut ledger = ledger::load(gpu, tools)?.unwrap_or_else(|| ledger::new(gpu, tools));
    if are_set && merged(ledger.in_force, wanted) == ledger.in_force {
        return put_right(gpu, wanted, tools);
    }
    let now = read(gpu, wanted, tools)?;
    remember(&mut ledger, now);
    ledger.in_force = merged(ledger.in_force, wanted);
    ledger::put(&ledger, tools)?;
    set(gpu, wanted, now, tools)?;
    Ok(true)
}

/// Gives a GPU that nobody else relies on its settings back. One that does not take them now keeps its ledger, and whoever
/// wants the GPU next has to try again.
pub(super) fn undo(gpu: &GpuUuid, tools: &Tools<'_>) {
    if tools.users.rely_on_settings(gpu) {
        return;
    }
    // Whatever else is owed to it as well, so that its ledger can go even where the disk takes no new one.
    if let Err(error) = pay(gpu, tools) {
        warn!(%gpu, error = chain(&error), "a GPU is still owed something");
    }
}

/// Restores what can be restored and strikes it out of the ledger.
pub(super) fn restore(ledger: &mut GpuLedger, tools: &Tools<'_>) -> Result<(), StepError> {
    let GpuLedger { gpu, found, in_force, .. } = ledger;
    let failed = |source| StepError::Restore { gpu: gpu.clone(), source: Box::new(source) };
    let mode = Original { setting: Setting::ComputeMode, found: found.compute_mode, in_force: in_force.compute_mode };
    let mode = mode.restore(tools, || tools.host.compute_mode(gpu), |mode| tools.host.set_compute_mode(gpu, mode));
    if mode.is_ok() {
        (found.compute_mode, in_force.compute_mode) = (None, None);
    }
    let interval = Original { setting: Setting::Interval, found: found.interval, in_force: in_force.interval };
    let interval =
        interval.restore(tools, || tools.host.interval(gpu), |interval| tools.host.set_interval(gpu, interval));
    if interval.is_ok() {
        (found.interval, in_force.interval) = (None, None);
    }
    mode.and(interval).map_err(failed)
}

/// What the ledger says of one setting.
struct Original<T> {
    setting: Setting,
    found: Option<T>,
    in_force: Option<T>,
}

impl<T: PartialEq + Copy> Original<T> {
    fn restore(
        self,
        tools: &Tools<'_>,
        read: impl FnOnce() -> Result<Option<T>, GpuError>,
        set: impl FnOnce(T) -> Result<(), GpuError>,
    ) -> Result<(), GpuError> {
        let Some(found) = self.found else { return Ok(()) };
        // Where no claim needed another value the GPU mostly has it still, and reading tells without a change.
        let now = if self.in_force == Some(found) { read() } else { Ok(None) };
        let restored = match now {
            Ok(now) if now == Some(found) => return Ok(()),
            Ok(_) => set(found),
            Err(error) => Err(error),
        };
        let restored = match restored {
            Err(error) if is_gone(&error) => Ok(()),
            other => other,
        };
        let deed = if restored.is_ok() { Deed::Restored(self.setting) } else { Deed::NotRestored(self.setting) };
        tools.tally.count(deed);
        restored
    }
}

/// What of the settings that claims rely on is no longer so. In the ledger it is not in force any more, so that the next
/// prepare sets it again, the interval included.
pub(crate) fn drifts(gpu: &GpuUuid, tools: &Tools<'_>) -> Result<Vec<Drift>, StepError> {
    let wanted = tools.users.with_settings(gpu).fold(GpuSettings::default(), |all, (_, wanted)| merged(all, wanted));
    if wanted == GpuSettings::default() {
        return Ok(Vec::new());
    }
    let now = read(gpu, wanted, tools)?;
    let mode = drift(gpu, Setting::ComputeMode, wanted.compute_mode, now.compute_mode, tools);
    let interval = drift(gpu, Setting::Interval, wanted.interval, now.interval, tools);
    let drifts: Vec<Drift> = mode.into_iter().chain(interval).collect();
    if let Some(mut ledger) = ledger::load(gpu, tools)? {
        let before = ledger.in_force;
        for Drift { setting, .. } in &drifts {
            match setting {
                Setting::ComputeMode => ledger.in_force.compute_mode = None,
                Setting::Interval => ledger.in_force.interval = None,
            }
        }
        if ledger.in_force != before {
            ledger::put(&ledger, tools)?;
        }
    }
    Ok(drifts)
}

fn drift<T: PartialEq + fmt::Display>(
    gpu: &GpuUuid,
    setting: Setting,
    wanted: Option<T>,
    now: Option<T>,
    tools: &Tools<'_>,
) -> Option<Drift> {
    let (wanted, found) = (wanted?, now?);
    let claims = || tools.users.with_settings(gpu).map(|(claim, _)| claim.clone()).collect();
    (wanted != found).then(|| Drift {
        gpu: gpu.clone(),
        setting,
        wanted: wanted.to_string(),
        found: found.to_string(),
        claims: claims(),
    })
}

/// Whether there is nothing left to restore: a GPU that was cut has no compute mode, and the settings of a driver that is
/// not loaded went with it.
fn is_gone(error: &GpuError) -> bool {
    const NOT_LOADED: NvmlCode = NvmlCode(9);
    match error {
        GpuError::Unsupported { .. } => true,
        GpuError::Machine { source: MachineError::NotAnswering { code, .. }, .. } => *code == NOT_LOADED,
        GpuError::Machine { source: MachineError::NoLibrary { .. }, .. }
        | GpuError::NotFound { .. }
        | GpuError::OutOfTime { .. }
        | GpuError::Failed { .. }
        | GpuError::UnexpectedValue { .. }
        | GpuError::NotApplied { .. }
        | GpuError::Program { .. } => false,
    }
}

/// The settings that are wanted, as they are now. An interval is not missed where the default is wanted.
fn read(gpu: &GpuUuid, wanted: GpuSettings, tools: &Tools<'_>) -> Result<GpuSettings, StepError> {
    let failed = |source| StepError::Settings { gpu: gpu.clone(), source: Box::new(source) };
    let unsupported = |setting| failed(GpuError::Unsupported { gpu: gpu.clone(), setting });
    let mut now = GpuSettings::default();
    if wanted.compute_mode.is_some() {
        now.compute_mode = tools.host.compute_mode(gpu).map_err(failed)?;
        now.compute_mode.ok_or_else(|| unsupported(Setting::ComputeMode))?;
    }
    if let Some(interval) = wanted.interval {
        now.interval = tools.host.interval(gpu).map_err(failed)?;
        if now.interval.is_none() && interval != Interval::Default {
            return Err(unsupported(Setting::Interval));
        }
    }
    Ok(now)
}

fn set(gpu: &GpuUuid, wanted: GpuSettings, now: GpuSettings, tools: &Tools<'_>) -> Result<(), StepError> {
    let failed = |source| StepError::Settings { gpu: gpu.clone(), source: Box::new(source) };
    if let Some(mode) = wanted.compute_mode.filter(|_| wanted.compute_mode != now.compute_mode) {
        tools.host.set_compute_mode(gpu, mode).map_err(failed)?;
    }
    match (wanted.interval, now.interval) {
        (Some(interval), Some(now)) if interval != now => tools.host.set_interval(gpu, interval).map_err(failed),
        // One that the GPU does not have was found to be the default.
        (Some(_) | None, _) => Ok(()),
    }
}

/// Someone else may have changed the compute mode since it was set.
fn put_right(gpu: &GpuUuid, wanted: GpuSettings, tools: &Tools<'_>) -> Result<bool, StepError> {
    let failed = |source| StepError::Settings { gpu: gpu.clone(), source: Box::new(source) };
    let Some(mode) = wanted.compute_mode else { return Ok(false) };
    let now = tools.host.compute_mode(gpu).map_err(failed)?;
    if now == Some(mode) {
        return Ok(false);
    }
    let found = now.map_or_else(|| "none".to_owned(), |now: ComputeMode| now.to_string());
    warn!(%gpu, found, wanted = %mode, "the compute mode was changed by someone else and is put right");
    tools.tally.count(Deed::PutRight(Setting::ComputeMode));
    tools.host.set_compute_mode(gpu, mode).map_err(failed)?;
    Ok(true)
}

/// Notes what was found of settings that are wanted for the first time.
fn remember(ledger: &mut GpuLedger, now: GpuSettings) {
    let GpuLedger { found, in_force, .. } = ledger;
    if in_force.compute_mode.is_none() {
        found.compute_mode = found.compute_mode.or(now.compute_mode);
    }
    if in_force.interval.is_none() {
        found.interval = found.interval.or(now.interval);
    }
}

fn merged(before: GpuSettings, wanted: GpuSettings) -> GpuSettings {
    GpuSettings {
        compute_mode: wanted.compute_mode.or(before.compute_mode),
        interval: wanted.interval.or(before.interval),
    }
}
