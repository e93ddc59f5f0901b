// SPDX-License-Identifier: Apache-2.0
//! SIGTERM and SIGINT as a token that is cancelled.
//!
//! The first process of a container ignores signals that it does not catch, so a process that waits for something before
//! it catches them ends only when it is killed.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// The operating system gave no signal handler.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen for signals")]
pub struct SignalsError(#[source] io::Error);

/// Cancels `stop` when SIGTERM or SIGINT comes. Called inside a runtime, before anything that may wait; from then on these
/// signals end the process through `stop` alone.
pub fn stop_on_signals(stop: CancellationToken) -> Result<(), SignalsError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(SignalsError)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(SignalsError)?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => info!("stopping on SIGTERM"),
            _ = interrupt.recv() => info!("stopping on SIGINT"),
        }
        stop.cancel();
    });
    Ok(())
}
