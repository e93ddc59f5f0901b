// SPDX-License-Identifier: Apache-2.0
//! All metrics of the MPS host. Labels are bounded: never a daemon, device or UUID.

use std::time::Duration;

use dra_hardware::DaemonState;
use dra_mps_api::ObservedDaemons;
use dra_runtime::http::DURATIONS;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// How a daemon is, as a label.
const STATES: [&str; 5] = ["changing", "ready", "user_waits", "died", "lost"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

/// The metrics, cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    daemons: Family<StateLabels, Gauge>,
    starts: Family<ResultLabels, Counter>,
    start_duration: Histogram,
    deaths: Counter,
    lost: Counter,
    limits_corrected: Counter,
    server_failures: Counter,
}

impl Metrics {
    /// Declares every metric in the registry.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            daemons: Family::default(),
            starts: Family::default(),
            start_duration: Histogram::new(DURATIONS),
            deaths: Counter::default(),
            lost: Counter::default(),
            limits_corrected: Counter::default(),
            server_failures: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("gpu_dra_mps");
        registry.register("daemons", "MPS daemons that are meant to be there, by state", metrics.daemons.clone());
        registry.register("starts", "Starts of MPS daemons, by result", metrics.starts.clone());
        registry.register_with_unit(
            "start_duration",
            "Time until a started MPS daemon replied and had its limits",
            Unit::Seconds,
            metrics.start_duration.clone(),
        );
        registry.register("deaths", "MPS daemons that ended by themselves", metrics.deaths.clone());
        registry.register("lost", "MPS daemons that a restarted host did not find again", metrics.lost.clone());
        registry.register(
            "limits_restored",
            "Times that limits of an MPS daemon were changed by somebody else and set again",
            metrics.limits_corrected.clone(),
        );
        registry.register(
            "server_failures",
            "Times that a server of an MPS daemon was seen to have failed, which ends its clients",
            metrics.server_failures.clone(),
        );
        metrics.daemons(&ObservedDaemons::new());
        metrics
    }

    /// Shows how the daemons are.
    pub fn daemons(&self, shown: &ObservedDaemons) {
        for state in STATES {
            let count = shown.values().filter(|seen| label(&seen.daemon.state) == state).count();
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.daemons.get_or_create(&StateLabels { state }).set(count);
        }
    }

    /// Counts a start.
    pub fn started(&self, success: bool, took: Duration) {
        let result = if success { "success" } else { "failure" };
        self.starts.get_or_create(&ResultLabels { result }).inc();
        if success {
            self.start_duration.observe(took.as_secs_f64());
        }
    }

    /// Counts a death.
    pub fn exited_unexpectedly(&self) {
        self.deaths.inc();
    }

    /// Counts one that was not found again.
    pub fn lost(&self) {
        self.lost.inc();
    }

    /// Counts a server that failed.
    pub fn server_failed(&self) {
        self.server_failures.inc();
    }

    /// Counts limits that were set again.
    pub fn limits_corrected(&self) {
        self.limits_corrected.inc();
    }
}

fn label(state: &DaemonState) -> &'static str {
    match state {
        DaemonState::Changing => "changing",
        DaemonState::Ready => "ready",
        DaemonState::UserWaiting { .. } => "user_waits",
        DaemonState::Exited { .. } => "died",
        DaemonState::Lost => "lost",
    }
}
