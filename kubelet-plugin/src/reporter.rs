// SPDX-License-Identifier: Apache-2.0
//! Tells users what became of a claim: `status.devices` and Events, written after the kubelet has its answer.
//!
//! Reports never delay a prepare: while the kubelet waits for an answer they give way, since the API server they are
//! written to is the one that prepares read from. An Event is given up (and counted) when the API server does not take it,
//! since the kubelet's own event carries the error text in any case. A status is tried until the API server takes it, each
//! claim at a pace of its own.

use std::time::Duration;

use dra_model::chain;
use dra_model::{ClaimRef, DaemonId, Disposition, NodeName};
use dra_prepare::PreparedDevice;
use dra_resource::status::DaemonHealth;
use dra_resource::{DeviceStatus, DriverName, SharingStatus};
use dra_runtime::tasks::TaskError;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::events::{Event, EventType, Recorder, Reporter as EventReporter};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::claim_api::{ClaimApi, StatusWrite};
use crate::daemons::Board;
use crate::metrics::Metrics;
use crate::node_service::NodeState;
use crate::outbox::{Due, Note};
use crate::report::{ReportSender, Reports, reports};
use crate::{note, shown};

/// How long a claim's status waits after the first failure; with each further one in a row it waits longer.
pub const BACKOFF: Duration = Duration::from_secs(5);

/// How long no call is in flight before a report is written.
const CALM: Duration = Duration::from_millis(20);

/// How long a report gives way to calls of the kubelet at most.
const COURTESY: Duration = Duration::from_secs(1);

/// How long one Event, or one status, may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Writes reports to the API server.
pub struct Reporter {
    reports: Reports,
    /// Whether there is no time to give way any more.
    stopping: bool,
    claims: ClaimApi,
    /// Who we are in Events.
    events: EventReporter,
    driver: DriverName,
    node: NodeName,
    /// Knows what the GPUs are.
    state: watch::Receiver<NodeState>,
    /// Knows how the MPS daemons are.
    board: watch::Receiver<Board>,
    metrics: Metrics,
}

/// What became of a status.
enum Written {
    /// The API server has it, or the claim it was for is no more.
    Done,
    /// It may be taken later.
    NotNow(String),
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter").field("node", &self.node).finish_non_exhaustive()
    }
}

/// A reporter and the place to hand reports in; `backoff` is the first pause of a claim whose status is not taken.
pub fn reporter(
    claims: ClaimApi,
    driver: DriverName,
    node: NodeName,
    state: watch::Receiver<NodeState>,
    board: watch::Receiver<Board>,
    metrics: Metrics,
    backoff: Duration,
) -> (ReportSender, Reporter) {
    let (sender, reports) = reports(metrics.clone(), backoff);
    let events = EventReporter { controller: driver.to_string(), instance: Some(instance_of(&node)) };
    let reporter = Reporter { reports, stopping: false, claims, events, driver, node, state, board, metrics };
    (sender, reporter)
}

/// The node, as far as an Event takes it: 128 characters (`ReportingInstanceLengthLimit` of Kubernetes), while a
/// node may have 253. The admission policy of the chart expects the same.
fn instance_of(node: &NodeName) -> String {
    node.as_str().chars().take(128).collect()
}

impl Reporter {
    /// Runs until `stop` is cancelled; what is due then is written if the API server answers soon.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), TaskError> {
        loop {
            let due = tokio::select! {
                () = stop.cancelled() => break,
                due = self.reports.next() => due,
            };
            let Some(due) = due else { break };
            self.write(due).await;
        }
        self.stopping = true;
        let last = async {
            while let Some(due) = self.reports.take_due() {
                self.write(due).await;
            }
        };
        if timeout(PATIENCE, last).await.is_err() {
            warn!("stopping with reports unwritten: the API server does not answer");
        }
        Ok(())
    }

    async fn write(&mut self, due: Due) {
        let Due { claim, status, notes } = due;
        if let Some(devices) = status {
            self.give_way().await;
            if notes.iter().any(|note| matches!(note, Note::Prepared(_))) {
                self.until_on_board(&devices).await;
            }
            match self.status(&claim, &devices).await {
                Written::Done => self.reports.is_written(&claim),
                Written::NotNow(why) => match self.reports.is_not_written(&claim, devices) {
                    0 | 1 => warn!(%claim, error = why, "unable to write status.devices (will retry)"),
                    times => debug!(%claim, error = why, times, "unable to write status.devices (will retry)"),
                },
            }
        }
        let about = reference(&claim);
        for note in notes {
            self.give_way().await;
            self.record(&about, note).await;
        }
    }

    async fn record(&self, about: &ObjectReference, note: Note) {
        match note {
            Note::Prepared(devices) => {
                let inventory = self.state.borrow().inventory.clone();
                let text = note::prepared(&devices, inventory.as_deref(), &self.node);
                self.event(about, EventType::Normal, "DevicesPrepared", text).await;
                if let Some(text) = note::several_daemons(&devices) {
                    self.event(about, EventType::Warning, note::SEVERAL_DAEMONS, text).await;
                }
                if let Some(text) = note::several_shares(&devices) {
                    self.event(about, EventType::Warning, note::SEVERAL_SHARES, text).await;
                }
            }
            Note::ConfigIgnored(text) => self.event(about, EventType::Normal, "ConfigIgnored", text).await,
            Note::Pod { reason, text } => self.event(about, EventType::Warning, reason, text).await,
            Note::Failed { text, disposition, unnamed_holder } => {
                let reason = match disposition {
                    Disposition::Permanent => "PrepareRefused",
                    Disposition::Busy => "DeviceBusy",
                    Disposition::Transient => "PrepareFailed",
                };
                if let Some(holder) = unnamed_holder {
                    let text = note::in_the_way(&holder, &text);
                    self.event(&self.own_node(), EventType::Warning, reason, text).await;
                }
                self.event(about, EventType::Warning, reason, text).await;
            }
            Note::Daemon(daemon) => {
                let type_ = match daemon.health {
                    DaemonHealth::Ready => EventType::Normal,
                    DaemonHealth::UserWaiting { .. }
                    | DaemonHealth::Exited { .. }
                    | DaemonHealth::Lost
                    | DaemonHealth::HostUnreachable => EventType::Warning,
                };
                self.event(about, type_, daemon.health.reason(), daemon.message()).await;
            }
            Note::Drift(text) => self.event(about, EventType::Warning, "SettingsChanged", text).await,
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

    /// A daemon that was started for these devices is on the board as soon as the MPS host has told of it. While that is not
    /// heard nobody waits: when it is heard again the status is put right.
    async fn until_on_board(&mut self, devices: &[PreparedDevice]) {
        let ids: Vec<&DaemonId> = devices.iter().filter_map(shown::daemon).collect();
        let all = self.board.wait_for(|board| !board.is_live || ids.iter().all(|id| board.daemons.contains_key(*id)));
        // Without it the status is silent about the daemon.
        drop(timeout(COURTESY, all).await);
    }

    async fn event(&self, about: &ObjectReference, type_: EventType, reason: &str, note: String) {
        let note = note.get(..note.floor_char_boundary(note::LONGEST)).map(str::to_owned);
        let event = Event { type_, reason: reason.to_owned(), note, action: "Prepare".to_owned(), secondary: None };
        // One that remembers would count this as a repetition of the last Event of that reason, whatever that said.
        let recorder = Recorder::new(self.claims.client(), self.events.clone());
        let object = [&about.namespace, &about.name].map(|part| part.as_deref().unwrap_or_default()).join("/");
        match timeout(PATIENCE, recorder.publish(&event, about)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                self.metrics.report_dropped();
                warn!(object, reason, error = %chain(&error), "unable to write an event");
            }
            Err(_elapsed) => {
                self.metrics.report_dropped();
                warn!(object, reason, "unable to write an event: the API server does not answer");
            }
        }
    }

    /// As the kubelet refers to it in Events, by its name as UID.
    fn own_node(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(self.node.to_string()),
            uid: Some(self.node.to_string()),
            ..ObjectReference::default()
        }
    }

    /// Writes `status.devices`.
    async fn status(&self, claim: &ClaimRef, devices: &[PreparedDevice]) -> Written {
        let board = self.board.borrow().clone();
        let sharing: Vec<SharingStatus> = devices.iter().map(|device| shown::status(device, &board)).collect();
        let devices_shown = devices.iter().zip(&sharing);
        let statuses: Vec<DeviceStatus<'_>> = devices_shown.map(|(device, sharing)| status(device, sharing)).collect();
        match timeout(PATIENCE, self.claims.write_status(claim, &self.driver, &statuses)).await {
            Ok(Ok(StatusWrite::Written)) => Written::Done,
            Ok(Ok(StatusWrite::MovedOn)) => {
                debug!(%claim, "status.devices is not written, the claim has moved on");
                Written::Done
            }
            Ok(Ok(StatusWrite::Refused(why))) => {
                warn!(%claim, why, "the API server takes no status.devices for this claim (will not retry)");
                Written::Done
            }
            Ok(Err(error)) => Written::NotNow(chain(&error).to_string()),
            Err(_elapsed) => Written::NotNow("the API server does not answer".to_owned()),
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
    use std::collections::BTreeSet;
    use std::future::{Ready, ready};
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Poll};

    use dra_model::{GpuSettings, LiveIdentity};
    use dra_prepare::PreparedSharing;
    use kube::Client;
    use kube::client::Body;
    use prometheus_client::registry::Registry;
    use tokio::task::JoinHandle;
    use tonic::codegen::Service;
    use tonic::codegen::http::{Method, Request, Response};

    use super::*;
    use crate::report::Report;

    const CLAIM: &[u8] = br#"{"metadata": {"name": "unsorted", "uid": "u", "resourceVersion": "1"},
        "status": {"allocation": {"devices": {"results": [
            {"request": "r", "driver": "gpu.nvidia.com", "pool": "node-1", "device": "gpu-00000000"}]}}}}"#;

    /// An API server that knows statuses of claims only, with webhooks that deny and fail those of claims that are called so,
    /// and claims that take no apply. A claim may be large, so it takes no request that asks for the claim in answer, and what
    /// it answers is for nobody.
    #[derive(Clone, Default)]
    struct Server {
        is_away: Arc<AtomicBool>,
        counts: watch::Sender<Counts>,
    }

    #[derive(Debug, Clone, Default, PartialEq, Eq)]
    struct Counts {
        lost: u32,
        refused: u32,
        taken: u32,
        /// The claims whose statuses were taken.
        claims: BTreeSet<String>,
    }

    impl Service<Request<Body>> for Server {
        type Response = Response<Body>;
        type Error = io::Error;
        type Future = Ready<io::Result<Response<Body>>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            let away = || ready(Err(io::ErrorKind::ConnectionRefused.into()));
            let Some((_, path)) = request.uri().path().rsplit_once("/resourceclaims/") else { return away() };
            if self.is_away.load(Ordering::SeqCst) {
                self.counts.send_modify(|counts| counts.lost += 1);
                return away();
            }
            if request.method() == Method::GET && path.starts_with("unsorted") {
                return ready(Ok(Response::new(Body::from(CLAIM.to_vec()))));
            }
            let (&Method::PATCH, Some(claim), true) =
                (request.method(), path.strip_suffix("/status"), asks_for_metadata(&request))
            else {
                return away();
            };
            let is_apply =
                request.headers().get("content-type").is_some_and(|kind| kind == "application/apply-patch+yaml");
            for (name, code) in [("denied", 403_u16), ("failed", 500), ("unsorted", 422)] {
                if claim.starts_with(name) && (is_apply || code != 422) {
                    self.counts.send_modify(|counts| counts.refused += 1);
                    let status = format!(r#"{{"kind": "Status", "status": "Failure", "code": {code}}}"#);
                    return ready(Ok(Response::builder().status(code).body(Body::from(status.into_bytes())).unwrap()));
                }
            }
            self.counts.send_modify(|counts| {
                counts.taken += 1;
                counts.claims.insert(claim.to_owned());
            });
            ready(Ok(Response::new(Body::from(b"never parsed".to_vec()))))
        }
    }

    fn asks_for_metadata(request: &Request<Body>) -> bool {
        let accepted = request.headers().get("accept").and_then(|value| value.to_str().ok());
        accepted == Some("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")
    }

    /// By a call that found the claim prepared already, or not.
    fn prepared(is_new: bool) -> Report {
        of_claim("c", is_new)
    }

    fn of_claim(name: &str, is_new: bool) -> Report {
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
        let claim = ClaimRef { namespace: "ns".to_owned(), name: name.to_owned(), uid: "u".parse().unwrap() };
        Report::Prepared { claim, devices: vec![device], is_new }
    }

    /// A reporter that runs until `stop`.
    fn started(
        server: &Server,
        backoff: Duration,
        stop: &CancellationToken,
    ) -> (ReportSender, JoinHandle<Result<(), TaskError>>) {
        let (_, state) = watch::channel(NodeState::default());
        let (_, board) = watch::channel(Board::default());
        let (driver, node) = ("gpu.nvidia.com".parse().unwrap(), "node-1".parse().unwrap());
        let metrics = Metrics::register(&mut Registry::default());
        let client = Client::new(server.clone(), "default");
        let claims = ClaimApi::new(client);
        let (reports, reporter) = reporter(claims, driver, node, state, board, metrics, backoff);
        (reports, tokio::spawn(reporter.run(stop.clone())))
    }

    #[test]
    fn an_event_takes_the_name_of_any_node() {
        for (node, expect) in [("node-1".to_owned(), 6), ("n.".repeat(63) + "nn", 128), ("n.".repeat(126) + "n", 128)] {
            let node: NodeName = node.parse().unwrap();
            let instance = instance_of(&node);
            assert!(instance.len() == expect && node.as_str().starts_with(&instance), "{node} {instance}");
        }
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

    #[tokio::test(start_paused = true)]
    async fn a_claim_whose_status_is_refused_keeps_no_other_from_its_own() {
        let server = Server::default();
        let mut counts = server.counts.subscribe();
        let stop = CancellationToken::new();
        let (reports, running) = started(&server, BACKOFF, &stop);
        server.is_away.store(true, Ordering::SeqCst);
        for name in ["denied-first", "failed-first", "later", "latest"] {
            reports.send(of_claim(name, true));
        }
        counts.wait_for(|counts| counts.lost >= 4).await.unwrap();
        server.is_away.store(false, Ordering::SeqCst);
        let taken = counts.wait_for(|counts| counts.claims.len() == 2);
        drop(timeout(BACKOFF * 2, taken).await.expect("the later claims have retries of their own").unwrap());
        let refused = counts.wait_for(|counts| counts.refused >= 6);
        drop(
            timeout(Duration::from_mins(5), refused).await.expect("what a webhook refuses may be taken later").unwrap(),
        );
        stop.cancel();
        running.await.unwrap().unwrap();
    }

    /// As one whose configuration has its keys in another order than the API server would write them.
    #[tokio::test(start_paused = true)]
    async fn the_status_of_a_claim_that_takes_no_apply_is_written_otherwise() {
        let server = Server::default();
        let mut counts = server.counts.subscribe();
        let stop = CancellationToken::new();
        let (reports, running) = started(&server, BACKOFF, &stop);
        reports.send(of_claim("unsorted", true));
        let taken = counts.wait_for(|counts| counts.claims.contains("unsorted"));
        drop(timeout(BACKOFF / 2, taken).await.expect("at once").unwrap());
        stop.cancel();
        running.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn reports_of_many_claims_at_once_are_all_written() {
        let server = Server::default();
        let mut counts = server.counts.subscribe();
        let stop = CancellationToken::new();
        let (reports, running) = started(&server, BACKOFF, &stop);
        for claim in 0..600 {
            reports.send(of_claim(&format!("claim-{claim}"), true));
        }
        let all = counts.wait_for(|counts| counts.claims.len() == 600);
        drop(timeout(Duration::from_mins(5), all).await.expect("nothing is dropped").unwrap());
        stop.cancel();
        running.await.unwrap().unwrap();
    }
}
