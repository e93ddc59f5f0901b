// SPDX-License-Identifier: Apache-2.0
//! What is owed to a GPU in this boot, as the steps see it: a ledger of an earlier boot is gone, and a damaged one stands
//! for the worst that it may have said.

use std::collections::BTreeSet;

use dra_checkpoint::{DamagedLedger, GpuLedger, LedgerFound, Unknown};
use dra_model::{ComputeMode, DaemonId, GpuSettings, GpuUuid, Interval};
use tracing::warn;

use super::{StepError, Tools};

/// What a GPU has after a reboot, which is the best guess where nobody knows any more what was found.
const AFTER_BOOT: GpuSettings =
    GpuSettings { compute_mode: Some(ComputeMode::Default), interval: Some(Interval::Default) };

/// The ledger of a GPU, if anything is owed to it.
pub(crate) fn load(gpu: &GpuUuid, tools: &Tools<'_>) -> Result<Option<GpuLedger>, StepError> {
    let found = tools.ledgers.load(gpu).map_err(|source| failed(gpu, source))?;
    match found {
        LedgerFound::Nothing => Ok(None),
        LedgerFound::Ledger(ledger) if tools.users.boot_id.is_none_or(|boot_id| ledger.boot_id == boot_id) => {
            Ok(Some(*ledger))
        }
        // Settings and daemons did not outlive that boot.
        LedgerFound::Ledger(_) => {
            tools.ledgers.remove(gpu).map_err(|source| failed(gpu, source))?;
            Ok(None)
        }
        LedgerFound::Newer(DamagedLedger { gpu, path, reason }) => Err(StepError::Newer { gpu, path, reason }),
        LedgerFound::Damaged(damaged) => {
            let path = damaged.path.display();
            warn!(%gpu, %path, reason = damaged.reason, "what the GPU had before its claims is not known any more");
            Ok(Some(GpuLedger { found: AFTER_BOOT, daemons: [DaemonId::of_gpu(gpu)].into(), ..new(gpu, tools) }))
        }
    }
}

/// That of a GPU to which nothing is owed yet.
pub(super) fn new(gpu: &GpuUuid, tools: &Tools<'_>) -> GpuLedger {
    GpuLedger {
        gpu: gpu.clone(),
        boot_id: tools.users.boot_id.unwrap_or_default().to_owned(),
        found: GpuSettings::default(),
        in_force: GpuSettings::default(),
        daemons: BTreeSet::new(),
        unknown: Unknown::new(),
    }
}

/// Writes a ledger before the effect that it is about.
pub(super) fn put(ledger: &GpuLedger, tools: &Tools<'_>) -> Result<(), StepError> {
    tools.ledgers.put(ledger).map_err(|source| failed(&ledger.gpu, source))
}

/// Writes a ledger after something was given back, or forgets it when nothing is owed any more.
pub(super) fn keep(ledger: &GpuLedger, tools: &Tools<'_>) -> Result<(), StepError> {
    let nothing = GpuSettings::default();
    if ledger.found == nothing && ledger.in_force == nothing && ledger.daemons.is_empty() {
        tools.ledgers.remove(&ledger.gpu).map_err(|source| failed(&ledger.gpu, source))
    } else {
        put(ledger, tools)
    }
}

fn failed(gpu: &GpuUuid, source: dra_checkpoint::StoreError) -> StepError {
    StepError::Ledger { gpu: gpu.clone(), source }
}
