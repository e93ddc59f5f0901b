// SPDX-License-Identifier: Apache-2.0
//! Tells users what became of a claim: `status.devices` and Events, written after the kubelet has its answer.
//!
//! Reports never delay a prepare: while the kubelet waits for an answer they give way, since the API server they are
//! written to is the one that prepares read from. An Event is given up (and counted) when the API server is away,
//! since the kubelet's own event carries the error text in any case; a status is owed until the API server takes it.

use std::collections::BTreeMap;
use std::time::Duration;

use dra_model::{ClaimRef, DaemonId, Disposition, NodeName};
use dra_prepare::PreparedDevice;
use dra_resource::status::{DaemonHealth, DaemonStatus, apply_patch};
use dra_resource::{DeviceStatus, DriverName, SharingStatus};
use dra_runtime::chain;
use dra_runtime::tasks::TaskError;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter as EventReporter};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::daemons::Board;
use crate::metrics::Metrics;
use crate::node_service::NodeState;
use crate::report::{Report, ReportSender, Reports, reports};
use crate::{note, shown};

/// How many claims are remembered.
const MOST: usize = 256;

/// How often a status that is owed is tried.
pub const RETRY: Duration = Duration::from_secs(5);

/// How long no call is in flight before a report is written.
const CALM: Duration = Duration::from_millis(20);

/// How long a report gives way to calls of the kubelet at most.
const COURTESY: Duration = Duration::from_secs(1);

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Writes reports to the API server.
pub struct Reporter {
    reports: Reports,
    /// Whether there is no time to give way any more.
    stopping: bool,
    client: Client,
    /// Who we are in Events.
    events: EventReporter,
    driver: DriverName,
    node: NodeName,
    /// Knows what the GPUs are.
    state: watch::Receiver<NodeState>,
    /// Knows how the MPS daemons are.
    board: watch::Receiver<Board>,
    metrics: Metrics,
    retry: Duration,
    /// What was said of a claim last; of a call that repeats it the same is not said again.
    said: BTreeMap<ClaimRef, Said>,
    /// Claims whose `status.devices` the API server has not taken yet.
    owed: BTreeMap<ClaimRef, Vec<PreparedDevice>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Said {
    Prepared(Vec<PreparedDevice>),
    Failed(String),
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter").field("node", &self.node).finish_non_exhaustive()
    }
}

/// A reporter and the place to hand reports in; `retry` is how often a status that is owed is tried.
pub fn reporter(
    client: Client,
    driver: DriverName,
    node: NodeName,
    state: watch::Receiver<NodeState>,
    board: watch::Receiver<Board>,
    metrics: Metrics,
    retry: Duration,
) -> (ReportSender, Reporter) {
    let (sender, reports) = reports(metrics.clone());
    let events = EventReporter { controller: driver.to_string(), instance: Some(node.to_string()) };
    let (said, owed) = (BTreeMap::new(), BTreeMap::new());
    let reporter =
        Reporter { reports, stopping: false, client, events, driver, node, state, board, metrics, retry, said, owed };
    (sender, reporter)
}

impl Reporter {
    /// Runs until `stop` is cancelled; what still waits then is written if the API server answers soon.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), TaskError> {
        let mut retries = interval(self.retry);
        retries.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = retries.tick() => self.retry().await,
                report = self.reports.queue.recv() => match report {
                    Some(report) => self.write(report).await,
                    None => break,
                },
            }
        }
        self.stopping = true;
        let last = async {
            while let Ok(report) = self.reports.queue.try_recv() {
                self.write(report).await;
            }
        };
        if timeout(PATIENCE, last).await.is_err() {
            warn!("stopping with reports unwritten: the API server does not answer");
        }
        Ok(())
    }

    async fn write(&mut self, report: Report) {
        match report {
            Report::Prepared { claim, devices, is_new } => self.prepared(claim, devices, is_new).await,
            Report::Failed { claim, text, disposition } => self.failed(claim, text, disposition).await,
            Report::Daemon { claim, devices, daemon } => self.daemon(claim, devices, daemon).await,
            Report::Status { claim, devices } => {
                self.give_way().await;
                self.status(&claim, &devices).await;
            }
            Report::Drift { claim, text } => {
                self.give_way().await;
                self.event(&claim, EventType::Warning, "SettingsChanged", text).await;
            }
        }
    }

    /// Waits until no call was in flight for a moment, in which the last answer reaches the kubelet; but not for ever.
    async fn give_way(&mut self) {
        if self.stopping {
            return;
        }
        let calm = async {
            // When nobody can call any more there is nothing to wait for.
            while self.reports.calls.wait_for(|calls| *calls == 0).await.is_ok() {
                let Ok(Ok(())) = timeout(CALM, self.reports.calls.changed()).await else { return };
            }
        };
        timeout(COURTESY, calm).await.unwrap_or_default();
    }

    async fn prepared(&mut self, claim: ClaimRef, devices: Vec<PreparedDevice>, is_new: bool) {
        let is_said = matches!(self.said.get(&claim), Some(Said::Prepared(before)) if *before == devices);
        if is_said && !is_new {
            return;
        }
        self.give_way().await;
        self.until_on_board(&devices).await;
        self.status(&claim, &devices).await;
        self.give_way().await;
        let inventory = self.state.borrow().inventory.clone();
        let note = note::prepared(&devices, inventory.as_deref(), &self.node);
        self.event(&claim, EventType::Normal, "DevicesPrepared", note).await;
        if let Some(note) = note::several_daemons(&devices) {
            self.event(&claim, EventType::Warning, "SeveralMPSDaemons", note).await;
        }
        self.remember(claim, Said::Prepared(devices));
    }

    async fn daemon(&mut self, claim: ClaimRef, devices: Vec<PreparedDevice>, daemon: DaemonStatus) {
        self.give_way().await;
        self.status(&claim, &devices).await;
        let type_ = match daemon.health {
            DaemonHealth::Ready => EventType::Normal,
            DaemonHealth::UserWaits { .. }
            | DaemonHealth::Died { .. }
            | DaemonHealth::Lost
            | DaemonHealth::HostAway => EventType::Warning,
        };
        self.event(&claim, type_, daemon.health.reason(), daemon.message()).await;
    }

    /// A daemon that was started for these devices is on the board as soon as the MPS host has told of it. While that is not
    /// heard nobody waits: when it is heard again the status is put right.
    async fn until_on_board(&mut self, devices: &[PreparedDevice]) {
        let ids: Vec<&DaemonId> = devices.iter().filter_map(shown::daemon).collect();
        let all = self.board.wait_for(|board| !board.is_live || ids.iter().all(|id| board.daemons.contains_key(*id)));
        // Without it the status is silent about the daemon.
        drop(timeout(COURTESY, all).await);
    }

    /// The same failure is said once; the kubelet repeats its own event anyway.
    async fn failed(&mut self, claim: ClaimRef, text: String, disposition: Disposition) {
        let said = Said::Failed(text.clone());
        if self.said.get(&claim) == Some(&said) {
            return;
        }
        self.give_way().await;
        let reason = match disposition {
            Disposition::Permanent => "PrepareRefused",
            Disposition::Busy => "DeviceBusy",
            Disposition::Transient => "PrepareFailed",
        };
        self.event(&claim, EventType::Warning, reason, text).await;
        self.remember(claim, said);
    }

    fn remember(&mut self, claim: ClaimRef, said: Said) {
        if self.said.len() >= MOST {
            self.said.pop_first();
        }
        self.said.insert(claim, said);
    }

    async fn event(&self, claim: &ClaimRef, type_: EventType, reason: &str, note: String) {
        let note = note.get(..note.floor_char_boundary(note::LONGEST)).map(str::to_owned);
        let event = Event { type_, reason: reason.to_owned(), note, action: "Prepare".to_owned(), secondary: None };
        // One that remembers would count this as a repetition of the last Event of that reason, whatever that said.
        let recorder = Recorder::new(self.client.clone(), self.events.clone());
        match timeout(PATIENCE, recorder.publish(&event, &reference(claim))).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                self.metrics.report_dropped();
                warn!(%claim, reason, error = %chain(&error), "unable to write an event");
            }
            Err(_elapsed) => {
                self.metrics.report_dropped();
                warn!(%claim, reason, "unable to write an event: the API server does not answer");
            }
        }
    }

    /// Writes `status.devices`, and owes it when the API server does not take it for reasons that pass.
    async fn status(&mut self, claim: &ClaimRef, devices: &[PreparedDevice]) {
        let board = self.board.borrow().clone();
        let sharing: Vec<SharingStatus> = devices.iter().map(|device| shown::status(device, &board)).collect();
        let devices_shown = devices.iter().zip(&sharing);
        let statuses: Vec<DeviceStatus<'_>> = devices_shown.map(|(device, sharing)| status(device, sharing)).collect();
        let patch = apply_patch(claim, &self.driver, &statuses);
        let claims: Api<ResourceClaim> = Api::namespaced(self.client.clone(), &claim.namespace);
        let params = PatchParams::apply(self.driver.as_str()).force();
        match timeout(PATIENCE, claims.patch_status(&claim.name, &params, &Patch::Apply(&patch))).await {
            Ok(Ok(_)) => _ = self.owed.remove(claim),
            Ok(Err(kube::Error::Api(refusal))) if refusal.code < 500 && refusal.code != 429 => {
                self.owed.remove(claim);
                debug!(%claim, error = %refusal, "the API server refuses status.devices, the claim has moved on");
            }
            Ok(Err(error)) => self.owe(claim, devices, &chain(&error).to_string()),
            Err(_elapsed) => self.owe(claim, devices, "the API server does not answer"),
        }
    }

    fn owe(&mut self, claim: &ClaimRef, devices: &[PreparedDevice], why: &str) {
        warn!(%claim, error = why, "unable to write status.devices (will retry)");
        if self.owed.len() >= MOST {
            self.owed.pop_first();
            self.metrics.report_dropped();
        }
        self.owed.insert(claim.clone(), devices.to_vec());
    }

    /// One of those that are owed: while the API server is away there is no use in asking for all.
    async fn retry(&mut self) {
        while let Some((claim, devices)) = self.owed.pop_first() {
            self.give_way().await;
            self.status(&claim, &devices).await;
            if self.owed.contains_key(&claim) {
                return;
            }
        }
    }
}

fn status<'a>(device: &'a PreparedDevice, sharing: &'a SharingStatus) -> DeviceStatus<'a> {
    DeviceStatus {
        pool: &device.pool,
        device: &device.device,
        share_id: device.share_id.as_ref(),
        identity: &device.identity,
        sharing,
        since: Time(Timestamp::now()),
    }
}

fn reference(claim: &ClaimRef) -> ObjectReference {
    ObjectReference {
        api_version: Some("resource.k8s.io/v1".to_owned()),
        kind: Some("ResourceClaim".to_owned()),
        namespace: Some(claim.namespace.clone()),
        name: Some(claim.name.clone()),
        uid: Some(claim.uid.to_string()),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Ready, ready};
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Poll};

    use dra_model::{GpuSettings, LiveIdentity};
    use dra_prepare::PreparedSharing;
    use kube::client::Body;
    use prometheus_client::registry::Registry;
    use tokio::task::JoinHandle;
    use tonic::codegen::Service;
    use tonic::codegen::http::{Method, Request, Response};

    use super::*;

    const CLAIM: &[u8] = br#"{"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "spec": {"devices": {}}}"#;

    /// An API server that knows statuses of claims only.
    #[derive(Clone, Default)]
    struct Server {
        is_away: Arc<AtomicBool>,
        counts: watch::Sender<Counts>,
    }

    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    struct Counts {
        lost: u32,
        taken: u32,
    }

    impl Service<Request<Body>> for Server {
        type Response = Response<Body>;
        type Error = io::Error;
        type Future = Ready<io::Result<Response<Body>>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            if request.method() != Method::PATCH || !request.uri().path().ends_with("/resourceclaims/c/status") {
                return ready(Err(io::ErrorKind::ConnectionRefused.into()));
            }
            if self.is_away.load(Ordering::SeqCst) {
                self.counts.send_modify(|counts| counts.lost += 1);
                return ready(Err(io::ErrorKind::ConnectionRefused.into()));
            }
            self.counts.send_modify(|counts| counts.taken += 1);
            ready(Ok(Response::new(Body::from(CLAIM.to_vec()))))
        }
    }

    /// By a call that found the claim prepared already, or not.
    fn prepared(is_new: bool) -> Report {
        let device = PreparedDevice {
            request: "r".to_owned(),
            pool: "node-1".to_owned(),
            device: "gpu-00000000".parse().unwrap(),
            admin_access: false,
            share_id: None,
            cdi_ids: Vec::new(),
            identity: LiveIdentity::Gpu { uuid: "GPU-00000000-0000-0000-0000-000000000000".parse().unwrap() },
            sharing: PreparedSharing::Plain,
            settings: GpuSettings::default(),
        };
        let claim = ClaimRef { namespace: "ns".to_owned(), name: "c".to_owned(), uid: "u".parse().unwrap() };
        Report::Prepared { claim, devices: vec![device], is_new }
    }

    /// A reporter that runs until `stop`.
    fn started(
        server: &Server,
        retry: Duration,
        stop: &CancellationToken,
    ) -> (ReportSender, JoinHandle<Result<(), TaskError>>) {
        let (_, state) = watch::channel(NodeState::default());
        let (_, board) = watch::channel(Board::default());
        let (driver, node) = ("gpu.nvidia.com".parse().unwrap(), "node-1".parse().unwrap());
        let metrics = Metrics::register(&mut Registry::default());
        let client = Client::new(server.clone(), "default");
        let (reports, reporter) = reporter(client, driver, node, state, board, metrics, retry);
        (reports, tokio::spawn(reporter.run(stop.clone())))
    }

    /// As after a prepare whose claim was still read from it.
    #[tokio::test]
    async fn a_status_that_an_api_server_that_went_away_did_not_take_is_written_once_when_it_is_back() {
        let server = Server::default();
        let mut counts = server.counts.subscribe();
        let stop = CancellationToken::new();
        let (reports, running) = started(&server, Duration::from_millis(5), &stop);
        server.is_away.store(true, Ordering::SeqCst);
        reports.send(prepared(true));
        counts.wait_for(|counts| counts.lost > 2).await.unwrap();
        server.is_away.store(false, Ordering::SeqCst);
        counts.wait_for(|counts| counts.taken > 0).await.unwrap();
        reports.send(prepared(false));
        stop.cancel();
        running.await.unwrap().unwrap();
        assert_eq!(counts.borrow().taken, 1, "what was said is not said again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_report_gives_way_to_calls_of_the_kubelet_but_not_for_ever() {
        let server = Server::default();
        let mut counts = server.counts.subscribe();
        let stop = CancellationToken::new();
        let (reports, running) = started(&server, Duration::from_mins(1), &stop);

        let (first, second) = (reports.working(), reports.working());
        reports.send(prepared(true));
        drop(first);
        tokio::time::sleep(COURTESY / 2).await;
        assert_eq!(counts.borrow().taken, 0, "another call is in flight");
        drop(second);
        let began = tokio::time::Instant::now();
        counts.wait_for(|counts| counts.taken == 1).await.unwrap();
        assert!(began.elapsed() < COURTESY / 10, "nobody waits any more");

        let _endless = reports.working();
        let Report::Prepared { mut claim, devices, is_new } = prepared(true) else { unreachable!() };
        claim.uid = "v".parse().unwrap();
        reports.send(Report::Prepared { claim, devices, is_new });
        counts.wait_for(|counts| counts.taken == 2).await.unwrap();
        stop.cancel();
        running.await.unwrap().unwrap();
    }
}
