// SPDX-License-Identifier: Apache-2.0
//! What a supervisor is told to do, with where to answer.

use std::time::Duration;

use dra_hardware::{Daemon, DaemonError, DaemonSpec};
use tokio::sync::oneshot;

/// What a supervisor is told.
#[derive(Debug)]
pub enum Order {
    /// Let it be there.
    Start {
        /// As this.
        spec: DaemonSpec,
        /// Within this time.
        patience: Duration,
        /// Who asks.
        answer: oneshot::Sender<Result<Daemon, DaemonError>>,
    },
    /// Let it be gone.
    Stop {
        /// How long clients may go on.
        patience: Duration,
        /// Who asks.
        answer: oneshot::Sender<Result<(), DaemonError>>,
    },
}
