// SPDX-License-Identifier: Apache-2.0
//! The work on one claim: the engine on a blocking thread, measured, logged and reported.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use dra_hardware::Deadline;
use dra_model::explain;
use dra_model::{ClaimRef, ClaimUid, Disposition};
use dra_prepare::{Engine, PrepareError};
use parking_lot::Mutex;
use tokio::task::{spawn_blocking, yield_now};
use tracing::{info, warn};

use crate::event_text;
use crate::fetch::{Abandoned, ClaimSource};
use crate::metrics::{Metrics, Operation, Outcome};
use crate::mps_warning;
use crate::prepared_claim::PreparedClaim;
use crate::report::Report;
use crate::report_channel::{InFlight, ReportSender};

/// More than a node has pods. Claims that are undone without a call of the kubelet stay remembered until then.
const MAX_REMEMBERED: usize = 1000;

/// Prepares and unprepares claims; cheap to clone.
#[derive(Debug, Clone)]
pub struct Claims {
    engine: Arc<Engine>,
    source: ClaimSource,
    reports: ReportSender,
    metrics: Metrics,
    /// The claims that this process prepared: a repeated call for one of them needs no request to the API server.
    prepared: Arc<Mutex<BTreeSet<ClaimUid>>>,
}

impl Claims {
    pub fn new(engine: Arc<Engine>, source: ClaimSource, reports: ReportSender, metrics: Metrics) -> Self {
        Self { engine, source, reports, metrics, prepared: Arc::default() }
    }

    /// The error is the text that the kubelet writes into an Event on the pod.
    pub async fn prepare(
        &self,
        claim: ClaimRef,
        abandoned: Abandoned,
        deadline: Deadline,
    ) -> Result<PreparedClaim, String> {
        let timer = self.begin(Operation::Prepare);
        let (engine, source, asked) = (Arc::clone(&self.engine), self.source.clone(), claim.clone());
        let is_known = self.prepared.lock().contains(&claim.uid);
        let early = (!is_known).then(|| self.source.request_early(&claim, &deadline));
        // On a runtime of one thread the request is sent before the threads of this claim and others compete with it for the
        // processor.
        yield_now().await;
        let work = move || {
            let early = Cell::new(early);
            // Only a claim that is not prepared yet is read.
            let (is_new, configured) = (Cell::new(false), Cell::new(None));
            let read = || {
                is_new.set(true);
                let claim = source.read(&asked, early.take(), &abandoned, &deadline)?;
                configured.set((!claim.configs.is_empty()).then(|| claim.clone()));
                Ok(claim)
            };
            let look_up = |other: &ClaimRef| source.look_up(other, &deadline);
            (engine.prepare_until(&asked, &read, &look_up, &deadline), is_new.get(), configured.into_inner())
        };
        let (prepared, is_new, configured) = spawn_blocking(work).await.map_err(panicked)?;
        self.report_mig_changes();
        match prepared {
            Ok(devices) => {
                let took = timer.end(Outcome::Success);
                let names: Vec<&str> = devices.iter().map(|device| device.device.as_str()).collect();
                info!(%claim, claim_uid = %claim.uid, devices = names.join(","), took_ms = took.as_millis(), "claim prepared");
                self.remember(&claim.uid);
                let prepared = PreparedClaim { claim: claim.clone(), devices: devices.clone() };
                let ignored = configured.map(|configured| dra_prepare::ignored(&configured, &devices));
                if let Some(text) = ignored.and_then(|ignored| event_text::config_ignored(&ignored)) {
                    self.reports.send(Report::ConfigIgnored { claim: claim.clone(), text });
                }
                self.reports.send(Report::Prepared { claim, devices, is_new });
                Ok(prepared)
            }
            Err(error) => Err(self.prepare_failed(claim, &error, timer)),
        }
    }

    fn remember(&self, uid: &ClaimUid) {
        let mut prepared = self.prepared.lock();
        if prepared.len() >= MAX_REMEMBERED {
            prepared.clear();
        }
        prepared.insert(uid.clone());
    }

    fn prepare_failed(&self, claim: ClaimRef, error: &PrepareError, timer: Timer) -> String {
        let disposition = error.cause.disposition();
        let took = timer.end(outcome(disposition));
        let (error, unnamed_holder) = (explain(error), error.unnamed_holder());
        let (took_ms, holder) = (took.as_millis(), unnamed_holder.as_deref());
        warn!(%claim, claim_uid = %claim.uid, error, holder, took_ms, "claim not prepared");
        self.reports.send(Report::Failed { claim, error: error.clone(), disposition, unnamed_holder });
        error
    }

    /// Warns about claims of a pod that a container cannot use together. One call of the kubelet has the claims of a pod, except
    /// those that are prepared for another pod.
    pub fn report_pod(&self, claims: &[PreparedClaim]) {
        if let Some((claim, text)) = mps_warning::of_pod(claims) {
            self.reports.send(Report::Pod { claim, text });
        }
    }

    /// Needs neither the API server nor the NVIDIA driver.
    pub async fn unprepare(&self, claim: ClaimRef, deadline: Deadline) -> Result<(), String> {
        let timer = self.begin(Operation::Unprepare);
        let (engine, asked) = (Arc::clone(&self.engine), claim.clone());
        self.prepared.lock().remove(&claim.uid);
        let unprepared = spawn_blocking(move || engine.unprepare_until(&asked, &deadline)).await.map_err(panicked)?;
        self.report_mig_changes();
        match unprepared {
            Ok(()) => {
                let took = timer.end(Outcome::Success);
                info!(%claim, claim_uid = %claim.uid, took_ms = took.as_millis(), "claim unprepared");
                self.reports.send(Report::Unprepared { claim });
                Ok(())
            }
            Err(error) => {
                let took = timer.end(outcome(error.cause.disposition()));
                let text = explain(&error);
                warn!(%claim, claim_uid = %claim.uid, error = text, took_ms = took.as_millis(), "claim not unprepared");
                Err(text)
            }
        }
    }

    fn report_mig_changes(&self) {
        self.reports.send_mig_changes(self.engine.take_mig_changes());
    }

    fn begin(&self, operation: Operation) -> Timer {
        self.metrics.begin(operation);
        let (metrics, call) = (self.metrics.clone(), self.reports.start_call());
        Timer { metrics, operation, started: Instant::now(), outcome: Outcome::Transient, _call: call }
    }
}

/// Records an operation when it ends, also after a panic.
struct Timer {
    metrics: Metrics,
    operation: Operation,
    started: Instant,
    outcome: Outcome,
    _call: InFlight,
}

impl Timer {
    fn end(mut self, outcome: Outcome) -> std::time::Duration {
        self.outcome = outcome;
        self.started.elapsed()
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.metrics.end(self.operation, self.outcome, self.started.elapsed());
    }
}

fn outcome(disposition: Disposition) -> Outcome {
    match disposition {
        Disposition::Permanent => Outcome::Permanent,
        Disposition::Busy => Outcome::Busy,
        Disposition::Transient => Outcome::Transient,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape map_err wants")]
fn panicked(error: tokio::task::JoinError) -> String {
    format!("a bug in the driver stopped the work on this claim; report it with the log of this time: {error}")
}
