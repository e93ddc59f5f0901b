// SPDX-License-Identifier: Apache-2.0
//! Reconciles claim records, CDI specs and GPUs at the start and then periodically.
//!
//! A reconciliation that fails, even by a panic, stops neither later ones nor the process: the failure is logged and counted, and
//! the process becomes unready if no reconciliation is completed for long.

use std::sync::Arc;
use std::time::Duration;

use dra_hardware::Deadline;
use dra_model::{GpuUuid, explain};
use dra_prepare::{Drift, Engine, Problem, Reconciliation, Restoration};
use dra_runtime::tasks::TaskError;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::event_text::{self, EventText};
use crate::fetch::ClaimSource;
use crate::metrics::{Metrics, ReconciliationResult};
use crate::report::Report;
use crate::report_channel::ReportSender;

/// A reconciliation reads each claim with a record from the API server, to find claims that the kubelet never unprepares.
/// Longer than the times below; the readiness of the plugin has a limit of several intervals.
pub const RECONCILIATION_INTERVAL: Duration = Duration::from_mins(5);

/// For all claims of a reconciliation together, so that it ends even if the API server hangs. The other claims are looked up by the
/// next reconciliation.
const LOOKUP_TIMEOUT: Duration = Duration::from_mins(1);

/// The delay of the next reconciliation while claims are missing that the kubelet may still unprepare.
const MISSING_CLAIMS_INTERVAL: Duration = Duration::from_secs(40);

/// No container of a running pod starts again while the hook program is missing, and the kubelet waits 10 s before its second try.
const HOOK_CHECK_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Reconciler {
    pub engine: Arc<Engine>,
    pub source: ClaimSource,
    pub reports: ReportSender,
    pub metrics: Metrics,
    /// Notified after each reconciliation.
    pub reconciled: Arc<Notify>,
    /// Notified when a GPU becomes readable.
    pub readable: Arc<Notify>,
    /// The time of the last completed reconciliation.
    pub completed: watch::Sender<Instant>,
    /// The changed settings that were reported.
    pub reported: Vec<Drift>,
    /// Why the hook of CDI specs cannot be used, as it was reported.
    pub hook_error: Option<String>,
}

impl Reconciler {
    /// Runs until `stop` is cancelled. A started reconciliation completes.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), TaskError> {
        let mut next = Instant::now();
        let mut hook_check = Instant::now() + HOOK_CHECK_INTERVAL;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.readable.notified() => self.restore().await,
                () = sleep_until(hook_check) => {
                    hook_check = Instant::now() + HOOK_CHECK_INTERVAL;
                    if self.hook_is_gone().await {
                        warn!("the hook program was removed from the host, installing it again");
                        next = Instant::now();
                    }
                }
                () = sleep_until(next) => next = Instant::now() + self.reconcile().await,
            }
        }
    }

    /// A panic counts as no: the next reconciliation reports it.
    async fn hook_is_gone(&self) -> bool {
        let engine = Arc::clone(&self.engine);
        spawn_blocking(move || engine.hook_is_gone()).await.unwrap_or_default()
    }

    /// Returns the time until the next reconciliation.
    async fn reconcile(&mut self) -> Duration {
        let (engine, source) = (Arc::clone(&self.engine), self.source.clone());
        let deadline = Deadline::after(LOOKUP_TIMEOUT);
        let work = move || {
            let report = engine.reconcile(&|claim| source.look_up(claim, &deadline));
            if let Ok(claims) = engine.claims() {
                source.consumers().retain(&claims.iter().map(|(claim, _)| &claim.uid).collect());
            }
            report
        };
        let report = match spawn_blocking(work).await {
            Ok(report) => report,
            Err(error) => {
                error!(%error, "a bug in the driver stopped the reconciliation, report it with the log of this time; will retry");
                self.metrics.reconciled(ReconciliationResult::Panicked);
                return RECONCILIATION_INTERVAL;
            }
        };
        self.reports.send_mig_changes(self.engine.take_mig_changes());
        self.reconciled.notify_one();
        self.metrics.quarantined(report.quarantined.len());
        let is_clean = report.problems.is_empty();
        let result = if is_clean { ReconciliationResult::Clean } else { ReconciliationResult::WithProblems };
        self.metrics.reconciled(result);
        if report.is_complete() {
            self.completed.send_replace(Instant::now());
        }
        log(&report);
        for claim in &report.undone {
            self.reports.send(Report::Unprepared { claim: claim.clone() });
        }
        if let Some(text) = event_text::records_lost(&report.without_record) {
            self.reports.send_about_node(text);
        }
        for drift in report.drifted.iter().filter(|drift| !self.reported.contains(drift)) {
            self.report_drift(drift);
        }
        self.report_hook(&report);
        self.reported = report.drifted;
        if report.missing.is_empty() { RECONCILIATION_INTERVAL } else { MISSING_CLAIMS_INTERVAL }
    }

    /// Restores the original settings of GPUs that were not readable when their last claim was unprepared.
    async fn restore(&self) {
        let engine = Arc::clone(&self.engine);
        match spawn_blocking(move || engine.restore_unused()).await {
            Ok(Restoration { restored, problems, .. }) => {
                log_restored(&restored);
                for problem in &problems {
                    error!(error = explain(problem), "failed to restore a GPU, will retry");
                }
            }
            Err(error) => {
                error!(%error, "a bug in the driver stopped the restore, report it with the log of this time; will retry");
            }
        }
    }

    /// Once for each reason.
    fn report_hook(&mut self, report: &Reconciliation) {
        let error = report.problems.iter().find(|problem| matches!(problem, Problem::Hook { .. })).map(explain);
        if let Some(error) = error.clone().filter(|error| self.hook_error.as_ref() != Some(error)) {
            self.reports.send_about_node(EventText::HookUnavailable { error });
        }
        self.hook_error = error;
    }

    fn report_drift(&self, drift: &Drift) {
        let Drift { gpu, setting, wanted, found, claims } = drift;
        let text = event_text::settings_changed(drift);
        warn!(%gpu, %setting, wanted, found, claims = claims.len(), "a setting that claims rely on was changed outside this driver");
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
        info!(%claim, "claim was deleted or deallocated and is still prepared; it is unprepared soon, unless the kubelet does");
    }
    for claim in &report.undone {
        info!(%claim, "claim unprepared: no pod of this node can use it any more");
    }
    for path in &report.removed {
        info!(path = %path.display(), "unused file of this driver removed");
    }
    for path in &report.foreign {
        warn!(path = %path.display(), "file of another program is not touched");
    }
    for device in &report.without_record {
        warn!(%device, "the record of the claim that had this MIG device is lost; it is not destroyed");
    }
    log_restored(&report.restored);
    for bad in &report.quarantined {
        warn!(path = %bad.path.display(), reason = bad.reason, "claim record is quarantined, its devices stay reserved");
    }
    for problem in &report.problems {
        error!(error = explain(problem), "reconciliation is incomplete, will retry");
    }
}

fn log_restored(gpus: &[GpuUuid]) {
    for gpu in gpus {
        info!(%gpu, "original settings of the GPU restored");
    }
}
