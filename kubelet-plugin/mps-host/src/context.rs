// SPDX-License-Identifier: Apache-2.0
//! What the supervisors of all daemons share.

use std::path::PathBuf;
use std::time::Duration;

use dra_model::Bytes;

use tokio_util::sync::CancellationToken;

use crate::daemon_states::DaemonStates;
use crate::gpu_faults::GpuFaults;
use crate::metrics::Metrics;

#[derive(Debug)]
pub struct Context {
    /// Directory of all daemon directories.
    pub root: PathBuf,
    pub driver_root: PathBuf,
    pub shm_bytes: Bytes,
    /// Time that claims wait for the clients of an exited daemon.
    pub clients_timeout: Duration,
    pub boot_id: String,
    /// Cancelled when this process stops: from then on no daemon is started or stopped for a caller.
    pub stop: CancellationToken,
    pub states: DaemonStates,
    /// Because of which daemons must not run.
    pub gpu_faults: GpuFaults,
    pub metrics: Metrics,
}
