// SPDX-License-Identifier: Apache-2.0
//! The daemons of a node as the MPS host sees them.

use std::collections::BTreeMap;

use dra_hardware::{Daemon, DaemonSpec};
use dra_model::DaemonId;

/// One daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedDaemon {
    /// The requested daemon.
    pub spec: DaemonSpec,
    pub daemon: Daemon,
    /// Message for the administrator, beyond the state. May be empty.
    pub message: String,
    /// Starts after the first one.
    pub restarts: u32,
}

/// All daemons of a node.
pub type ObservedDaemons = BTreeMap<DaemonId, ObservedDaemon>;
