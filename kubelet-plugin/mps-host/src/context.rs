// SPDX-License-Identifier: Apache-2.0
//! What the supervisors of all daemons share.

use std::path::PathBuf;
use std::time::Duration;

use dra_model::Bytes;

use tokio_util::sync::CancellationToken;

use crate::daemon_states::DaemonStates;
use crate::metrics::Metrics;

/// What all supervisors share.
#[derive(Debug)]
pub struct Context {
    /// Directory of the places.
    pub root: PathBuf,
    /// Driver root.
    pub driver_root: PathBuf,
    /// Size of the shared memory of each daemon.
    pub shm_bytes: Bytes,
    /// How long claims wait for the end of the clients of a daemon that exited_unexpectedly.
    pub clients_timeout: Duration,
    /// This boot.
    pub boot_id: String,
    /// Cancelled when this process stops: from then on no daemon is started or stopped for a caller.
    pub stop: CancellationToken,
    /// Where daemons are shown.
    pub states: DaemonStates,
    /// What is counted.
    pub metrics: Metrics,
}
