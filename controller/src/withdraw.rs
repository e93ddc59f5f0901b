// SPDX-License-Identifier: Apache-2.0
//! Deletes what was published, for when the driver is uninstalled.
//!
//! A controller that is still ending may put a slice back, so the work is done when nothing reappeared for a while.

use std::time::Duration;

use dra_model::chain;
use kube::api::DeleteParams;
use tracing::{info, warn};

use crate::cluster::{Cluster, RequestError};
use crate::repeated_failures::RepeatedFailures;

/// How long to look and how long to go on.
#[derive(Debug, Clone, Copy)]
pub struct WithdrawTiming {
    /// Nothing may reappear for this long.
    pub quiet_period: Duration,
    /// How often to look.
    pub poll_interval: Duration,
    /// When to give up.
    pub timeout: Duration,
}

impl Default for WithdrawTiming {
    fn default() -> Self {
        Self {
            quiet_period: Duration::from_secs(5),
            poll_interval: Duration::from_millis(500),
            timeout: Duration::from_mins(2),
        }
    }
}

/// Why slices are left.
#[derive(Debug, thiserror::Error)]
pub enum WithdrawError {
    /// They came back again and again.
    #[error("slices keep reappearing: uninstall the DaemonSet first, a controller still runs")]
    Reappearing,
    /// The API server could not be asked until the time was over.
    #[error("failed to delete the slices of this driver")]
    Request(#[source] RequestError),
}

/// Deletes the slices until they stay away, and counts them.
pub async fn withdraw(cluster: &Cluster, timing: WithdrawTiming) -> Result<usize, WithdrawError> {
    let begin = tokio::time::Instant::now();
    let mut quiet_since = begin;
    let mut deleted = 0;
    let mut failures = RepeatedFailures::default();
    loop {
        let round = delete_all(cluster).await;
        let now = tokio::time::Instant::now();
        match round {
            Ok(0) if now.duration_since(quiet_since) >= timing.quiet_period => return Ok(deleted),
            Ok(0) => {}
            Ok(count) => {
                deleted += count;
                quiet_since = now;
                if now.duration_since(begin) > timing.timeout {
                    return Err(WithdrawError::Reappearing);
                }
            }
            Err(error) if error.is_final() || now.duration_since(begin) > timing.timeout => {
                return Err(WithdrawError::Request(error));
            }
            Err(error) => {
                let error = chain(&error).to_string();
                if failures.should_log(&error) {
                    warn!(error, "unable to delete slices (will retry)");
                }
                quiet_since = now;
            }
        }
        tokio::time::sleep(timing.poll_interval).await;
    }
}

async fn delete_all(cluster: &Cluster) -> Result<usize, RequestError> {
    let slices = cluster.slices().await?;
    for slice in &slices {
        let name = slice.metadata.name.as_deref().unwrap_or_default();
        cluster.delete(name, &DeleteParams::default()).await?;
        info!(slice = name, "deleted a slice");
    }
    Ok(slices.len())
}
