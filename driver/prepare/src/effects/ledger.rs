// SPDX-License-Identifier: Apache-2.0
//! The ledger of a GPU in this boot: its original settings, those in force, and its daemons.
//!
//! A ledger of an earlier boot is removed. A damaged ledger is replaced by the settings that a GPU has after a reboot.

use std::collections::{BTreeMap, BTreeSet};

use dra_checkpoint::{DamagedLedger, GpuLedger, LedgerFound, Unknown};
use dra_model::{ComputeMode, DaemonId, GpuSettings, GpuUuid, Interval};
use tracing::warn;

use crate::effects::error::EffectError;
use crate::effects::tools::Tools;

/// The settings of a GPU after a reboot: the best guess where the original settings are lost.
const AFTER_BOOT: GpuSettings =
    GpuSettings { compute_mode: Some(ComputeMode::Default), interval: Some(Interval::Default) };

/// The ledger of a GPU, if it has one.
pub(crate) fn load(gpu: &GpuUuid, tools: &Tools<'_>) -> Result<Option<GpuLedger>, EffectError> {
    let found = tools.ledgers.load(gpu).map_err(|source| failed(gpu, source))?;
    match found {
        LedgerFound::Nothing => Ok(None),
        LedgerFound::Ledger(ledger) if tools.references.boot_id.is_none_or(|boot_id| ledger.boot_id == boot_id) => {
            Ok(Some(*ledger))
        }
        // Settings and daemons did not outlive that boot.
        LedgerFound::Ledger(_) => {
            tools.ledgers.remove(gpu).map_err(|source| failed(gpu, source))?;
            Ok(None)
        }
        LedgerFound::Newer(DamagedLedger { gpu, path, reason }) => Err(EffectError::NewerLedger { gpu, path, reason }),
        LedgerFound::Damaged(damaged) => {
            let path = damaged.path.display();
            warn!(%gpu, %path, reason = damaged.reason, "GPU state record damaged, original settings lost");
            Ok(Some(GpuLedger { found: AFTER_BOOT, daemons: [DaemonId::of_gpu(gpu)].into(), ..new(gpu, tools) }))
        }
    }
}

/// The ledger of a GPU without changes.
pub(crate) fn new(gpu: &GpuUuid, tools: &Tools<'_>) -> GpuLedger {
    GpuLedger {
        gpu: gpu.clone(),
        boot_id: tools.references.boot_id.unwrap_or_default().to_owned(),
        found: GpuSettings::default(),
        in_force: GpuSettings::default(),
        mig_mode_on: false,
        partitions: BTreeMap::new(),
        daemons: BTreeSet::new(),
        unknown: Unknown::new(),
    }
}

/// Writes a ledger before the effect.
pub(crate) fn put(ledger: &GpuLedger, tools: &Tools<'_>) -> Result<(), EffectError> {
    tools.ledgers.put(ledger).map_err(|source| failed(&ledger.gpu, source))
}

/// Writes a ledger after a restore, or removes it when no restore is pending.
pub(crate) fn put_or_remove(ledger: &GpuLedger, tools: &Tools<'_>) -> Result<(), EffectError> {
    let nothing = GpuSettings::default();
    let has_settings = ledger.found != nothing || ledger.in_force != nothing || ledger.mig_mode_on;
    if !has_settings && ledger.daemons.is_empty() && ledger.partitions.is_empty() {
        tools.ledgers.remove(&ledger.gpu).map_err(|source| failed(&ledger.gpu, source))
    } else {
        put(ledger, tools)
    }
}

fn failed(gpu: &GpuUuid, source: dra_checkpoint::StoreError) -> EffectError {
    EffectError::Ledger { gpu: gpu.clone(), source }
}
