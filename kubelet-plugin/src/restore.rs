// SPDX-License-Identifier: Apache-2.0
//! `--restore`: restores the original settings of all GPUs of the node once, at the uninstallation of the driver.
//!
//! A plugin that still stops may change the settings that are restored here. So this process waits until no plugin runs, and a
//! plugin that starts waits for this process.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use dra_hardware::Machine;
use dra_model::{Advice, explain};
use dra_prepare::Restoration;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::app::{self, AppError};
use crate::args::Config;
use crate::health::store::HealthStore;
use crate::inventory_file::InventoryFile;
use crate::sockets::{SocketError, lock_exclusively};

/// A little longer than the termination grace period of the plugin's pod.
const PLUGIN_STOP_TIMEOUT: Duration = Duration::from_secs(70);

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Another process may change the GPUs.
    #[error("failed to restore GPUs while a plugin may run")]
    InUse(#[source] SocketError),
    #[error("failed to restore GPUs without the state of the plugin")]
    State(#[source] AppError),
    #[error("failed to restore {count} GPU settings or MPS daemons")]
    Incomplete { count: usize },
    /// GPUs that were restored stay so.
    #[error("stopped before all GPUs were restored")]
    Stopped,
    #[error("a bug in the driver stopped the restore")]
    Panicked(#[source] tokio::task::JoinError),
}

impl Advice for RestoreError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::InUse(source) => source.advice(),
            Self::State(source) => source.advice(),
            Self::Incomplete { .. } => Some("see the errors above; the pod retries".into()),
            Self::Stopped => Some("run --restore again".into()),
            Self::Panicked(_) => Some("report it with the log of this time".into()),
        }
    }
}

/// Restores all GPUs, also those that claims rely on, and logs both, unless `stop` is cancelled first. Creates nothing on a node
/// without state of this driver.
pub async fn run(config: &Config, machine: Arc<dyn Machine>, stop: &CancellationToken) -> Result<(), RestoreError> {
    stop.run_until_cancelled(restore(config, machine)).await.unwrap_or(Err(RestoreError::Stopped))
}

async fn restore(config: &Config, machine: Arc<dyn Machine>) -> Result<(), RestoreError> {
    let lock = lock_exclusively(&config.paths, PLUGIN_STOP_TIMEOUT).await.map_err(RestoreError::InUse)?;
    if lock.is_some() {
        InventoryFile::new(&config.paths.plugin_dir, &config.pod_uid).remove();
        HealthStore::new(&config.paths.plugin_dir, &config.pod_uid).remove();
    }
    // The last instance may have restored all GPUs.
    if lock.is_none() || !config.paths.plugin_dir.join("gpus").is_dir() {
        info!("no GPU of this node was changed");
        return Ok(());
    }
    let engine = app::open(config, machine).map_err(RestoreError::State)?;
    let Restoration { restored, claims, problems } =
        spawn_blocking(move || engine.restore_all()).await.map_err(RestoreError::Panicked)?;
    for gpu in &restored {
        info!(%gpu, "original settings of the GPU restored");
    }
    for claim in &claims {
        warn!(%claim, "containers of the claim continue with the original settings and without MPS daemons");
    }
    for problem in &problems {
        error!(error = explain(problem), "failed to restore a GPU");
    }
    info!(gpus = restored.len(), "restored");
    if problems.is_empty() { Ok(()) } else { Err(RestoreError::Incomplete { count: problems.len() }) }
}
