// SPDX-License-Identifier: Apache-2.0
//! Tells users what became of a claim: `status.devices` and Events, written after the kubelet has its answer.
//!
//! Reports are a courtesy. They wait in a short queue, never delay a prepare, and are given up (and counted) when the API
//! server is away: the kubelet's own event carries the error text in any case.

use std::collections::BTreeMap;
use std::time::Duration;

use dra_model::{AllocatedDevice, ClaimRef, Disposition, NodeName};
use dra_prepare::{PreparedDevice, PreparedHardware};
use dra_resource::{DeviceStatus, DriverName, LiveIdentity, Readiness, Strategy};
use dra_runtime::chain;
use dra_runtime::tasks::TaskError;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::resource::v1::{AllocatedDeviceStatus, ResourceClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter as EventReporter};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::metrics::Metrics;

/// How many reports may wait.
const QUEUE: usize = 256;

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
    said: BTreeMap<ClaimRef, String>,
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter").field("node", &self.node).finish_non_exhaustive()
    }
}

/// A reporter and the place to hand reports in.
pub fn reporter(client: Client, driver: DriverName, node: NodeName, metrics: Metrics) -> (ReportSender, Reporter) {
    let (sender, queue) = mpsc::channel(QUEUE);
    let events = EventReporter { controller: driver.to_string(), instance: Some(node.to_string()) };
    let recorder = Recorder::new(client.clone(), events);
    let sender = ReportSender { queue: sender, metrics: metrics.clone() };
    (sender, Reporter { queue, client, recorder, driver, node, metrics, said: BTreeMap::new() })
}

impl Reporter {
    /// Runs until `stop` is cancelled; what still waits then is written if the API server answers.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), TaskError> {
        loop {
            let report = tokio::select! {
                report = self.queue.recv() => report,
                () = stop.cancelled() => self.queue.try_recv().ok(),
            };
            let Some(report) = report else { return Ok(()) };
            if timeout(PATIENCE, self.write(report)).await.is_err() {
                self.metrics.report_dropped();
                warn!("unable to write a report: the API server does not answer");
            }
        }
    }

    async fn write(&mut self, report: Report) {
        match report {
            Report::Prepared { claim, devices } => self.prepared(&claim, &devices).await,
            Report::Failed { claim, text, disposition } => self.failed(&claim, text, disposition).await,
        }
    }

    async fn prepared(&mut self, claim: &ClaimRef, devices: &[PreparedDevice]) {
        let names: Vec<&str> = devices.iter().map(|device| device.device.as_str()).collect();
        let note = format!("prepared {} on node {}", names.join(", "), self.node);
        if self.said.remove(claim).is_some() {
            debug!(%claim, "prepared after a failure");
        }
        self.event(claim, EventType::Normal, "DevicesPrepared", note).await;
        self.status(claim, devices).await;
    }

    /// The same failure is said once; the kubelet repeats its own event anyway.
    async fn failed(&mut self, claim: &ClaimRef, text: String, disposition: Disposition) {
        if self.said.get(claim) == Some(&text) {
            return;
        }
        let reason = match disposition {
            Disposition::Permanent => "PrepareRefused",
            Disposition::Busy => "DeviceBusy",
            Disposition::Transient => "PrepareFailed",
        };
        if self.said.len() >= QUEUE {
            self.said.pop_first();
        }
        self.event(claim, EventType::Warning, reason, text.clone()).await;
        self.said.insert(claim.clone(), text);
    }

    async fn event(&self, claim: &ClaimRef, type_: EventType, reason: &str, note: String) {
        let note = note.get(..note.floor_char_boundary(1024)).map(str::to_owned);
        let event = Event { type_, reason: reason.to_owned(), note, action: "Prepare".to_owned(), secondary: None };
        if let Err(error) = self.recorder.publish(&event, &reference(claim)).await {
            self.metrics.report_dropped();
            warn!(%claim, reason, error = %chain(&error), "unable to write an event");
        }
    }

    async fn status(&self, claim: &ClaimRef, devices: &[PreparedDevice]) {
        let entries: Vec<AllocatedDeviceStatus> = devices.iter().map(|device| self.entry(device)).collect();
        let patch = json!({
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceClaim",
            "metadata": {"name": claim.name, "namespace": claim.namespace, "uid": claim.uid.as_str()},
            "status": {"devices": entries},
        });
        let claims: Api<ResourceClaim> = Api::namespaced(self.client.clone(), &claim.namespace);
        let params = PatchParams::apply(self.driver.as_str()).force();
        if let Err(error) = claims.patch_status(&claim.name, &params, &Patch::Apply(&patch)).await {
            self.metrics.report_dropped();
            warn!(%claim, error = %chain(&error), "unable to write status.devices");
        }
    }

    fn entry(&self, device: &PreparedDevice) -> AllocatedDeviceStatus {
        let status = DeviceStatus {
            allocated: &AllocatedDevice {
                request: device.request.clone(),
                pool: device.pool.clone(),
                device: device.device.clone(),
                admin_access: device.admin_access,
                share_id: device.share_id.clone(),
            },
            identity: Some(identity(&device.hardware)),
            strategy: Strategy::Plain,
            readiness: Readiness::Prepared,
            since: Time(Timestamp::now()),
        };
        status.entry(&self.driver)
    }
}

fn identity(hardware: &PreparedHardware) -> LiveIdentity {
    match hardware.clone() {
        PreparedHardware::Gpu { uuid } => LiveIdentity::Gpu { uuid },
        PreparedHardware::Mig { uuid, parent, gpu_instance, compute_instance, profile } => {
            LiveIdentity::Mig { uuid, parent, gpu_instance, compute_instance, profile }
        }
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
