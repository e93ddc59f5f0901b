// SPDX-License-Identifier: Apache-2.0
//! All metrics of the MPS host. Labels have few values: no daemon, device or UUID.

use std::time::Duration;

use dra_hardware::DaemonState;
use dra_mps_api::ObservedDaemons;
use dra_runtime::http::DURATIONS;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// Values of the label `state`.
const STATES: [&str; 6] = ["changing", "ready", "user_waiting", "exited", "lost", "gpu_failed"];

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
    exits: Counter,
    lost: Counter,
    ended: Counter,
    limit_corrections: Counter,
    server_failures: Counter,
}

impl Metrics {
    /// Declares every metric in the registry.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            daemons: Family::default(),
            starts: Family::default(),
            start_duration: Histogram::new(DURATIONS),
            exits: Counter::default(),
            lost: Counter::default(),
            ended: Counter::default(),
            limit_corrections: Counter::default(),
            server_failures: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("gpu_dra");
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Version of this program", version);
        let registry = registry.sub_registry_with_prefix("mps");
        registry.register("daemons", "Requested MPS daemons, by state", metrics.daemons.clone());
        registry.register("daemon_starts", "Starts of MPS daemons, by result", metrics.starts.clone());
        registry.register_with_unit(
            "daemon_start_duration",
            "Time from the start of an MPS daemon until it answers with its limits applied",
            Unit::Seconds,
            metrics.start_duration.clone(),
        );
        registry.register("daemon_exits", "MPS daemons that exited unexpectedly", metrics.exits.clone());
        registry.register(
            "daemons_lost",
            "MPS daemons that were not running any more when the MPS host restarted",
            metrics.lost.clone(),
        );
        registry.register(
            "daemons_ended",
            "MPS daemons that were ended because their GPU failed",
            metrics.ended.clone(),
        );
        registry.register(
            "limit_corrections",
            "Corrections of MPS daemon limits that were changed outside this driver",
            metrics.limit_corrections.clone(),
        );
        registry.register(
            "server_failures",
            "Failures of MPS servers, each of which ends the clients of the server",
            metrics.server_failures.clone(),
        );
        metrics.daemons(&ObservedDaemons::new());
        metrics
    }

    /// Sets the number of daemons in each state.
    pub fn daemons(&self, observed: &ObservedDaemons) {
        for state in STATES {
            let count = observed.values().filter(|observed| label(&observed.daemon.state) == state).count();
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.daemons.get_or_create(&StateLabels { state }).set(count);
        }
    }

    pub fn started(&self, success: bool, took: Duration) {
        let result = if success { "success" } else { "failure" };
        self.starts.get_or_create(&ResultLabels { result }).inc();
        if success {
            self.start_duration.observe(took.as_secs_f64());
        }
    }

    pub fn exited(&self) {
        self.exits.inc();
    }

    pub fn lost(&self) {
        self.lost.inc();
    }

    pub fn ended(&self) {
        self.ended.inc();
    }

    pub fn server_failed(&self) {
        self.server_failures.inc();
    }

    pub fn limits_corrected(&self) {
        self.limit_corrections.inc();
    }
}

fn label(state: &DaemonState) -> &'static str {
    match state {
        DaemonState::Changing => "changing",
        DaemonState::Ready => "ready",
        DaemonState::UserWaiting { .. } => "user_waiting",
        DaemonState::Exited { .. } => "exited",
        DaemonState::Lost => "lost",
        DaemonState::GpuFailed { .. } => "gpu_failed",
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn metrics_have_standard_names_and_a_version() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.started(true, Duration::from_millis(20));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for expect in [
            concat!("gpu_dra_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1\n"),
            "gpu_dra_mps_daemons{state=\"user_waiting\"} 0\n",
            "gpu_dra_mps_daemons{state=\"exited\"} 0\n",
            "gpu_dra_mps_daemon_starts_total{result=\"success\"} 1\n",
            "gpu_dra_mps_daemon_start_duration_seconds_count 1\n",
            "gpu_dra_mps_daemon_exits_total 0\n",
            "gpu_dra_mps_daemons_lost_total 0\n",
            "gpu_dra_mps_daemons_ended_total 0\n",
            "gpu_dra_mps_limit_corrections_total 0\n",
            "gpu_dra_mps_server_failures_total 0\n",
        ] {
            assert!(text.contains(expect), "{expect} in {text}");
        }
    }
}
