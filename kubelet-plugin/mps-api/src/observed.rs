// SPDX-License-Identifier: Apache-2.0
//! The daemons of a node as the MPS host sees them.

use std::collections::BTreeMap;

use dra_hardware::{Daemon, DaemonSpec};
use dra_model::DaemonId;

/// A daemon as it is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedDaemon {
    /// What it should be.
    pub spec: DaemonSpec,
    /// What it is.
    pub daemon: Daemon,
    /// What people should know beyond its state.
    pub message: String,
    /// How often it was started again.
    pub restarts: u32,
}

/// All daemons.
pub type ObservedDaemons = BTreeMap<DaemonId, ObservedDaemon>;
