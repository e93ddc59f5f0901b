// SPDX-License-Identifier: Apache-2.0
//! What a ledger holds.

use std::collections::{BTreeMap, BTreeSet};

use dra_model::{DaemonId, GpuSettings, GpuUuid, MigIdentity, MigUuid};

use crate::record::Unknown;

/// The ledger of one GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuLedger {
    pub gpu: GpuUuid,
    /// The boot in which the ledger was written; settings and daemons do not outlive a boot.
    pub boot_id: String,
    /// The original settings, restored when the last claim that needs others is unprepared.
    pub found: GpuSettings,
    /// The settings that claims need.
    pub in_force: GpuSettings,
    /// Whether this driver turned MIG mode on. It is turned off when the last MIG device is gone.
    pub mig_mode_on: bool,
    /// MIG devices of claims that are gone, which could not be destroyed, with their UUIDs as far as they are known.
    pub partitions: BTreeMap<MigIdentity, Option<MigUuid>>,
    /// Daemons that were started and may still run.
    pub daemons: BTreeSet<DaemonId>,
    /// Fields of newer versions.
    pub unknown: Unknown,
}
