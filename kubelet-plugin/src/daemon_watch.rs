// SPDX-License-Identifier: Apache-2.0
//! Follows the MPS daemons of this node and reports changes of their health to the claims that use them.
//!
//! The input is the stream of the MPS host. The output is the state of each daemon, which the writer of `status.devices`
//! reads, and a report for each claim of a daemon that changed. This module starts and stops no daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use dra_hardware::{DaemonError, DaemonState};
use dra_model::DaemonId;
use dra_model::explain;
use dra_mps_api::{DaemonChange, MpsClient, ObservedDaemon};
use dra_prepare::Engine;
use dra_resource::status::{DaemonHealth, DaemonStatus};
use dra_runtime::tasks::TaskError;
use futures::StreamExt as _;
use futures::future::OptionFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::daemon_states::DaemonStates;
use crate::metrics::Metrics;
use crate::report::Report;
use crate::report_channel::ReportSender;
use crate::report_schedule::{ReportKind, ReportSchedule, Source};

/// The time between two connections to the MPS host, which is optional.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// How long the MPS host may be unreachable before that is reported: longer than its pod takes to stop and start.
pub const MAX_HOST_ABSENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct DaemonWatch {
    pub client: MpsClient,
    pub engine: Arc<Engine>,
    pub reports: ReportSender,
    pub states: watch::Sender<DaemonStates>,
    pub metrics: Metrics,
    pub max_host_absence: Duration,
    pub schedule: ReportSchedule,
}

/// Details of a daemon, unknown while the MPS host is unreachable.
#[derive(Debug, Clone, Copy, Default)]
struct Details {
    multi_user: Option<bool>,
    restarts: Option<u32>,
}

/// A time in which the MPS host is unreachable.
#[derive(Debug)]
struct HostAbsence {
    since: Instant,
    is_reported: bool,
}

impl DaemonWatch {
    /// Runs until `stop` is cancelled. Connects again to a host that is unreachable.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), TaskError> {
        let mut absence = None;
        loop {
            let ended = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                followed = self.follow(&mut absence) => followed?,
            };
            let why = ended.map_or_else(|error| explain(&error), |()| "the MPS host closed the stream".to_owned());
            self.states.send_if_modified(|states| std::mem::take(&mut states.is_connected));
            self.report_absence(&mut absence, &why).await?;
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep(RETRY_INTERVAL) => {}
            }
        }
    }

    /// The outer error is of this process, the inner one of the MPS host.
    async fn follow(&mut self, absence: &mut Option<HostAbsence>) -> Result<Result<(), DaemonError>, TaskError> {
        // The stream is opened before the list is read, so that it has every change after the list.
        let mut changes = pin!(match self.client.watch().await {
            Ok(changes) => changes,
            Err(error) => return Ok(Err(error)),
        });
        match self.client.observed().await {
            Ok(all) => self.update_all(&all),
            Err(error) => return Ok(Err(error)),
        }
        if absence.take().is_some_and(|absence| absence.is_reported) {
            info!("the MPS host responds again");
        }
        loop {
            self.report_due().await?;
            let due: OptionFuture<_> = self.schedule.next_due().map(sleep_until).into();
            tokio::select! {
                change = changes.next() => match change {
                    Some(Ok(DaemonChange::Updated(observed))) => self.observe(&observed, Source::Stream),
                    Some(Ok(DaemonChange::Removed(id))) => self.remove(&id, Source::Stream),
                    Some(Err(error)) => return Ok(Err(error)),
                    None => return Ok(Ok(())),
                },
                Some(()) = due => {}
            }
        }
    }

    /// Takes over the list of all daemons. Those that are absent from it were stopped.
    fn update_all(&mut self, all: &[ObservedDaemon]) {
        let listed: BTreeSet<&DaemonId> = all.iter().map(|observed| &observed.daemon.id).collect();
        let gone: Vec<DaemonId> =
            self.states.borrow().daemons.keys().filter(|id| !listed.contains(id)).cloned().collect();
        for id in &gone {
            self.remove(id, Source::List);
        }
        for observed in all {
            self.observe(observed, Source::List);
        }
        self.states.send_modify(|states| {
            states.is_connected = true;
            states.connections += 1;
        });
    }

    fn observe(&mut self, observed: &ObservedDaemon, source: Source) {
        if let Some(health) = health(observed) {
            let (multi_user, restarts) = (Some(observed.daemon.multi_user), Some(observed.restarts));
            self.update(&observed.daemon.id, &health, Details { multi_user, restarts }, source);
        }
    }

    fn update(&mut self, id: &DaemonId, health: &DaemonHealth, details: Details, source: Source) {
        let before = self.states.borrow().daemons.get(id).cloned();
        if before.as_ref().map(|daemon| &daemon.health) != Some(health) {
            log(id, before.is_none(), health);
            let restarts =
                details.restarts.or_else(|| before.as_ref().map(|before| before.restarts)).unwrap_or_default();
            let multi_user = details.multi_user.or_else(|| before?.multi_user);
            let (health, since) = (health.clone(), Time(Timestamp::now()));
            let now = DaemonStatus { id: id.clone(), health, multi_user, restarts, since };
            self.publish(|daemons| _ = daemons.insert(id.clone(), now));
        }
        self.schedule.update(id, health, source, Instant::now());
    }

    fn remove(&mut self, id: &DaemonId, source: Source) {
        self.publish(|daemons| _ = daemons.remove(id));
        self.schedule.remove(id, source, Instant::now());
    }

    fn publish(&self, change: impl FnOnce(&mut BTreeMap<DaemonId, DaemonStatus>)) {
        self.states.send_modify(|states| {
            change(&mut states.daemons);
            self.metrics.daemons(states.daemons.values().map(|daemon| &daemon.health));
        });
    }

    /// Reports an absence once, and only where claims use daemons: a node without MPS needs no MPS host.
    async fn report_absence(&mut self, absence: &mut Option<HostAbsence>, why: &str) -> Result<(), TaskError> {
        let absence = absence.get_or_insert_with(|| {
            debug!(why, "MPS daemons are not followed");
            HostAbsence { since: Instant::now(), is_reported: false }
        });
        if absence.is_reported || absence.since.elapsed() < self.max_host_absence {
            return Ok(());
        }
        absence.is_reported = true;
        let engine = Arc::clone(&self.engine);
        let in_use = spawn_blocking(move || engine.daemons_in_use()).await?;
        let in_use = in_use.unwrap_or_else(|error| {
            warn!(error = explain(&error), "failed to find the MPS daemons that claims use");
            BTreeSet::new()
        });
        let published = self.states.borrow().daemons.keys().cloned().collect();
        let daemons: BTreeSet<DaemonId> = &in_use | &published;
        if !daemons.is_empty() {
            warn!(
                why,
                daemons = daemons.len(),
                "the MPS host does not respond, so the state of its daemons is unknown"
            );
        }
        for id in &daemons {
            self.update(id, &DaemonHealth::HostUnreachable, Details::default(), Source::List);
        }
        self.report_due().await
    }

    async fn report_due(&mut self) -> Result<(), TaskError> {
        for (id, kind) in self.schedule.take_due(Instant::now()) {
            let (engine, of_daemon) = (Arc::clone(&self.engine), id.clone());
            let claims = match spawn_blocking(move || engine.claims_of_daemon(&of_daemon)).await? {
                Ok(claims) => claims,
                Err(error) => {
                    warn!(daemon = %id, error = explain(&error), "failed to find the claims of an MPS daemon, will retry");
                    self.schedule.retry(&id, kind, Instant::now());
                    continue;
                }
            };
            let now = self.states.borrow().daemons.get(&id).cloned();
            for (claim, devices) in claims {
                let report = match (&now, kind) {
                    (Some(daemon), ReportKind::Event) => Report::Daemon { claim, devices, daemon: daemon.clone() },
                    (None, _) | (_, ReportKind::Status) => Report::Status { claim, devices },
                };
                self.reports.send(report);
            }
            if let Some(DaemonStatus { health, .. }) = now {
                self.schedule.was_reported(&id, health, kind, Instant::now());
            }
        }
        Ok(())
    }
}

fn log(id: &DaemonId, is_new: bool, health: &DaemonHealth) {
    match health {
        DaemonHealth::Ready if is_new => debug!(daemon = %id, "MPS daemon accepts clients"),
        DaemonHealth::Ready => info!(daemon = %id, "MPS daemon accepts clients again"),
        DaemonHealth::UserWaiting { waiting, active } => {
            debug!(daemon = %id, waiting, active, "MPS clients of one user wait for those of another");
        }
        DaemonHealth::Exited { .. } | DaemonHealth::Lost | DaemonHealth::GpuFailed { .. } => {
            warn!(daemon = %id, ?health, "MPS daemon does not accept clients");
        }
        // `report_absence` logs this once for all daemons.
        DaemonHealth::HostUnreachable => {}
    }
}

/// Nothing while the daemon starts or stops.
fn health(observed: &ObservedDaemon) -> Option<DaemonHealth> {
    match &observed.daemon.state {
        DaemonState::Changing => None,
        DaemonState::Ready => Some(DaemonHealth::Ready),
        DaemonState::UserWaiting { waiting, active } => {
            Some(DaemonHealth::UserWaiting { waiting: *waiting, active: *active })
        }
        DaemonState::Exited { why } => Some(DaemonHealth::Exited { why: why.clone() }),
        DaemonState::Lost => Some(DaemonHealth::Lost),
        DaemonState::GpuFailed { why } => Some(DaemonHealth::GpuFailed { why: why.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use dra_cdi::Architecture;
    use dra_checkpoint::{
        ClaimRecord, ClaimState, RecordStore, RecordedDevice, RecordedHardware, RecordedSharing, Step,
    };
    use dra_files::HostFiles;
    use dra_hardware::{Host, NvmlMachine, ProcessRoots, Roots};
    use dra_model::{ClaimRef, MpsConfig, ShareLimits, SharedForm};
    use dra_prepare::Settings;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::event_text::EventText;
    use crate::outbox::{Due, PendingEvent};
    use crate::report_channel::{Next, report_channel};

    const GPU: &str = "GPU-00112233-4455-6677-8899-aabbccddeeff";

    fn id() -> DaemonId {
        "gpu-00112233445566778899aabbccddeeff".parse().unwrap()
    }

    fn claim() -> ClaimRef {
        ClaimRef { namespace: "ns".to_owned(), name: "c".to_owned(), uid: "u".parse().unwrap() }
    }

    /// The engine of a node with one claim, which has an MPS share.
    fn engine(dir: &Path) -> Arc<Engine> {
        let boot_id_path = dir.join("proc/sys/kernel/random/boot_id");
        fs::create_dir_all(boot_id_path.parent().unwrap()).unwrap();
        fs::write(boot_id_path, "this-boot\n").unwrap();
        let uuid = GPU.parse().unwrap();
        let device = RecordedDevice {
            request: "r".to_owned(),
            pool: "node-1".to_owned(),
            device: "gpu-00112233-mps".parse().unwrap(),
            admin_access: false,
            share_id: None,
            hardware: RecordedHardware::Shared { uuid, form: SharedForm::Mps },
            sharing: RecordedSharing::Mps {
                daemon: id(),
                config: MpsConfig::default(),
                limits: ShareLimits::default(),
            },
            cdi_ids: Vec::new(),
            unknown: serde_json::Map::new(),
        };
        let done = vec![Step::MpsDaemon { id: id(), gpus: vec![GPU.parse().unwrap()] }];
        let record = ClaimRecord {
            claim: claim(),
            boot_id: "this-boot".to_owned(),
            base: "580.95.05".to_owned(),
            devices: vec![device],
            state: ClaimState::Ready { done },
            unknown: serde_json::Map::new(),
        };
        let state_dir = dir.join("state");
        RecordStore::open(Arc::new(HostFiles), &state_dir).unwrap().put(&record).unwrap();
        let settings = Settings {
            node: "node-1".parse().unwrap(),
            driver_name: "gpu.nvidia.com".to_owned(),
            state_dir,
            run_dir: dir.join("run"),
            cdi_dir: dir.join("cdi"),
            mps_root: dir.join("run/mps"),
            lock_timeout: Duration::from_secs(1),
            missing_grace_period: Duration::from_secs(1),
            architecture: Architecture::own(),
            host_dev_dir: None,
            hook: None,
        };
        let roots = Roots {
            driver: dir.into(),
            driver_on_host: dir.into(),
            proc: dir.join("proc"),
            sys: dir.into(),
            processes: ProcessRoots::default(),
        };
        let host = Host::new(Arc::new(NvmlMachine::new(dir, dir)), roots);
        let daemons = MpsClient::new(dir.join("host.sock")).unwrap();
        Arc::new(Engine::open(Arc::new(host), Arc::new(daemons), Arc::new(HostFiles), settings).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_never_responds_is_reported_once_on_the_claims_that_use_its_daemons() {
        let dir = tempfile::tempdir().unwrap();
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let (reports, mut written) = report_channel(metrics.clone(), Duration::from_secs(5));
        let (states, mut published) = watch::channel(DaemonStates::default());
        let client = MpsClient::new(dir.path().join("host.sock")).unwrap();
        let engine = engine(dir.path());
        let (max_host_absence, schedule) = (MAX_HOST_ABSENCE, ReportSchedule::default());
        let watch = DaemonWatch { client, engine, reports, states, metrics, max_host_absence, schedule };
        let (stop, started) = (CancellationToken::new(), Instant::now());
        let running = tokio::spawn(watch.run(stop.clone()));
        let Next::Claim(Due { claim: reported, status, events }) = written.next().await.unwrap() else {
            panic!("an Event about the Node")
        };
        let [PendingEvent::Text(EventText::Daemon(daemon))] = &events[..] else { panic!("{events:?}") };
        assert_eq!((reported, status.map(|devices| devices.len()), &daemon.id), (claim(), Some(1), &id()));
        assert_eq!((&daemon.health, daemon.multi_user), (&DaemonHealth::HostUnreachable, None));
        assert!(started.elapsed() >= MAX_HOST_ABSENCE);
        assert_eq!(published.borrow_and_update().daemons.len(), 1);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        assert!(text.contains("gpu_dra_mps_daemons_observed{state=\"host_unreachable\"} 1"), "{text}");
        sleep(MAX_HOST_ABSENCE * 3).await;
        stop.cancel();
        running.await.unwrap().unwrap();
        assert!(written.next().await.is_none(), "one report is enough");
    }
}
