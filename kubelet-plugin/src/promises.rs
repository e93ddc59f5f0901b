// SPDX-License-Identifier: Apache-2.0
//! Shows what is promised in shares, and how often settings were given back, once the kubelet has its answers.

use std::sync::Arc;
use std::time::Duration;

use dra_model::chain;
use dra_prepare::Engine;
use dra_runtime::tasks::TaskError;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::metrics::Metrics;

/// How long calls are left to themselves, so that a burst of them is looked at once.
const CALM: Duration = Duration::from_millis(500);

/// Runs until it is stopped.
#[derive(Debug)]
pub struct Promises {
    /// Knows the records.
    pub engine: Arc<Engine>,
    /// How many calls of the kubelet are in flight.
    pub calls: watch::Receiver<usize>,
    /// After each reconciliation, which collects shares without a call.
    pub in_order: Arc<Notify>,
    /// Where it is shown.
    pub metrics: Metrics,
}

impl Promises {
    /// Shows what is on disk at the start, and again after calls and reconciliations.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), TaskError> {
        loop {
            self.calls.mark_unchanged();
            self.show().await?;
            let called = async {
                let changed = self.calls.changed().await;
                sleep(CALM).await;
                changed
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                called = called => called?,
                () = self.in_order.notified() => {}
            }
        }
    }

    async fn show(&self) -> Result<(), TaskError> {
        let engine = Arc::clone(&self.engine);
        let (promised, deeds) = spawn_blocking(move || (engine.promised(), engine.deeds())).await?;
        match promised {
            Ok(promised) => self.metrics.promised(&promised),
            Err(error) => warn!(error = %chain(&error), "what is promised in shares cannot be shown"),
        }
        self.metrics.deeds(&deeds);
        Ok(())
    }
}
