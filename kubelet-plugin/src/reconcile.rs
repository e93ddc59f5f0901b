// SPDX-License-Identifier: Apache-2.0
//! At start and then from time to time: repairs what is missing and collects what nobody owns any more.
//!
//! A round that fails, even by a panic, ends no later one and not the process: it is logged and counted, and when no round
//! was completed for long the readiness says so.

use std::sync::Arc;
use std::time::Duration;

use dra_hardware::Deadline;
use dra_model::GpuUuid;
use dra_model::chain;
use dra_prepare::{Drift, Engine, Reconciliation, Restoration};
use dra_runtime::tasks::TaskError;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::fetch::ClaimSource;
use crate::metrics::{Metrics, Rounds};
use crate::note;
use crate::report::{Report, ReportSender};

/// Between two rounds. A round costs one GET per record, so that claims whose end the kubelet never told are found.
pub const PERIOD: Duration = Duration::from_mins(5);

/// How long the API server is asked in a round. What is not answered by then is not known until the next one: with a server
/// that hangs, a round over many claims must come to its end all the same.
const ASKING: Duration = Duration::from_mins(1);

/// After a round that left missing claims to the kubelet: when they have been left to it long enough.
const AFTER_MISSING: Duration = Duration::from_secs(40);

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
    /// Woken when a GPU that could not be read can be read again.
    pub returned: Arc<Notify>,
    /// When the last round was completed.
    pub completed: watch::Sender<Instant>,
    /// What was told already.
    pub drifted: Vec<Drift>,
}

impl Reconciler {
    /// Runs until `stop` is cancelled; a round that has begun is ended.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), TaskError> {
        let mut next = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.returned.notified() => self.restore().await,
                () = sleep_until(next) => next = Instant::now() + self.round().await,
            }
        }
    }

    /// One round; says how long after it the next one comes.
    async fn round(&mut self) -> Duration {
        let (engine, source) = (Arc::clone(&self.engine), self.source.clone());
        let asking = Deadline::after(ASKING);
        let report = match spawn_blocking(move || engine.reconcile(&|claim| source.life(claim, &asking))).await {
            Ok(report) => report,
            Err(error) => {
                error!(%error, "the reconciliation failed, please report it with the log of this moment; will retry");
                self.metrics.reconciled(Rounds::Failed);
                return PERIOD;
            }
        };
        self.in_order.notify_one();
        self.metrics.quarantined(report.quarantined.len());
        self.metrics.reconciled(if report.problems.is_empty() { Rounds::Clean } else { Rounds::WithProblems });
        if report.is_complete() {
            self.completed.send_replace(Instant::now());
        }
        log(&report);
        for claim in &report.undone {
            self.reports.send(Report::Unprepared { claim: claim.clone() });
        }
        for drift in report.drifted.iter().filter(|drift| !self.drifted.contains(drift)) {
            self.tell_drift(drift);
        }
        self.drifted = report.drifted;
        if report.missing.is_empty() { PERIOD } else { AFTER_MISSING }
    }

    /// Gives GPUs their settings back that were lost when their last claim left.
    async fn restore(&self) {
        let engine = Arc::clone(&self.engine);
        match spawn_blocking(move || engine.restore_unused()).await {
            Ok(Restoration { restored, problems, .. }) => {
                log_restored(&restored);
                for problem in &problems {
                    error!(error = %chain(problem), "not given back, will retry");
                }
            }
            Err(error) => error!(%error, "giving back settings failed, please report it; will retry"),
        }
    }

    fn tell_drift(&self, drift: &Drift) {
        let Drift { gpu, setting, wanted, found, claims } = drift;
        let text = note::drift(drift);
        warn!(%gpu, %setting, wanted, found, claims = claims.len(), "somebody changed a setting that claims rely on");
        for claim in claims {
            let (claim, gpu, text) = (claim.clone(), gpu.clone(), text.clone());
            self.reports.send(Report::Drift { claim, gpu, setting: *setting, text });
        }
    }
}

fn log(report: &Reconciliation) {
    for claim in &report.repaired {
        info!(%claim, "claim repaired");
    }
    for claim in &report.missing {
        info!(%claim, "claim was deleted or deallocated and is still prepared: undone soon, unless the kubelet unprepares it");
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
    log_restored(&report.restored);
    for bad in &report.quarantined {
        warn!(path = %bad.path.display(), reason = bad.reason, "claim record that cannot be read");
    }
    for problem in &report.problems {
        error!(error = %chain(problem), "not reconciled, will retry");
    }
}

fn log_restored(gpus: &[GpuUuid]) {
    for gpu in gpus {
        info!(%gpu, "GPU is as it was found again");
    }
}
