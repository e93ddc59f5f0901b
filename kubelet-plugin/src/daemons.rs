// SPDX-License-Identifier: Apache-2.0
//! Follows the MPS daemons of this node and lets the claims that use one hear of it when it dies and when it is back.
//!
//! In comes the stream of the MPS host; out go a board of how each daemon is, which whoever writes `status.devices` reads,
//! and a report for each claim behind a daemon that changed. Nothing is started or stopped here.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use dra_hardware::{DaemonError, DaemonState};
use dra_model::DaemonId;
use dra_model::chain;
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

use crate::metrics::Metrics;
use crate::news::{Heard, News, Telling};
use crate::report::{Report, ReportSender};

/// Between two attempts to reach the MPS host, which need not be there.
const RETRY: Duration = Duration::from_secs(2);

/// How long an MPS host may be away before somebody has to know: longer than it takes to end or to be started again.
pub const ABSENCE: Duration = Duration::from_secs(30);

/// What is known of the daemons.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Board {
    /// Each one that the MPS host told of, or that claims have while it is away.
    pub daemons: BTreeMap<DaemonId, DaemonStatus>,
    /// Whether the MPS host is heard right now.
    pub is_live: bool,
}

/// Runs until it is stopped.
#[derive(Debug)]
pub struct DaemonWatch {
    /// Where the stream comes from.
    pub client: MpsClient,
    /// Knows which claims use a daemon.
    pub engine: Arc<Engine>,
    /// Tells those claims.
    pub reports: ReportSender,
    /// For whoever writes `status.devices`.
    pub board: watch::Sender<Board>,
    /// Shows how many daemons there are.
    pub metrics: Metrics,
    /// How long the MPS host may be away before claims are told.
    pub absence: Duration,
    /// What claims have still to hear.
    pub news: News,
}

/// What the MPS host tells of a daemon besides its health, if it is heard.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    multi_user: Option<bool>,
    restarts: Option<u32>,
}

/// A time in which the MPS host is not heard.
#[derive(Debug)]
struct Outage {
    since: Instant,
    is_told: bool,
}

impl DaemonWatch {
    /// Runs until `stop` is cancelled. A host that is not there, or went away, is asked again.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), TaskError> {
        let mut outage = None;
        loop {
            let ended = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                followed = self.follow(&mut outage) => followed?,
            };
            let why = ended.map_or_else(|error| error.to_string(), |()| "the MPS host ended the stream".to_owned());
            self.board.send_if_modified(|board| std::mem::take(&mut board.is_live));
            self.is_away(&mut outage, &why).await?;
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep(RETRY) => {}
            }
        }
    }

    /// The outer error is this process's, the inner one the host's.
    async fn follow(&mut self, outage: &mut Option<Outage>) -> Result<Result<(), DaemonError>, TaskError> {
        // What changes after it was listed is in the stream.
        let mut changes = pin!(match self.client.watch().await {
            Ok(changes) => changes,
            Err(error) => return Ok(Err(error)),
        });
        match self.client.observed().await {
            Ok(all) => self.are_listed(&all),
            Err(error) => return Ok(Err(error)),
        }
        if outage.take().is_some_and(|outage| outage.is_told) {
            info!("the MPS host is heard again");
        }
        loop {
            self.tell().await?;
            let due: OptionFuture<_> = self.news.next().map(sleep_until).into();
            tokio::select! {
                change = changes.next() => match change {
                    Some(Ok(DaemonChange::Updated(seen))) => self.is_seen(&seen, Heard::AtOnce),
                    Some(Ok(DaemonChange::Removed(id))) => self.is_gone(&id, Heard::AtOnce),
                    Some(Err(error)) => return Ok(Err(error)),
                    None => return Ok(Ok(())),
                },
                Some(()) = due => {}
            }
        }
    }

    /// Those that ended unheard are on the board no more.
    fn are_listed(&mut self, all: &[ObservedDaemon]) {
        let listed: BTreeSet<&DaemonId> = all.iter().map(|seen| &seen.daemon.id).collect();
        let gone: Vec<DaemonId> =
            self.board.borrow().daemons.keys().filter(|id| !listed.contains(id)).cloned().collect();
        for id in &gone {
            self.is_gone(id, Heard::InList);
        }
        for seen in all {
            self.is_seen(seen, Heard::InList);
        }
        self.board.send_modify(|board| board.is_live = true);
    }

    fn is_seen(&mut self, seen: &ObservedDaemon, heard: Heard) {
        if let Some(health) = health(seen) {
            let (multi_user, restarts) = (Some(seen.daemon.multi_user), Some(seen.restarts));
            self.is(&seen.daemon.id, &health, Known { multi_user, restarts }, heard);
        }
    }

    fn is(&mut self, id: &DaemonId, health: &DaemonHealth, known: Known, heard: Heard) {
        let before = self.board.borrow().daemons.get(id).cloned();
        if before.as_ref().map(|daemon| &daemon.health) != Some(health) {
            log(id, before.is_none(), health);
            let restarts = known.restarts.or_else(|| before.as_ref().map(|before| before.restarts)).unwrap_or_default();
            let multi_user = known.multi_user.or_else(|| before?.multi_user);
            let (health, since) = (health.clone(), Time(Timestamp::now()));
            let now = DaemonStatus { id: id.clone(), health, multi_user, restarts, since };
            self.show(|daemons| _ = daemons.insert(id.clone(), now));
        }
        self.news.is(id, health, heard, Instant::now());
    }

    fn is_gone(&mut self, id: &DaemonId, heard: Heard) {
        self.show(|daemons| _ = daemons.remove(id));
        self.news.is_gone(id, heard, Instant::now());
    }

    fn show(&self, change: impl FnOnce(&mut BTreeMap<DaemonId, DaemonStatus>)) {
        self.board.send_modify(|board| {
            change(&mut board.daemons);
            self.metrics.daemons(board.daemons.values().map(|daemon| &daemon.health));
        });
    }

    /// Says so once, and only where claims have daemons: a node without MPS needs no host.
    async fn is_away(&mut self, outage: &mut Option<Outage>, why: &str) -> Result<(), TaskError> {
        let outage = outage.get_or_insert_with(|| {
            debug!(why, "MPS daemons are not followed");
            Outage { since: Instant::now(), is_told: false }
        });
        if outage.is_told || outage.since.elapsed() < self.absence {
            return Ok(());
        }
        outage.is_told = true;
        let engine = Arc::clone(&self.engine);
        let in_use = spawn_blocking(move || engine.daemons_in_use()).await?;
        let in_use = in_use.unwrap_or_else(|error| {
            warn!(error = %chain(&error), "which MPS daemons claims have cannot be told");
            BTreeSet::new()
        });
        let shown = self.board.borrow().daemons.keys().cloned().collect();
        let daemons: BTreeSet<DaemonId> = &in_use | &shown;
        if !daemons.is_empty() {
            warn!(why, daemons = daemons.len(), "the MPS host is away: nobody knows whether its daemons take clients");
        }
        for id in &daemons {
            self.is(id, &DaemonHealth::HostUnreachable, Known::default(), Heard::InList);
        }
        self.tell().await
    }

    async fn tell(&mut self) -> Result<(), TaskError> {
        for (id, telling) in self.news.take_due(Instant::now()) {
            let (engine, of_daemon) = (Arc::clone(&self.engine), id.clone());
            let users = match spawn_blocking(move || engine.users_of(&of_daemon)).await? {
                Ok(users) => users,
                Err(error) => {
                    warn!(daemon = %id, error = %chain(&error), "its users cannot be told (will retry)");
                    self.news.was_not_told(&id, telling, Instant::now());
                    continue;
                }
            };
            let now = self.board.borrow().daemons.get(&id).cloned();
            for (claim, devices) in users {
                let report = match (&now, telling) {
                    (Some(daemon), Telling::Loud) => Report::Daemon { claim, devices, daemon: daemon.clone() },
                    (None, _) | (_, Telling::Quiet) => Report::Status { claim, devices },
                };
                self.reports.send(report);
            }
            if let Some(DaemonStatus { health, .. }) = now {
                self.news.was_told(&id, health, telling, Instant::now());
            }
        }
        Ok(())
    }
}

fn log(id: &DaemonId, is_new: bool, health: &DaemonHealth) {
    match health {
        DaemonHealth::Ready if is_new => debug!(daemon = %id, "MPS daemon takes clients"),
        DaemonHealth::Ready => info!(daemon = %id, "MPS daemon takes clients again"),
        DaemonHealth::UserWaiting { waiting, active } => debug!(daemon = %id, waiting, active, "clients take turns"),
        DaemonHealth::Exited { .. } | DaemonHealth::Lost => {
            warn!(daemon = %id, ?health, "MPS daemon does not take clients");
        }
        // Said once for all daemons.
        DaemonHealth::HostUnreachable => {}
    }
}

/// Nothing while it is being started or stopped.
fn health(seen: &ObservedDaemon) -> Option<DaemonHealth> {
    match &seen.daemon.state {
        DaemonState::Changing => None,
        DaemonState::Ready => Some(DaemonHealth::Ready),
        DaemonState::UserWaits { waiting, active } => {
            Some(DaemonHealth::UserWaiting { waiting: *waiting, active: *active })
        }
        DaemonState::Died { why } => Some(DaemonHealth::Exited { why: why.clone() }),
        DaemonState::Lost => Some(DaemonHealth::Lost),
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
    use dra_hardware::{Host, NvmlMachine, Roots};
    use dra_model::{ClaimRef, MpsConfig, ShareLimits, SharedForm};
    use dra_prepare::Settings;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::outbox::{Due, Note};
    use crate::report::reports;

    const GPU: &str = "GPU-00112233-4455-6677-8899-aabbccddeeff";

    fn id() -> DaemonId {
        "gpu-00112233445566778899aabbccddeeff".parse().unwrap()
    }

    fn claim() -> ClaimRef {
        ClaimRef { namespace: "ns".to_owned(), name: "c".to_owned(), uid: "u".parse().unwrap() }
    }

    /// The engine of a node on which a claim has a share by MPS.
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
            lock_patience: Duration::from_secs(1),
            missing_grace: Duration::from_secs(1),
            architecture: Architecture::own(),
        };
        let roots = Roots { driver: dir.into(), driver_on_host: dir.into(), proc: dir.join("proc"), sys: dir.into() };
        let host = Host::new(Arc::new(NvmlMachine::new(dir)), roots);
        let daemons = MpsClient::new(dir.join("host.sock")).unwrap();
        Arc::new(Engine::open(Arc::new(host), Arc::new(daemons), Arc::new(HostFiles), settings).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_stays_away_is_told_of_once_also_by_a_plugin_that_never_heard_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let (reports, mut written) = reports(metrics.clone(), Duration::from_secs(5));
        let (board, mut shown) = watch::channel(Board::default());
        let client = MpsClient::new(dir.path().join("host.sock")).unwrap();
        let engine = engine(dir.path());
        let watch = DaemonWatch { client, engine, reports, board, metrics, absence: ABSENCE, news: News::default() };
        let (stop, started) = (CancellationToken::new(), Instant::now());
        let running = tokio::spawn(watch.run(stop.clone()));
        let Due { claim: told, status, notes } = written.next().await.unwrap();
        let [Note::Daemon(daemon)] = &notes[..] else { panic!("{notes:?}") };
        assert_eq!((told, status.map(|devices| devices.len()), &daemon.id), (claim(), Some(1), &id()));
        assert_eq!((&daemon.health, daemon.multi_user), (&DaemonHealth::HostUnreachable, None));
        assert!(started.elapsed() >= ABSENCE);
        assert_eq!(shown.borrow_and_update().daemons.len(), 1);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        assert!(text.contains("gpu_dra_mps_daemons_seen{state=\"host_away\"} 1"), "{text}");
        sleep(ABSENCE * 3).await;
        stop.cancel();
        running.await.unwrap().unwrap();
        assert!(written.next().await.is_none(), "once is enough");
    }
}
