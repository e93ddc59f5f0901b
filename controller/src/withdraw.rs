// SPDX-License-Identifier: Apache-2.0
//! Deletes the slices of the driver when it is uninstalled.
//!
//! A controller that is still terminating may create a slice again, so the work is complete when no slice was created for a while.

use std::borrow::Cow;
use std::time::Duration;

use dra_model::{Advice, chain};
use kube::api::DeleteParams;
use tracing::{info, warn};

use crate::cluster::{Cluster, RequestError};
use crate::repeated_failures::RepeatedFailures;

#[derive(Debug, Clone, Copy)]
pub struct WithdrawTiming {
    /// The work is complete when no slice was created for this time.
    pub quiet_period: Duration,
    pub poll_interval: Duration,
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

/// Slices remain.
#[derive(Debug, thiserror::Error)]
pub enum WithdrawError {
    #[error("ResourceSlices are created again after each deletion")]
    Reappearing,
    #[error("failed to delete the ResourceSlices of this driver")]
    Request(#[source] RequestError),
}

impl Advice for WithdrawError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Reappearing => Some("uninstall the DaemonSet first, because a controller still runs".into()),
            Self::Request(_) => None,
        }
    }
}

/// Deletes the slices until none is created again, and returns the number of deleted slices.
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
                    warn!(error, "failed to delete slices; retrying");
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
