// SPDX-License-Identifier: Apache-2.0
//! The states of the MPS daemons as this process observes them.

use std::collections::BTreeMap;

use dra_model::DaemonId;
use dra_resource::status::DaemonStatus;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct DaemonStates {
    /// The daemons of the MPS host; while it is unreachable, also those that claims use.
    pub daemons: BTreeMap<DaemonId, DaemonStatus>,
    /// Whether the MPS host is connected, so that the states are current.
    pub is_connected: bool,
    /// Connections to the MPS host so far. A host may have been restarted between two of them.
    pub connections: u64,
}
