// SPDX-License-Identifier: Apache-2.0
//! SIGTERM and SIGINT cancel a token.
//!
//! The first process of a container ignores signals without a handler, so a process must install the handlers before it waits for
//! anything; otherwise only SIGKILL terminates it.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

#[derive(Debug, thiserror::Error)]
#[error("failed to listen for signals")]
pub struct SignalsError(#[source] io::Error);

/// Cancels `stop` on SIGTERM or SIGINT. Must be called in a runtime, before anything waits; afterwards these signals terminate the
/// process only through `stop`.
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
