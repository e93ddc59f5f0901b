// SPDX-License-Identifier: Apache-2.0
//! The work on one claim: the engine on a blocking thread, measured, logged and reported.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use dra_hardware::Deadline;
use dra_model::chain;
use dra_model::{ClaimRef, Disposition};
use dra_prepare::{Engine, PrepareError, PreparedDevice};
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use crate::fetch::{Abandoned, ClaimSource};
use crate::metrics::{Metrics, Operation, Outcome};
use crate::note;
use crate::report::{Report, ReportSender, Working};

/// A claim that can be used.
#[derive(Debug)]
pub struct Prepared {
    /// Which claim.
    pub claim: ClaimRef,
    /// Its devices.
    pub devices: Vec<PreparedDevice>,
}

/// Everything a claim meets in this process; cheap to clone.
#[derive(Debug, Clone)]
pub struct Claims {
    engine: Arc<Engine>,
    source: ClaimSource,
    reports: ReportSender,
    metrics: Metrics,
}

impl Claims {
    /// Claims of this node.
    pub fn new(engine: Arc<Engine>, source: ClaimSource, reports: ReportSender, metrics: Metrics) -> Self {
        Self { engine, source, reports, metrics }
    }

    /// Prepares one claim; the error is the sentence users read in the pod's event.
    pub async fn prepare(&self, claim: ClaimRef, abandoned: Abandoned, deadline: Deadline) -> Result<Prepared, String> {
        let timer = self.begin(Operation::Prepare);
        let (engine, source, asked) = (Arc::clone(&self.engine), self.source.clone(), claim.clone());
        let work = move || {
            // Only a claim that is not prepared yet is read.
            let (is_new, configured) = (Cell::new(false), Cell::new(None));
            let read = || {
                is_new.set(true);
                let claim = source.read(&asked, &abandoned, &deadline)?;
                configured.set((!claim.configs.is_empty()).then(|| claim.clone()));
                Ok(claim)
            };
            let life = |other: &ClaimRef| source.life(other, &deadline);
            (engine.prepare_until(&asked, &read, &life, &deadline), is_new.get(), configured.into_inner())
        };
        let (prepared, is_new, configured) = spawn_blocking(work).await.map_err(panicked)?;
        match prepared {
            Ok(devices) => {
                let took = timer.end(Outcome::Success);
                let names: Vec<&str> = devices.iter().map(|device| device.device.as_str()).collect();
                info!(%claim, claim_uid = %claim.uid, devices = names.join(","), took_ms = took.as_millis(), "claim prepared");
                let prepared = Prepared { claim: claim.clone(), devices: devices.clone() };
                let ignored = configured.map(|configured| dra_prepare::ignored(&configured, &devices));
                if let Some(text) = ignored.and_then(|ignored| note::ignored(&ignored)) {
                    self.reports.send(Report::ConfigIgnored { claim: claim.clone(), text });
                }
                self.reports.send(Report::Prepared { claim, devices, is_new });
                Ok(prepared)
            }
            Err(error) => Err(self.prepare_failed(claim, &error, timer)),
        }
    }

    fn prepare_failed(&self, claim: ClaimRef, error: &PrepareError, timer: Timer) -> String {
        let disposition = error.cause.disposition();
        let took = timer.end(outcome(disposition));
        let (text, unnamed_holder) = (chain(error).to_string(), error.unnamed_holder());
        let (took_ms, holder) = (took.as_millis(), unnamed_holder.as_deref());
        warn!(%claim, claim_uid = %claim.uid, error = text, holder, took_ms, "claim not prepared");
        self.reports.send(Report::Failed { claim, text: text.clone(), disposition, unnamed_holder });
        text
    }

    /// Tells what the users of a pod should know of its claims, which the kubelet asks for in one call, those excepted that
    /// are prepared already for another pod.
    pub fn report_pod(&self, claims: &[Prepared]) {
        if let Some((claim, reason, text)) = note::of_pod(claims) {
            self.reports.send(Report::Pod { claim, reason, text });
        }
    }

    /// Unprepares one claim; needs neither the API server nor a driver.
    pub async fn unprepare(&self, claim: ClaimRef, deadline: Deadline) -> Result<(), String> {
        let timer = self.begin(Operation::Unprepare);
        let (engine, asked) = (Arc::clone(&self.engine), claim.clone());
        match spawn_blocking(move || engine.unprepare_until(&asked, &deadline)).await.map_err(panicked)? {
            Ok(()) => {
                let took = timer.end(Outcome::Success);
                info!(%claim, claim_uid = %claim.uid, took_ms = took.as_millis(), "claim unprepared");
                self.reports.send(Report::Unprepared { claim });
                Ok(())
            }
            Err(error) => {
                let took = timer.end(outcome(error.cause.disposition()));
                let text = chain(&error).to_string();
                warn!(%claim, claim_uid = %claim.uid, error = text, took_ms = took.as_millis(), "claim not unprepared");
                Err(text)
            }
        }
    }

    fn begin(&self, operation: Operation) -> Timer {
        self.metrics.begin(operation);
        let (metrics, working) = (self.metrics.clone(), self.reports.working());
        Timer { metrics, operation, started: Instant::now(), outcome: Outcome::Transient, _working: working }
    }
}

/// Counts an operation when it ends, also when it panics.
struct Timer {
    metrics: Metrics,
    operation: Operation,
    started: Instant,
    outcome: Outcome,
    _working: Working,
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
    format!("the driver failed on this claim, please report it with the log of this moment: {error}")
}
