// SPDX-License-Identifier: Apache-2.0
//! Updates the metrics of prepared shares, restored settings and pending restores after calls of the kubelet and after
//! reconciliations, and then returns the memory that these calls freed.

use std::sync::Arc;
use std::time::Duration;

use dra_model::explain;
use dra_prepare::Engine;
use dra_runtime::heap;
use dra_runtime::tasks::TaskError;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::metrics::Metrics;

/// The delay after a call of the kubelet, so that the calls of a burst cause one update.
const UPDATE_DELAY: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub struct PreparedSharesTask {
    pub engine: Arc<Engine>,
    /// The number of calls of the kubelet in flight.
    pub calls: watch::Receiver<usize>,
    /// Notified after each reconciliation, which releases shares without a call.
    pub reconciled: Arc<Notify>,
    pub metrics: Metrics,
}

impl PreparedSharesTask {
    /// Runs until `stop` is cancelled. The first update is at the start.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), TaskError> {
        loop {
            self.calls.mark_unchanged();
            self.update().await?;
            if *self.calls.borrow() == 0 {
                heap::release_freed();
            }
            let called = async {
                let changed = self.calls.changed().await;
                sleep(UPDATE_DELAY).await;
                changed
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                called = called => called?,
                () = self.reconciled.notified() => {}
            }
        }
    }

    async fn update(&self) -> Result<(), TaskError> {
        let engine = Arc::clone(&self.engine);
        let read = move || (engine.prepared_shares(), engine.pending_restores(), engine.restore_outcomes());
        let (shares, pending, outcomes) = spawn_blocking(read).await?;
        match shares {
            Ok(shares) => self.metrics.prepared_shares(&shares),
            Err(error) => warn!(error = explain(&error), "failed to update the metrics of prepared shares"),
        }
        match pending {
            Ok(gpus) => self.metrics.pending_restores(gpus.len()),
            Err(error) => warn!(error = explain(&error), "failed to update the metric of pending restores"),
        }
        self.metrics.restore_outcomes(&outcomes);
        Ok(())
    }
}
