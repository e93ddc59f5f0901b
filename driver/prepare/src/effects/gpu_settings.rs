// SPDX-License-Identifier: Apache-2.0
//! The compute mode and the time-slice interval of a GPU: set for the first claim that needs them, restored after the last.
//!
//! The original settings are durable before a setting is changed. Settings live in the NVIDIA driver, so they survive a killed
//! process. The original settings are restored after the last claim, whatever the GPU has by then: a setting that an
//! administrator changed meanwhile does not count as restored.
//!
//! Reading the interval takes a run of `nvidia-smi`, so it is read for the first claim and by the reconciliation. Reading the
//! compute mode takes some microseconds, so every prepare does it.

use std::fmt;

use dra_checkpoint::GpuLedger;
use dra_hardware::{GpuError, Setting};
use dra_model::{ClaimRef, ComputeMode, GpuSettings, GpuUuid, Interval, explain};
use tracing::warn;

use crate::effects::error::EffectError;
use crate::effects::tools::{Tools, Trigger};
use crate::effects::{ledger, restore};
use crate::state::counters::RestoreOutcome;

/// A setting that differs from what claims rely on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    pub gpu: GpuUuid,
    pub setting: Setting,
    pub wanted: String,
    pub found: String,
    /// The claims that rely on the setting.
    pub claims: Vec<ClaimRef>,
}

/// Gives a GPU the settings that a claim needs. Only the compute mode is checked where other claims have set them already.
pub(super) fn apply(gpu: &GpuUuid, wanted: GpuSettings, tools: &Tools<'_>) -> Result<bool, EffectError> {
    let are_set = tools.references.with_settings(gpu).next().is_some();
    let ledger = ledger::load(gpu, tools)?.unwrap_or_else(|| ledger::new(gpu, tools));
    if are_set && is_in_force(&ledger, wanted) {
        correct_compute_mode(gpu, wanted, tools)
    } else {
        change(ledger, wanted, tools)
    }
}

/// Checks the settings of a prepared claim. The reconciliation reports what differs, see [`drifts`], and the next prepare on
/// that GPU corrects it.
pub(super) fn verify(
    gpu: &GpuUuid,
    wanted: GpuSettings,
    trigger: Trigger,
    tools: &Tools<'_>,
) -> Result<bool, EffectError> {
    match trigger {
        Trigger::Reconciliation => Ok(false),
        Trigger::Kubelet => {
            let ledger = ledger::load(gpu, tools)?.unwrap_or_else(|| ledger::new(gpu, tools));
            if is_in_force(&ledger, wanted) {
                correct_compute_mode(gpu, wanted, tools)
            } else {
                change(ledger, wanted, tools)
            }
        }
    }
}

fn is_in_force(ledger: &GpuLedger, wanted: GpuSettings) -> bool {
    merged(ledger.in_force, wanted) == ledger.in_force
}

fn change(mut ledger: GpuLedger, wanted: GpuSettings, tools: &Tools<'_>) -> Result<bool, EffectError> {
    let gpu = ledger.gpu.clone();
    let now = read(&gpu, wanted, tools)?;
    remember(&mut ledger, now);
    ledger.in_force = merged(ledger.in_force, wanted);
    ledger::put(&ledger, tools)?;
    set(&gpu, wanted, now, tools)?;
    Ok(true)
}

/// Restores the settings of a GPU that no other claim relies on. After a failure the ledger stays, and the next claim on that
/// GPU tries again.
pub(super) fn undo(gpu: &GpuUuid, tools: &Tools<'_>) {
    if tools.references.to_settings(gpu) {
        return;
    }
    // Everything at once, so that the ledger can be removed even where the disk takes no new file.
    if let Err(error) = restore::restore(gpu, tools) {
        warn!(%gpu, error = explain(&error), "restore of the original GPU settings is pending");
    }
}

/// The settings that differ from what claims rely on. The ledger marks them as not in force, so that the next prepare sets
/// them again, the interval included.
pub(crate) fn drifts(gpu: &GpuUuid, tools: &Tools<'_>) -> Result<Vec<Drift>, EffectError> {
    let wanted =
        tools.references.with_settings(gpu).fold(GpuSettings::default(), |all, (_, wanted)| merged(all, wanted));
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
    let claims = || tools.references.with_settings(gpu).map(|(claim, _)| claim.clone()).collect();
    (wanted != found).then(|| Drift {
        gpu: gpu.clone(),
        setting,
        wanted: wanted.to_string(),
        found: found.to_string(),
        claims: claims(),
    })
}

/// Reads the wanted settings. A GPU without an interval has the default one.
fn read(gpu: &GpuUuid, wanted: GpuSettings, tools: &Tools<'_>) -> Result<GpuSettings, EffectError> {
    let failed = |source| EffectError::Settings { gpu: gpu.clone(), source: Box::new(source) };
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

fn set(gpu: &GpuUuid, wanted: GpuSettings, now: GpuSettings, tools: &Tools<'_>) -> Result<(), EffectError> {
    let failed = |source| EffectError::Settings { gpu: gpu.clone(), source: Box::new(source) };
    if let Some(mode) = wanted.compute_mode.filter(|_| wanted.compute_mode != now.compute_mode) {
        tools.host.set_compute_mode(gpu, mode).map_err(failed)?;
    }
    match (wanted.interval, now.interval) {
        (Some(interval), Some(now)) if interval != now => tools.host.set_interval(gpu, interval).map_err(failed),
        // A GPU without an interval has the default one.
        (Some(_) | None, _) => Ok(()),
    }
}

/// Sets the compute mode again if it was changed outside this driver.
fn correct_compute_mode(gpu: &GpuUuid, wanted: GpuSettings, tools: &Tools<'_>) -> Result<bool, EffectError> {
    let failed = |source| EffectError::Settings { gpu: gpu.clone(), source: Box::new(source) };
    let Some(mode) = wanted.compute_mode else { return Ok(false) };
    let now = tools.host.compute_mode(gpu).map_err(failed)?;
    if now == Some(mode) {
        return Ok(false);
    }
    let found = now.map_or_else(|| "none".to_owned(), |now: ComputeMode| now.to_string());
    warn!(%gpu, found, wanted = %mode, "compute mode was changed outside this driver and is set again");
    tools.counters.count(RestoreOutcome::SettingCorrected(Setting::ComputeMode));
    tools.host.set_compute_mode(gpu, mode).map_err(failed)?;
    Ok(true)
}

/// Records the original value of settings that are changed for the first time.
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
