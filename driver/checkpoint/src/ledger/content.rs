// SPDX-License-Identifier: Apache-2.0
//! What a ledger holds.

use std::collections::BTreeSet;

use dra_model::{DaemonId, GpuSettings, GpuUuid};

use crate::record::Unknown;

/// What is owed to one GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuLedger {
    pub gpu: GpuUuid,
    /// The boot in which it was written; settings and daemons do not outlive a boot.
    pub boot_id: String,
    /// The settings as they were found, to be restored when the last claim that needs others has gone.
    pub found: GpuSettings,
    /// The settings that claims need.
    pub in_force: GpuSettings,
    /// Daemons that were started and may run.
    pub daemons: BTreeSet<DaemonId>,
    /// Kept for newer versions.
    pub unknown: Unknown,
}
