// SPDX-License-Identifier: Apache-2.0
//! The metrics that this process counts. Labels are bounded: no label is a claim, a pod or a UUID, but those of [`crate::monitoring`], which are measured
//! when they are read.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dra_hardware::Setting;
use dra_model::{Gpu, Health, Inventory};
use dra_prepare::{MigChangeKind, PreparedShares, RestoreOutcome};
use dra_resource::status::DaemonHealth;
use dra_runtime::http::DURATIONS;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::health::metrics::HealthMetrics;
use crate::mig_metrics::MigMetrics;

/// The result of an operation: success, or the disposition of the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Permanent,
    Busy,
    Transient,
}

/// A call of the kubelet, for one claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `NodePrepareResources`.
    Prepare,
    /// `NodeUnprepareResources`.
    Unprepare,
}

/// The result of a reconciliation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReconciliationResult {
    Clean,
    WithProblems,
    Panicked,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconciliationLabels {
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
    setting: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DaemonStopLabels {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CorrectionLabels {
    setting: &'static str,
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

impl ReconciliationResult {
    fn label(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::WithProblems => "problems",
            Self::Panicked => "failure",
        }
    }
}

/// The metrics, cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    operations: Family<ResultLabels, Counter>,
    duration: Family<OperationLabels, Histogram>,
    in_flight: Family<OperationLabels, Gauge>,
    mig: MigMetrics,
    pub health: HealthMetrics,
    devices: Family<DeviceLabels, Gauge>,
    shares: Family<ShareLabels, Gauge>,
    share_memory: Family<ShareLabels, Gauge>,
    daemons: Family<DaemonLabels, Gauge>,
    restores: Family<RestoreLabels, Counter>,
    daemon_stops: Family<DaemonStopLabels, Counter>,
    corrections: Family<CorrectionLabels, Counter>,
    pending_restores: Gauge,
    quarantined: Gauge,
    reconciliations: Family<ReconciliationLabels, Counter>,
    registrations: Counter,
    reports_dropped: Counter,
}

impl Metrics {
    /// Declares every metric in the registry.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            operations: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
            in_flight: Family::default(),
            mig: MigMetrics::default(),
            health: HealthMetrics::default(),
            devices: Family::default(),
            shares: Family::default(),
            share_memory: Family::default(),
            daemons: Family::default(),
            restores: Family::default(),
            daemon_stops: Family::default(),
            corrections: Family::default(),
            pending_restores: Gauge::default(),
            quarantined: Gauge::default(),
            reconciliations: Family::default(),
            registrations: Counter::default(),
            reports_dropped: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("gpu_dra");
        let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Version of this process", version);
        registry.register(
            "devices",
            "GPUs and MIG devices of this node, by state: healthy, unhealthy",
            metrics.devices.clone(),
        );
        registry.register(
            "quarantined_records",
            "Claim records that cannot be read and reserve their devices",
            metrics.quarantined.clone(),
        );
        registry.register(
            "reconciliations",
            "Reconciliations of claim records, CDI specs and GPUs, by result: clean, problems, failure",
            metrics.reconciliations.clone(),
        );
        registry.register(
            "kubelet_registrations",
            "Registrations of this plugin that the kubelet accepted",
            metrics.registrations.clone(),
        );
        registry.register(
            "reports_dropped",
            "Events and device statuses that were not written, because the API server is slow or unreachable",
            metrics.reports_dropped.clone(),
        );
        metrics.register_operations(registry);
        metrics.register_sharing(registry);
        metrics.mig.register(registry);
        metrics.health.register(registry);
        metrics
    }

    fn register_operations(&self, registry: &mut Registry) {
        registry.register(
            "claim_operations",
            "Prepare and unprepare calls of the kubelet, one for each claim, by result",
            self.operations.clone(),
        );
        registry.register_with_unit(
            "claim_operation_duration",
            "Time from the call of the kubelet to the answer, for each claim",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register(
            "claim_operations_in_flight",
            "Prepare and unprepare calls without an answer yet",
            self.in_flight.clone(),
        );
    }

    /// Counters start at 0 and not at their first value, so that the first value is an increase.
    fn register_sharing(&self, registry: &mut Registry) {
        registry.register("prepared_shares", "Shares of GPUs in prepared claims", self.shares.clone());
        registry.register_with_unit(
            "prepared_share_memory",
            "Memory limits of the shares in prepared claims, together for each device",
            Unit::Bytes,
            self.share_memory.clone(),
        );
        registry.register(
            "mps_daemons_observed",
            "MPS daemons of this node, by the state that this process observes: ready, user_waiting, exited, lost, or host_unreachable while the MPS host does not respond",
            self.daemons.clone(),
        );
        registry.register(
            "setting_restores",
            "Restores of original GPU settings, by setting and result",
            self.restores.clone(),
        );
        registry.register("mps_daemon_stops", "Stops of MPS daemons, by result", self.daemon_stops.clone());
        registry.register(
            "setting_corrections",
            "Resets of GPU settings that were changed outside this driver while claims relied on them",
            self.corrections.clone(),
        );
        registry.register(
            "pending_restores",
            "GPUs whose original settings are not restored yet although no claim relies on their settings",
            self.pending_restores.clone(),
        );
        self.daemons(std::iter::empty());
        let settings = [Setting::ComputeMode, Setting::Interval];
        let of_setting = settings.iter().flat_map(|setting| {
            [
                RestoreOutcome::SettingRestored(*setting),
                RestoreOutcome::SettingNotRestored(*setting),
                RestoreOutcome::SettingCorrected(*setting),
            ]
        });
        let of_daemons = [RestoreOutcome::DaemonStopped, RestoreOutcome::DaemonNotStopped];
        self.restore_outcomes(&of_setting.chain(of_daemons).map(|outcome| (outcome, 0)).collect());
    }

    /// Counts a call of the kubelet at its start.
    pub fn begin(&self, operation: Operation) {
        self.in_flight.get_or_create(&operation.labels()).inc();
    }

    /// Counts a call of the kubelet at its end.
    pub fn end(&self, operation: Operation, result: Outcome, took: Duration) {
        self.in_flight.get_or_create(&operation.labels()).dec();
        self.operations.get_or_create(&ResultLabels { operation: operation.label(), result: result.label() }).inc();
        self.duration.get_or_create(&operation.labels()).observe(took.as_secs_f64());
    }

    /// Counts a MIG device that was created or destroyed.
    pub fn mig_device(&self, change: &MigChangeKind, took: Duration) {
        self.mig.changed(change, took);
    }

    pub fn inventory(&self, inventory: &Inventory) {
        self.mig.inventory(inventory);
        let unusable = || inventory.known_gpus().filter(|(_, health)| **health != Health::Usable).map(|(gpu, _)| gpu);
        let mig = |gpus: &mut dyn Iterator<Item = &Gpu>| gpus.map(|gpu| gpu.mig_devices().len()).sum();
        for (r#type, state, count) in [
            ("gpu", "healthy", inventory.usable_gpus().filter(|gpu| gpu.is_whole()).count()),
            ("gpu", "unhealthy", inventory.gpus.iter().filter(|entry| entry.failure().is_some()).count()),
            ("mig", "healthy", mig(&mut inventory.usable_gpus())),
            ("mig", "unhealthy", mig(&mut unusable())),
        ] {
            self.devices.get_or_create(&DeviceLabels { r#type, state }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Devices without a share are absent.
    pub fn prepared_shares(&self, prepared: &[PreparedShares]) {
        self.shares.clear();
        self.share_memory.clear();
        for PreparedShares { device, form, count, memory, .. } in prepared {
            let labels = ShareLabels { device: device.to_string(), strategy: form.to_string() };
            self.shares.get_or_create(&labels).set(i64::try_from(*count).unwrap_or(i64::MAX));
            self.share_memory.get_or_create(&labels).set(i64::try_from(memory.0).unwrap_or(i64::MAX));
        }
    }

    pub fn daemons<'a>(&self, daemons: impl Iterator<Item = &'a DaemonHealth>) {
        let states: Vec<&str> = daemons.map(daemon_state).collect();
        for state in DAEMON_STATES {
            let count = states.iter().filter(|found| **found == state).count();
            self.daemons.get_or_create(&DaemonLabels { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// The numbers since the start of the process.
    pub fn restore_outcomes(&self, outcomes: &BTreeMap<RestoreOutcome, u64>) {
        for (outcome, count) in outcomes {
            let restored = |setting: &Setting, result| {
                self.restores.get_or_create(&RestoreLabels { setting: label(*setting), result }).clone()
            };
            let stopped = |result| self.daemon_stops.get_or_create(&DaemonStopLabels { result }).clone();
            let counter = match outcome {
                RestoreOutcome::SettingRestored(setting) => restored(setting, "success"),
                RestoreOutcome::SettingNotRestored(setting) => restored(setting, "failure"),
                RestoreOutcome::DaemonStopped => stopped("success"),
                RestoreOutcome::DaemonNotStopped => stopped("failure"),
                RestoreOutcome::SettingCorrected(setting) => {
                    self.corrections.get_or_create(&CorrectionLabels { setting: label(*setting) }).clone()
                }
            };
            counter.inner().store(*count, Ordering::Relaxed);
        }
    }

    pub fn pending_restores(&self, gpus: usize) {
        self.pending_restores.set(i64::try_from(gpus).unwrap_or(i64::MAX));
    }

    pub fn quarantined(&self, records: usize) {
        self.quarantined.set(i64::try_from(records).unwrap_or(i64::MAX));
    }

    pub fn reconciled(&self, result: ReconciliationResult) {
        self.reconciliations.get_or_create(&ReconciliationLabels { result: result.label() }).inc();
    }

    pub fn registered(&self) {
        self.registrations.inc();
    }

    pub fn report_dropped(&self) {
        self.reports_dropped.inc();
    }
}

/// The metrics of the MPS host use these names too.
const DAEMON_STATES: [&str; 6] = ["ready", "user_waiting", "exited", "lost", "gpu_failed", "host_unreachable"];

const fn daemon_state(health: &DaemonHealth) -> &'static str {
    match health {
        DaemonHealth::Ready => "ready",
        DaemonHealth::UserWaiting { .. } => "user_waiting",
        DaemonHealth::Exited { .. } => "exited",
        DaemonHealth::Lost => "lost",
        DaemonHealth::GpuFailed { .. } => "gpu_failed",
        DaemonHealth::HostUnreachable => "host_unreachable",
    }
}

const fn label(setting: Setting) -> &'static str {
    match setting {
        Setting::ComputeMode => "compute_mode",
        Setting::Interval => "time_slice_interval",
    }
}
