// SPDX-License-Identifier: Apache-2.0
//! Tells users what became of a claim: `status.devices` and Events, written after the kubelet has its answer.
//!
//! Reports wait in a short queue and never delay a prepare. An Event is given up (and counted) when the API server is away,
//! since the kubelet's own event carries the error text in any case; a status is owed until the API server takes it.

use std::collections::BTreeMap;
use std::time::Duration;

use dra_model::{AllocatedDevice, ClaimRef, Disposition, NodeName};
use dra_prepare::PreparedDevice;
use dra_resource::status::apply_patch;
use dra_resource::{DeviceStatus, DriverName, Strategy};
use dra_runtime::chain;
use dra_runtime::tasks::TaskError;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter as EventReporter};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::metrics::Metrics;

/// How many reports may wait, and how many claims are remembered.
const MOST: usize = 256;

/// How often a status that is owed is tried.
const RETRY: Duration = Duration::from_secs(5);

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// One thing to tell.
#[derive(Debug, Clone)]
pub enum Report {
    /// The claim can be used.
    Prepared {
        /// The claim.
        claim: ClaimRef,
        /// Its devices and what they are in this incarnation.
        devices: Vec<PreparedDevice>,
    },
    /// The claim could not be prepared.
    Failed {
        /// The claim.
        claim: ClaimRef,
        /// The sentence the pod's event shows as well.
        text: String,
        /// Gives the Event its reason.
        disposition: Disposition,
    },
}

/// Where reports are handed in.
#[derive(Debug, Clone)]
pub struct ReportSender {
    queue: mpsc::Sender<Report>,
    metrics: Metrics,
}

impl ReportSender {
    /// Hands a report in, or gives it up when too many wait.
    pub fn send(&self, report: Report) {
        if self.queue.try_send(report).is_err() {
            self.metrics.report_dropped();
        }
    }
}

/// Writes reports to the API server.
pub struct Reporter {
    queue: mpsc::Receiver<Report>,
    client: Client,
    recorder: Recorder,
    driver: DriverName,
    node: NodeName,
    metrics: Metrics,
    /// What was said of a claim last; the same is not said twice.
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

/// A reporter and the place to hand reports in.
pub fn reporter(client: Client, driver: DriverName, node: NodeName, metrics: Metrics) -> (ReportSender, Reporter) {
    let (sender, queue) = mpsc::channel(MOST);
    let events = EventReporter { controller: driver.to_string(), instance: Some(node.to_string()) };
    let recorder = Recorder::new(client.clone(), events);
    let sender = ReportSender { queue: sender, metrics: metrics.clone() };
    let (said, owed) = (BTreeMap::new(), BTreeMap::new());
    (sender, Reporter { queue, client, recorder, driver, node, metrics, said, owed })
}

impl Reporter {
    /// Runs until `stop` is cancelled; what still waits then is written if the API server answers soon.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), TaskError> {
        let mut retries = interval(RETRY);
        retries.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = retries.tick() => self.retry().await,
                report = self.queue.recv() => match report {
                    Some(report) => self.write(report).await,
                    None => break,
                },
            }
        }
        let last = async {
            while let Ok(report) = self.queue.try_recv() {
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
            Report::Prepared { claim, devices } => self.prepared(claim, devices).await,
            Report::Failed { claim, text, disposition } => self.failed(claim, text, disposition).await,
        }
    }

    async fn prepared(&mut self, claim: ClaimRef, devices: Vec<PreparedDevice>) {
        if self.said.get(&claim).is_some_and(|said| matches!(said, Said::Prepared(before) if *before == devices)) {
            return;
        }
        self.status(&claim, &devices).await;
        let names: Vec<&str> = devices.iter().map(|device| device.device.as_str()).collect();
        let note = format!("prepared {} on node {}", names.join(", "), self.node);
        self.event(&claim, EventType::Normal, "DevicesPrepared", note).await;
        self.remember(claim, Said::Prepared(devices));
    }

    /// The same failure is said once; the kubelet repeats its own event anyway.
    async fn failed(&mut self, claim: ClaimRef, text: String, disposition: Disposition) {
        let said = Said::Failed(text.clone());
        if self.said.get(&claim) == Some(&said) {
            return;
        }
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
        let note = note.get(..note.floor_char_boundary(1024)).map(str::to_owned);
        let event = Event { type_, reason: reason.to_owned(), note, action: "Prepare".to_owned(), secondary: None };
        match timeout(PATIENCE, self.recorder.publish(&event, &reference(claim))).await {
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
        let allocated: Vec<AllocatedDevice> = devices.iter().map(allocated).collect();
        let statuses: Vec<DeviceStatus<'_>> =
            devices.iter().zip(&allocated).map(|(device, allocated)| status(device, allocated)).collect();
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
            self.status(&claim, &devices).await;
            if self.owed.contains_key(&claim) {
                return;
            }
        }
    }
}

fn allocated(device: &PreparedDevice) -> AllocatedDevice {
    AllocatedDevice {
        request: device.request.clone(),
        pool: device.pool.clone(),
        device: device.device.clone(),
        admin_access: device.admin_access,
        share_id: device.share_id.clone(),
    }
}

fn status<'a>(device: &'a PreparedDevice, allocated: &'a AllocatedDevice) -> DeviceStatus<'a> {
    DeviceStatus { allocated, identity: &device.identity, strategy: Strategy::Plain, since: Time(Timestamp::now()) }
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
