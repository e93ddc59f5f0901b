// SPDX-License-Identifier: Apache-2.0
//! `--restore`: gives the GPUs of the node back as they were found, once, for when the driver is uninstalled.
//!
//! A plugin that is still ending may be setting what is given back here, so its end is waited for, and none starts meanwhile.

use std::sync::Arc;
use std::time::Duration;

use dra_hardware::Machine;
use dra_model::chain;
use dra_prepare::Restoration;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::app::{self, AppError};
use crate::args::Config;
use crate::sockets::{SocketError, wait_alone};

/// How long a plugin may take to end: what the chart gives it, and a little more.
const PATIENCE: Duration = Duration::from_secs(70);

/// Something of a GPU could not be given back.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Another process may change the GPUs.
    #[error("nothing was given back")]
    InUse(#[source] SocketError),
    /// The state of the plugin.
    #[error("nothing was given back")]
    State(#[source] AppError),
    /// Some GPUs.
    #[error("{count} things were not given back, see the log (will retry)")]
    Left {
        /// How many.
        count: usize,
    },
    /// A signal came first. What was restored until then stays restored.
    #[error("stopped before all GPUs were restored; run --restore again")]
    Stopped,
    /// The work itself failed.
    #[error("giving back did not end")]
    Work(#[source] tokio::task::JoinError),
}

/// Gives back everything, whichever claims rely on it, and says what and which, unless `stop` is cancelled first. Where the
/// driver has no state, nothing is made.
pub async fn run(config: &Config, machine: Arc<dyn Machine>, stop: &CancellationToken) -> Result<(), RestoreError> {
    stop.run_until_cancelled(restore(config, machine)).await.unwrap_or(Err(RestoreError::Stopped))
}

async fn restore(config: &Config, machine: Arc<dyn Machine>) -> Result<(), RestoreError> {
    let alone = wait_alone(&config.paths, PATIENCE).await.map_err(RestoreError::InUse)?;
    // The instance that ended last may have given everything back.
    if alone.is_none() || !config.paths.plugin_dir.join("gpus").is_dir() {
        info!("no GPU of this node was changed");
        return Ok(());
    }
    let engine = app::open(config, machine).map_err(RestoreError::State)?;
    let Restoration { restored, claims, problems } =
        spawn_blocking(move || engine.restore_all()).await.map_err(RestoreError::Work)?;
    for gpu in &restored {
        info!(%gpu, "GPU is as it was found");
    }
    for claim in &claims {
        warn!(%claim, "its containers go on without what was given back");
    }
    for problem in &problems {
        error!(error = %chain(problem), "not given back");
    }
    info!(gpus = restored.len(), "restored");
    if problems.is_empty() { Ok(()) } else { Err(RestoreError::Left { count: problems.len() }) }
}
