// SPDX-License-Identifier: Apache-2.0
//! Reports from an inventory file, for nodes without a plugin. The last valid inventory remains in use while the file cannot be
//! read or parsed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dra_model::Inventory;
use dra_model::chain;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::node_report::{NodeReport, send_if_changed};

/// Interval of checks for a changed file.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The inventory file is unusable.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("failed to read inventory file {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to parse inventory file {}", path.display())]
    Parse {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

/// Reads an inventory file.
pub async fn read(path: &Path) -> Result<Inventory, FileError> {
    let bytes = tokio::fs::read(path).await.map_err(|source| FileError::Read { path: path.to_owned(), source })?;
    serde_json::from_slice(&bytes).map_err(|source| FileError::Parse { path: path.to_owned(), source })
}

/// Reads the file after each change until `stop`.
pub async fn follow(path: PathBuf, report: watch::Sender<NodeReport>, stop: CancellationToken) {
    let mut seen = None;
    loop {
        let latest = stamp(&path).await;
        if seen.as_ref() != Some(&latest) {
            match read(&path).await {
                Ok(inventory) => {
                    info!(path = %path.display(), gpus = inventory.gpus.len(), "read the inventory file");
                    let inventory = Some(Arc::new(inventory));
                    send_if_changed(&report, NodeReport::Received { registered: true, registrations: 1, inventory });
                }
                Err(error) => warn!(error = %chain(&error), "using the last valid inventory"),
            }
            seen = Some(latest);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(POLL_INTERVAL) => {}
        }
    }
}

/// Modification time and size; absent if the file is.
async fn stamp(path: &Path) -> Option<(Option<SystemTime>, u64)> {
    let metadata = tokio::fs::metadata(path).await.ok()?;
    Some((metadata.modified().ok(), metadata.len()))
}
