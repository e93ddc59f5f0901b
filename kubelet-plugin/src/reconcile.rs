// SPDX-License-Identifier: Apache-2.0
//! At start and then from time to time: repairs what is missing and collects what nobody owns any more.

use std::sync::Arc;
use std::time::Duration;

use dra_prepare::{Drift, Engine};
use dra_runtime::chain;
use dra_runtime::tasks::TaskError;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::fetch::ClaimSource;
use crate::metrics::Metrics;
use crate::note;
use crate::report::{Report, ReportSender};

/// Between two rounds. A round costs one GET per record, so that claims whose end the kubelet never told are found.
const PERIOD: Duration = Duration::from_mins(5);

/// Runs the rounds.
#[derive(Debug)]
pub struct Reconciler {
    /// Does the work.
    pub engine: Arc<Engine>,
    /// Knows which claims still exist.
    pub source: ClaimSource,
    /// Tells claims.
    pub reports: ReportSender,
    /// Shows what is on disk.
    pub metrics: Metrics,
    /// Woken after each round.
    pub in_order: Arc<Notify>,
    /// What was told already.
    pub drifted: Vec<Drift>,
}

impl Reconciler {
    /// Runs until `stop` is cancelled; a round that has begun is ended.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), TaskError> {
        let mut rounds = interval(PERIOD);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = rounds.tick() => self.round().await?,
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    async fn round(&mut self) -> Result<(), TaskError> {
        let (engine, source) = (Arc::clone(&self.engine), self.source.clone());
        let report = spawn_blocking(move || engine.reconcile(&|claim| source.life(claim))).await?;
        self.in_order.notify_one();
        self.metrics.quarantined(report.quarantined.len());
        for claim in &report.repaired {
            info!(%claim, "claim repaired");
        }
        for claim in &report.undone {
            info!(%claim, "claim undone: no pod of this node can use it any more");
        }
        for path in &report.removed {
            info!(path = %path.display(), "unused CDI spec removed");
        }
        for path in &report.foreign {
            warn!(path = %path.display(), "file that is not of this driver left alone");
        }
        for gpu in &report.restored {
            info!(%gpu, "GPU is as it was found again");
        }
        for drift in report.drifted.iter().filter(|drift| !self.drifted.contains(drift)) {
            self.tell_drift(drift);
        }
        self.drifted = report.drifted;
        for bad in &report.quarantined {
            warn!(path = %bad.path.display(), reason = bad.reason, "claim record that cannot be read");
        }
        for problem in &report.problems {
            error!(error = %chain(problem), "not reconciled, will retry");
        }
        Ok(())
    }

    fn tell_drift(&self, drift: &Drift) {
        let Drift { gpu, setting, wanted, found, claims } = drift;
        let text = note::drift(drift);
        warn!(%gpu, %setting, wanted, found, claims = claims.len(), "somebody changed a setting that claims rely on");
        for claim in claims {
            self.reports.send(Report::Drift { claim: claim.clone(), text: text.clone() });
        }
    }
}
