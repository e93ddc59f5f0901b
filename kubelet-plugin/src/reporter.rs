// SPDX-License-Identifier: Apache-2.0
//! Writes `status.devices` and Events about claims after the kubelet has its answer.
//!
//! Reports never delay a prepare: while a call of the kubelet is in flight they wait, because prepares read from the same API
//! server. An Event that the API server does not accept is dropped and counted, because the Event of the kubelet has the error
//! too. A status is retried until the API server accepts it, for each claim with a back-off of its own.

use std::sync::Arc;
use std::time::Duration;

use dra_model::chain;
use dra_model::{ClaimRef, DaemonId, NodeName, explain, worst};
use dra_prepare::PreparedDevice;
use dra_resource::{Consumer, DeviceStatus, DriverName, SharingStatus};
use dra_runtime::tasks::TaskError;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::events::{Event, Recorder, Reporter as EventReporter};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::claim_api::{ClaimApi, StatusWrite};
use crate::daemon_states::DaemonStates;
use crate::event_text::{self, EventText, MAX_NOTE_BYTES};
use crate::metrics::Metrics;
use crate::node_service::{Findings, NodeState};
use crate::outbox::{Due, PendingEvent};
use crate::report_channel::{Next, ReportReceiver, ReportSender, report_channel};
use crate::{mps_warning, sharing_status};

/// The delay after the first failure to write the status of a claim; it grows with each further failure in a row.
pub const FIRST_BACKOFF: Duration = Duration::from_secs(5);

/// The time without a call of the kubelet after which a report is written.
const IDLE_INTERVAL: Duration = Duration::from_millis(20);

/// The longest time that a report waits for calls of the kubelet.
const MAX_DELAY: Duration = Duration::from_secs(1);

/// For one Event or one status.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// The characters of `reportingInstance` (`ReportingInstanceLengthLimit` of Kubernetes).
const MAX_INSTANCE_LENGTH: usize = 128;

/// The text of a failure without an error.
const NO_ANSWER: &str = "the API server does not respond";

/// Writes reports to the API server.
pub struct Reporter {
    reports: ReportReceiver,
    /// While the process stops, reports do not wait for calls.
    stopping: bool,
    claims: ClaimApi,
    /// The reporter of Events.
    events: EventReporter,
    driver: DriverName,
    node: NodeName,
    /// Has the inventory with the product names.
    state: watch::Receiver<NodeState>,
    daemon_states: watch::Receiver<DaemonStates>,
    metrics: Metrics,
}

/// The result of writing a status.
enum Written {
    /// The API server has the status, or the claim no longer exists.
    Done,
    /// A retry may succeed.
    Failed(String),
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter").field("node", &self.node).finish_non_exhaustive()
    }
}

/// A reporter and the sender of its reports. `backoff` is the delay after the first failure to write a status.
pub fn reporter(
    claims: ClaimApi,
    driver: DriverName,
    node: NodeName,
    state: watch::Receiver<NodeState>,
    daemon_states: watch::Receiver<DaemonStates>,
    metrics: Metrics,
    backoff: Duration,
) -> (ReportSender, Reporter) {
    let (sender, reports) = report_channel(metrics.clone(), backoff);
    let events = EventReporter { controller: format!("{driver}/kubelet-plugin"), instance: Some(instance_of(&node)) };
    let reporter = Reporter { reports, stopping: false, claims, events, driver, node, state, daemon_states, metrics };
    (sender, reporter)
}

/// The `reportingInstance` of a node, whose name may have 253 characters. The admission policy of the chart shortens the name
/// in the same way.
fn instance_of(node: &NodeName) -> String {
    node.as_str().chars().take(MAX_INSTANCE_LENGTH).collect()
}

impl Reporter {
    /// Runs until `stop` is cancelled. Reports that are due then are written within [`WRITE_TIMEOUT`].
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), TaskError> {
        loop {
            let next = tokio::select! {
                () = stop.cancelled() => break,
                next = self.reports.next() => next,
            };
            match next {
                Some(Next::Claim(due)) => self.write(due).await,
                Some(Next::Node(text)) => {
                    self.wait_for_calls().await;
                    self.event(&self.own_node(), &text).await;
                }
                None => break,
            }
        }
        self.stopping = true;
        let last = async {
            while let Some(due) = self.reports.take_due() {
                self.write(due).await;
            }
        };
        if timeout(WRITE_TIMEOUT, last).await.is_err() {
            warn!(error = NO_ANSWER, "failed to write the last reports before the process stops");
        }
        Ok(())
    }

    async fn write(&mut self, due: Due) {
        let Due { claim, status, events } = due;
        if let Some(devices) = status {
            self.wait_for_calls().await;
            if events.iter().any(|event| matches!(event, PendingEvent::Prepared(_))) {
                self.wait_for_daemon_states(&devices).await;
            }
            match self.status(&claim, &devices).await {
                Written::Done => self.reports.is_written(&claim),
                Written::Failed(why) => match self.reports.is_not_written(&claim, devices) {
                    0 | 1 => warn!(%claim, error = why, "failed to write status.devices, will retry"),
                    times => debug!(%claim, error = why, times, "failed to write status.devices, will retry"),
                },
            }
        }
        for event in events {
            self.wait_for_calls().await;
            self.record(&claim, event).await;
        }
    }

    async fn record(&self, claim: &ClaimRef, event: PendingEvent) {
        let about = &reference(claim);
        match event {
            PendingEvent::Prepared(devices) => {
                let inventory = self.state.borrow().inventory.clone();
                let prepared = event_text::devices_prepared(&devices, inventory.as_deref(), &self.node);
                self.event(about, &prepared).await;
                for warning in mps_warning::of_requests(&devices) {
                    self.event(about, &warning).await;
                }
            }
            PendingEvent::Failed { text, on_node } => {
                if let Some(on_node) = on_node {
                    self.event(&self.own_node(), &on_node).await;
                }
                self.event(about, &text).await;
            }
            PendingEvent::Health(text) => {
                self.event(about, &text).await;
                for pod in self.claims.consumers().of(claim) {
                    self.event(&pod_reference(claim, pod), &text).await;
                }
            }
            PendingEvent::Text(text) => self.event(about, &text).await,
        }
    }

    /// Waits until no call is in flight and its answer has reached the kubelet, at most [`MAX_DELAY`].
    async fn wait_for_calls(&mut self) {
        if self.stopping {
            return;
        }
        let idle = async {
            // Without a sender no call can start, so there is nothing to wait for.
            while self.reports.calls.wait_for(|calls| *calls == 0).await.is_ok() {
                let Ok(Ok(())) = timeout(IDLE_INTERVAL, self.reports.calls.changed()).await else { return };
            }
        };
        timeout(MAX_DELAY, idle).await.unwrap_or_default();
    }

    /// Waits until the MPS host has reported the daemons that were started for these devices. There is no wait while the MPS
    /// host is unreachable: the status is written again when it responds.
    async fn wait_for_daemon_states(&mut self, devices: &[PreparedDevice]) {
        let ids: Vec<&DaemonId> = devices.iter().filter_map(sharing_status::daemon).collect();
        let are_known =
            |states: &DaemonStates| !states.is_connected || ids.iter().all(|id| states.daemons.contains_key(*id));
        // After the timeout the status has no daemon.
        drop(timeout(MAX_DELAY, self.daemon_states.wait_for(are_known)).await);
    }

    async fn event(&self, about: &ObjectReference, text: &EventText) {
        let (note, reason) = (text.note(), text.reason());
        let event = Event {
            type_: text.event_type(),
            reason: reason.to_owned(),
            note: note.get(..note.floor_char_boundary(MAX_NOTE_BYTES)).map(str::to_owned),
            action: text.action().to_owned(),
            secondary: None,
        };
        // A recorder with a history would count an Event with another note as a repetition of the last one with that reason.
        let recorder = Recorder::new(self.claims.client(), self.events.clone());
        let object = [&about.namespace, &about.name].map(|part| part.as_deref().unwrap_or_default()).join("/");
        match timeout(WRITE_TIMEOUT, recorder.publish(&event, about)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                self.metrics.report_dropped();
                warn!(object, reason, error = %chain(&error), "failed to record an Event");
            }
            Err(_elapsed) => {
                self.metrics.report_dropped();
                warn!(object, reason, error = NO_ANSWER, "failed to record an Event");
            }
        }
    }

    /// As the kubelet refers to a Node in Events, with its name as UID.
    fn own_node(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(self.node.to_string()),
            uid: Some(self.node.to_string()),
            ..ObjectReference::default()
        }
    }

    async fn status(&self, claim: &ClaimRef, devices: &[PreparedDevice]) -> Written {
        let states = self.daemon_states.borrow().clone();
        let sharing: Vec<SharingStatus> =
            devices.iter().map(|device| sharing_status::status(device, &states)).collect();
        let findings = Arc::clone(&self.state.borrow().findings);
        let statuses: Vec<DeviceStatus<'_>> =
            devices.iter().zip(&sharing).map(|(device, sharing)| status(device, sharing, &findings)).collect();
        match timeout(WRITE_TIMEOUT, self.claims.write_status(claim, &self.driver, &statuses)).await {
            Ok(Ok(StatusWrite::Written)) => Written::Done,
            Ok(Ok(StatusWrite::Outdated)) => {
                debug!(%claim, "status.devices is not written, because the claim no longer has these devices");
                Written::Done
            }
            Ok(Ok(StatusWrite::Refused(why))) => {
                warn!(%claim, error = why, "failed to write status.devices: the API server refuses it for this claim");
                Written::Done
            }
            Ok(Err(error)) => Written::Failed(explain(&error)),
            Err(_elapsed) => Written::Failed(NO_ANSWER.to_owned()),
        }
    }
}

fn status<'a>(device: &'a PreparedDevice, sharing: &'a SharingStatus, findings: &'a Findings) -> DeviceStatus<'a> {
    let of_gpu = findings.get(device.identity.gpu()).map_or(&[][..], Vec::as_slice);
    DeviceStatus {
        pool: &device.pool,
        device: &device.device,
        share_id: device.share_id.as_ref(),
        identity: &device.identity,
        sharing,
        finding: worst(of_gpu, device.identity.placement()),
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

/// A pod of a claim.
fn pod_reference(claim: &ClaimRef, Consumer { pod, uid }: Consumer) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(claim.namespace.clone()),
        name: Some(pod),
        uid: Some(uid),
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

    /// An API server for statuses of claims only. Its webhooks deny and fail the statuses of claims with names that begin so,
    /// and it accepts no apply for claims that are unsorted. A claim may be large, so the server accepts no request that asks
    /// for the claim as answer, and its answers cannot be parsed.
    #[derive(Clone, Default)]
    struct Server {
        is_unreachable: Arc<AtomicBool>,
        counts: watch::Sender<Counts>,
    }

    #[derive(Debug, Clone, Default, PartialEq, Eq)]
    struct Counts {
        lost: u32,
        refused: u32,
        accepted: u32,
        /// The claims whose statuses were accepted.
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
            let unreachable = || ready(Err(io::ErrorKind::ConnectionRefused.into()));
            let Some((_, path)) = request.uri().path().rsplit_once("/resourceclaims/") else { return unreachable() };
            if self.is_unreachable.load(Ordering::SeqCst) {
                self.counts.send_modify(|counts| counts.lost += 1);
                return unreachable();
            }
            if request.method() == Method::GET && path.starts_with("unsorted") {
                return ready(Ok(Response::new(Body::from(CLAIM.to_vec()))));
            }
            let (&Method::PATCH, Some(claim), true) =
                (request.method(), path.strip_suffix("/status"), asks_for_metadata(&request))
            else {
                return unreachable();
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
                counts.accepted += 1;
                counts.claims.insert(claim.to_owned());
            });
            ready(Ok(Response::new(Body::from(b"never parsed".to_vec()))))
        }
    }

    fn asks_for_metadata(request: &Request<Body>) -> bool {
        let accepted = request.headers().get("accept").and_then(|value| value.to_str().ok());
        accepted == Some("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")
    }

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
        let (_, daemon_states) = watch::channel(DaemonStates::default());
        let (driver, node) = ("gpu.nvidia.com".parse().unwrap(), "node-1".parse().unwrap());
        let metrics = Metrics::register(&mut Registry::default());
        let client = Client::new(server.clone(), "default");
        let claims = ClaimApi::new(client);
        let (reports, reporter) = reporter(claims, driver, node, state, daemon_states, metrics, backoff);
        (reports, tokio::spawn(reporter.run(stop.clone())))
    }

    #[test]
    fn the_reporting_instance_of_any_node_is_short_enough() {
        for (node, expect) in [("node-1".to_owned(), 6), ("n.".repeat(63) + "nn", 128), ("n.".repeat(126) + "n", 128)] {
            let node: NodeName = node.parse().unwrap();
            let instance = instance_of(&node);
            assert!(instance.len() == expect && node.as_str().starts_with(&instance), "{node} {instance}");
        }
    }

    #[tokio::test]
    async fn a_status_that_failed_is_written_once_when_the_api_server_responds_again() {
        let server = Server::default();
        let mut counts = server.counts.subscribe();
        let stop = CancellationToken::new();
        let (reports, running) = started(&server, Duration::from_millis(5), &stop);
        server.is_unreachable.store(true, Ordering::SeqCst);
        reports.send(prepared(true));
        counts.wait_for(|counts| counts.lost > 2).await.unwrap();
        server.is_unreachable.store(false, Ordering::SeqCst);
        counts.wait_for(|counts| counts.accepted > 0).await.unwrap();
        reports.send(prepared(false));
        stop.cancel();
        running.await.unwrap().unwrap();
        assert_eq!(counts.borrow().accepted, 1, "a written status is not written again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_report_waits_for_calls_of_the_kubelet_for_a_limited_time() {
        let server = Server::default();
        let mut counts = server.counts.subscribe();
        let stop = CancellationToken::new();
        let (reports, running) = started(&server, Duration::from_mins(1), &stop);

        let (first, second) = (reports.start_call(), reports.start_call());
        reports.send(prepared(true));
        drop(first);
        tokio::time::sleep(MAX_DELAY / 2).await;
        assert_eq!(counts.borrow().accepted, 0, "another call is in flight");
        drop(second);
        let began = tokio::time::Instant::now();
        counts.wait_for(|counts| counts.accepted == 1).await.unwrap();
        assert!(began.elapsed() < MAX_DELAY / 10, "no call is in flight");

        let _endless = reports.start_call();
        let Report::Prepared { mut claim, devices, is_new } = prepared(true) else { unreachable!() };
        claim.uid = "v".parse().unwrap();
        reports.send(Report::Prepared { claim, devices, is_new });
        counts.wait_for(|counts| counts.accepted == 2).await.unwrap();
        stop.cancel();
        running.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_status_delays_no_other_claim() {
        let server = Server::default();
        let mut counts = server.counts.subscribe();
        let stop = CancellationToken::new();
        let (reports, running) = started(&server, FIRST_BACKOFF, &stop);
        server.is_unreachable.store(true, Ordering::SeqCst);
        for name in ["denied-first", "failed-first", "later", "latest"] {
            reports.send(of_claim(name, true));
        }
        counts.wait_for(|counts| counts.lost >= 4).await.unwrap();
        server.is_unreachable.store(false, Ordering::SeqCst);
        let accepted = counts.wait_for(|counts| counts.claims.len() == 2);
        drop(timeout(FIRST_BACKOFF * 2, accepted).await.expect("the later claims have retries of their own").unwrap());
        let refused = counts.wait_for(|counts| counts.refused >= 6);
        drop(
            timeout(Duration::from_mins(5), refused)
                .await
                .expect("a status that a webhook refuses is retried")
                .unwrap(),
        );
        stop.cancel();
        running.await.unwrap().unwrap();
    }

    /// Such a claim has a configuration whose keys are not in the order in which the API server writes them.
    #[tokio::test(start_paused = true)]
    async fn the_status_of_a_claim_that_refuses_an_apply_is_written_by_a_json_patch() {
        let server = Server::default();
        let mut counts = server.counts.subscribe();
        let stop = CancellationToken::new();
        let (reports, running) = started(&server, FIRST_BACKOFF, &stop);
        reports.send(of_claim("unsorted", true));
        let accepted = counts.wait_for(|counts| counts.claims.contains("unsorted"));
        drop(timeout(FIRST_BACKOFF / 2, accepted).await.expect("at once").unwrap());
        stop.cancel();
        running.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn reports_of_many_claims_at_once_are_all_written() {
        let server = Server::default();
        let mut counts = server.counts.subscribe();
        let stop = CancellationToken::new();
        let (reports, running) = started(&server, FIRST_BACKOFF, &stop);
        for claim in 0..600 {
            reports.send(of_claim(&format!("claim-{claim}"), true));
        }
        let all = counts.wait_for(|counts| counts.claims.len() == 600);
        drop(timeout(Duration::from_mins(5), all).await.expect("nothing is dropped").unwrap());
        stop.cancel();
        running.await.unwrap().unwrap();
    }
}
