// SPDX-License-Identifier: Apache-2.0
//! All metrics of this process. Labels are bounded: the devices of the node, but never a claim, pod or UUID.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dra_hardware::Setting;
use dra_model::{GpuEntry, Inventory, MigMode};
use dra_prepare::{Deed, Promise};
use dra_resource::status::DaemonHealth;
use dra_runtime::http::DURATIONS;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As wished.
    Success,
    /// A retry gives the same answer.
    Permanent,
    /// Something else holds what is needed.
    Busy,
    /// The environment failed.
    Transient,
}

/// Which call of the kubelet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `NodePrepareResources`, per claim.
    Prepare,
    /// `NodeUnprepareResources`, per claim.
    Unprepare,
}

/// How a round of the reconciliation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounds {
    /// All is in order.
    Clean,
    /// Something could not be put in order.
    WithProblems,
    /// It panicked.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoundLabels {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    operation: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeviceLabels {
    r#type: &'static str,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShareLabels {
    device: String,
    strategy: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DaemonLabels {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RestoreLabels {
    what: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DriftLabels {
    what: &'static str,
}

impl Operation {
    fn labels(self) -> OperationLabels {
        OperationLabels { operation: self.label() }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Unprepare => "unprepare",
        }
    }
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Permanent => "permanent",
            Self::Busy => "busy",
            Self::Transient => "transient",
        }
    }
}

impl Rounds {
    fn label(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::WithProblems => "problems",
            Self::Failed => "failure",
        }
    }
}

/// The metrics, cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    claims: Family<ResultLabels, Counter>,
    duration: Family<OperationLabels, Histogram>,
    in_flight: Family<OperationLabels, Gauge>,
    devices: Family<DeviceLabels, Gauge>,
    shares: Family<ShareLabels, Gauge>,
    promised_memory: Family<ShareLabels, Gauge>,
    daemons: Family<DaemonLabels, Gauge>,
    restores: Family<RestoreLabels, Counter>,
    drifts: Family<DriftLabels, Counter>,
    quarantined: Gauge,
    reconciliations: Family<RoundLabels, Counter>,
    registrations: Counter,
    reports_dropped: Counter,
}

impl Metrics {
    /// Declares every metric in the registry.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            claims: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
            in_flight: Family::default(),
            devices: Family::default(),
            shares: Family::default(),
            promised_memory: Family::default(),
            daemons: Family::default(),
            restores: Family::default(),
            drifts: Family::default(),
            quarantined: Gauge::default(),
            reconciliations: Family::default(),
            registrations: Counter::default(),
            reports_dropped: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("gpu_dra");
        registry.register(
            "claims",
            "Claims the kubelet asked to prepare or unprepare, by result",
            metrics.claims.clone(),
        );
        registry.register_with_unit(
            "claim_duration",
            "Time from the call to the answer, per claim",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        registry.register("claims_in_flight", "Claims being worked on now", metrics.in_flight.clone());
        registry.register("devices", "GPUs and MIG devices found on this node, by state", metrics.devices.clone());
        registry.register("quarantined_records", "Claim records that could not be read", metrics.quarantined.clone());
        registry.register(
            "reconciliations",
            "Rounds in which claims, files and GPUs were put in order, by result: clean, problems, failure",
            metrics.reconciliations.clone(),
        );
        registry.register("registrations", "Times the kubelet accepted this plugin", metrics.registrations.clone());
        registry.register(
            "reports_dropped",
            "Events and device statuses not written because the API server is slow or away",
            metrics.reports_dropped.clone(),
        );
        metrics.register_sharing(registry);
        metrics
    }

    /// Counters begin at 0 and not with what they count, so that the first time is seen as an increase.
    fn register_sharing(&self, registry: &mut Registry) {
        registry.register("shares", "Shares of a GPU that claims hold", self.shares.clone());
        registry.register_with_unit(
            "promised_memory",
            "Memory that the shares of a GPU were promised together",
            Unit::Bytes,
            self.promised_memory.clone(),
        );
        registry.register(
            "mps_daemons_seen",
            "MPS daemons of this node by state as this process sees them; host_away while their host does not answer",
            self.daemons.clone(),
        );
        registry.register(
            "restores",
            "Settings given back to a GPU as they were found, and MPS daemons ended, by result",
            self.restores.clone(),
        );
        registry.register(
            "drifts",
            "Settings that somebody changed although claims rely on them and that were put right",
            self.drifts.clone(),
        );
        self.daemons(std::iter::empty());
        let settings = [Setting::ComputeMode, Setting::Interval];
        let of_setting = settings
            .iter()
            .flat_map(|setting| [Deed::Restored(*setting), Deed::NotRestored(*setting), Deed::PutRight(*setting)]);
        self.deeds(&of_setting.chain([Deed::Stopped, Deed::NotStopped]).map(|deed| (deed, 0)).collect());
    }

    /// Counts a call that has begun.
    pub fn begin(&self, operation: Operation) {
        self.in_flight.get_or_create(&operation.labels()).inc();
    }

    /// Counts a call that has ended.
    pub fn end(&self, operation: Operation, result: Outcome, took: Duration) {
        self.in_flight.get_or_create(&operation.labels()).dec();
        self.claims.get_or_create(&ResultLabels { operation: operation.label(), result: result.label() }).inc();
        self.duration.get_or_create(&operation.labels()).observe(took.as_secs_f64());
    }

    /// Shows what discovery found.
    pub fn inventory(&self, inventory: &Inventory) {
        let broken = inventory.gpus.iter().filter(|entry| matches!(entry, GpuEntry::Broken { .. })).count();
        let whole = inventory.good_gpus().filter(|gpu| !matches!(gpu.mig, MigMode::On { .. })).count();
        let mig = inventory.good_gpus().map(|gpu| gpu.mig_devices().len()).sum();
        for (r#type, state, count) in [("gpu", "healthy", whole), ("gpu", "unhealthy", broken), ("mig", "healthy", mig)]
        {
            self.devices.get_or_create(&DeviceLabels { r#type, state }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Shows what is promised in shares; a form without a share is not shown.
    pub fn promised(&self, promised: &[Promise]) {
        self.shares.clear();
        self.promised_memory.clear();
        for Promise { device, form, shares, memory, .. } in promised {
            let labels = ShareLabels { device: device.to_string(), strategy: form.to_string() };
            self.shares.get_or_create(&labels).set(i64::try_from(*shares).unwrap_or(i64::MAX));
            self.promised_memory.get_or_create(&labels).set(i64::try_from(memory.0).unwrap_or(i64::MAX));
        }
    }

    /// Shows how the MPS daemons are.
    pub fn daemons<'a>(&self, daemons: impl Iterator<Item = &'a DaemonHealth>) {
        let states: Vec<&str> = daemons.map(daemon_state).collect();
        for state in DAEMON_STATES {
            let count = states.iter().filter(|found| **found == state).count();
            self.daemons.get_or_create(&DaemonLabels { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Shows what was counted since the start.
    pub fn deeds(&self, deeds: &BTreeMap<Deed, u64>) {
        for (deed, count) in deeds {
            let restored = |what, result| self.restores.get_or_create(&RestoreLabels { what, result }).clone();
            let counter = match deed {
                Deed::Restored(setting) => restored(label(*setting), "success"),
                Deed::NotRestored(setting) => restored(label(*setting), "failure"),
                Deed::Stopped => restored("mps_daemon", "success"),
                Deed::NotStopped => restored("mps_daemon", "failure"),
                Deed::PutRight(setting) => self.drifts.get_or_create(&DriftLabels { what: label(*setting) }).clone(),
            };
            counter.inner().store(*count, Ordering::Relaxed);
        }
    }

    /// Shows how many records are set aside.
    pub fn quarantined(&self, records: usize) {
        self.quarantined.set(i64::try_from(records).unwrap_or(i64::MAX));
    }

    /// Counts a round of the reconciliation.
    pub fn reconciled(&self, round: Rounds) {
        self.reconciliations.get_or_create(&RoundLabels { result: round.label() }).inc();
    }

    /// Counts an acceptance by the kubelet.
    pub fn registered(&self) {
        self.registrations.inc();
    }

    /// Counts a report that was given up.
    pub fn report_dropped(&self) {
        self.reports_dropped.inc();
    }
}

/// Words that the MPS host's own metrics use too.
const DAEMON_STATES: [&str; 5] = ["ready", "user_waits", "died", "lost", "host_away"];

const fn daemon_state(health: &DaemonHealth) -> &'static str {
    match health {
        DaemonHealth::Ready => "ready",
        DaemonHealth::UserWaiting { .. } => "user_waits",
        DaemonHealth::Exited { .. } => "died",
        DaemonHealth::Lost => "lost",
        DaemonHealth::HostUnreachable => "host_away",
    }
}

const fn label(setting: Setting) -> &'static str {
    match setting {
        Setting::ComputeMode => "compute_mode",
        Setting::Interval => "time_slice_interval",
    }
}
