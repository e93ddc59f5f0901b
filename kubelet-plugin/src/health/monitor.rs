// SPDX-License-Identifier: Apache-2.0
//! Judges what is observed on all GPUs, remembers the result on disk, and publishes it.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dra_hardware::{GpuCondition, GpuError, Host, NvmlCode};
use dra_health::{Answer, GpuHealth, Policy, Signal, evicting, hold_back, within_budget};
use dra_model::{Cause, Finding, GpuUuid, Inventory, explain};
use dra_prepare::Engine;
use dra_runtime::tasks::TaskError;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::event_text::EventText;
use crate::health::clear::{Clear, ClearRequests};
use crate::health::metrics::HealthMetrics;
use crate::health::permit::{EvictionPermit, HeldBack};
use crate::health::store::HealthStore;
use crate::health::watch::{Observation, Observed, Watch};
use crate::node_service::{Findings, NodeState};
use crate::registration::ActiveInstance;
use crate::report::Report;
use crate::report_channel::ReportSender;

/// A storm of events from one GPU must not use all memory.
const MAX_WAITING: usize = 256;

#[derive(Debug)]
pub struct HealthMonitor {
    pub host: Arc<Host>,
    pub state: watch::Sender<NodeState>,
    pub store: HealthStore,
    pub requests: ClearRequests,
    pub policy: Policy,
    /// The share of the GPUs of the node whose pods may be evicted at a time; at least one GPU.
    pub eviction_percent: u8,
    /// Of the cluster, if it counts the evicting nodes.
    pub permit: Option<EvictionPermit>,
    /// What has no event, and an event that was lost, is found within this time.
    pub poll_interval: Duration,
    pub reports: ReportSender,
    pub metrics: HealthMetrics,
    /// Refuses claims for GPUs that failed.
    pub engine: Arc<Engine>,
    /// Of two instances of a rolling upgrade only one judges, as only one is called by the kubelet.
    pub active: ActiveInstance,
}

/// What the monitor knows.
#[derive(Debug, Default)]
struct Known {
    gpus: BTreeMap<GpuUuid, GpuHealth>,
    watches: BTreeMap<GpuUuid, Watch>,
    held_back: BTreeMap<GpuUuid, HeldBack>,
    /// The disk did not take it yet.
    is_unsaved: bool,
    /// Another instance judged since it was loaded.
    is_outdated: bool,
}

impl HealthMonitor {
    /// Runs until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), TaskError> {
        let (send, mut observations) = mpsc::channel(MAX_WAITING);
        let mut known = Known { gpus: self.load(), ..Known::default() };
        let mut states = self.state.subscribe();
        let mut polls = interval(self.poll_interval);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.publish(&mut known).await;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = states.changed() => {
                    changed?;
                    let inventory = states.borrow_and_update().inventory.clone();
                    if let Some(inventory) = inventory {
                        self.watch(&mut known, &inventory, &send);
                        self.publish(&mut known).await;
                    }
                }
                Some(first) = observations.recv() => {
                    let mut all = vec![first];
                    while let Ok(next) = observations.try_recv() {
                        all.push(next);
                    }
                    if self.is_active(&mut known).await {
                        self.judge(&mut known, all).await;
                    }
                }
                _ = polls.tick() => {
                    if self.is_active(&mut known).await {
                        self.clear(&mut known);
                        if known.is_unsaved {
                            self.save(&mut known);
                        }
                        // A grace may have ended.
                        self.publish(&mut known).await;
                        self.poll(&known, &send);
                    }
                }
            }
        }
    }

    /// An instance that the kubelet does not call leaves the judgement to the other one, and continues from what that one saved.
    async fn is_active(&mut self, known: &mut Known) -> bool {
        if self.active.is_superseded() {
            known.is_outdated = true;
            return false;
        }
        if std::mem::take(&mut known.is_outdated) {
            known.gpus = self.load();
            self.publish(known).await;
        }
        true
    }

    fn load(&self) -> BTreeMap<GpuUuid, GpuHealth> {
        self.store.load().unwrap_or_else(|failed| {
            let error = dra_model::chain(&failed).to_string();
            error!(error, "the health of the GPUs is judged anew");
            self.reports.send_about_node(EventText::HealthLost { error });
            BTreeMap::new()
        })
    }

    /// A disk that does not take it delays no taint; the next poll tries again.
    fn save(&self, known: &mut Known) {
        let saved = self.store.save(&lasting(&known.gpus));
        known.is_unsaved = saved.is_err();
        if let Err(failed) = saved {
            error!(error = %dra_model::chain(&failed), "the health of the GPUs is not on disk, will retry");
        }
    }

    /// Starts a thread for each GPU that has none, and ends those of GPUs that are gone.
    fn watch(&self, known: &mut Known, inventory: &Inventory, observations: &mpsc::Sender<Observation>) {
        let present: BTreeSet<&GpuUuid> = inventory.known_gpus().map(|(gpu, _)| &gpu.uuid).collect();
        known.watches.retain(|gpu, _| present.contains(gpu));
        for gpu in present {
            if known.watches.contains_key(gpu) {
                continue;
            }
            match Watch::start(Arc::clone(&self.host), gpu.clone(), observations.clone()) {
                Ok(started) => drop(known.watches.insert(gpu.clone(), started)),
                Err(error) => warn!(%gpu, %error, "failed to start a thread for the events of the GPU, will retry"),
            }
        }
    }

    /// Carries out the requests of administrators. One that the disk does not take changes nothing, and waits.
    fn clear(&self, known: &mut Known) {
        for request in self.requests.list() {
            let is_meant = |gpu: &GpuUuid| match &request {
                Clear::Gpu(wanted) => wanted == gpu,
                Clear::All => true,
            };
            let (cleared, left): (BTreeMap<_, _>, BTreeMap<_, _>) =
                known.gpus.clone().into_iter().partition(|(gpu, health)| is_meant(gpu) && !health.is_blank());
            if let Err(failed) = self.store.save(&lasting(&left)) {
                error!(error = %dra_model::chain(&failed), "GPUs are not cleared, because the disk does not take it; will retry");
                return;
            }
            known.gpus = left;
            self.requests.remove(&request);
            if cleared.is_empty() {
                info!(%request, "no fault is known that an administrator could clear");
            }
            for gpu in cleared.into_keys() {
                info!(%gpu, "an administrator cleared the GPU");
                self.reports.send_about_node(EventText::GpuCleared { gpu });
            }
        }
    }

    /// Asks every GPU for its condition, side by side. A GPU that hangs delays no other.
    fn poll(&self, known: &Known, observations: &mpsc::Sender<Observation>) {
        for gpu in known.watches.keys().cloned() {
            let (host, observations) = (Arc::clone(&self.host), observations.clone());
            spawn_blocking(move || {
                let kind = Observed::Condition(host.condition(&gpu));
                observations.try_send(Observation { gpu, kind }).ok();
            });
        }
    }

    async fn judge(&mut self, known: &mut Known, observations: Vec<Observation>) {
        // Without it nothing distinguishes a fault of this boot from one of an earlier boot.
        let Ok(boot_id) = self.host.boot_id() else { return error!("the boot ID cannot be read, so no GPU is judged") };
        let now = seconds();
        let before = known.gpus.clone();
        let inventory = self.host.latest();
        for Observation { gpu, kind } in observations {
            self.measure(&gpu, &kind, &inventory);
            for signal in signals(kind) {
                known.gpus.entry(gpu.clone()).or_default().observe(signal, now, &boot_id);
            }
        }
        if known.gpus != before {
            // What is published is on disk first: a restart must not forget it.
            if lasting(&known.gpus) != lasting(&before) {
                self.save(known);
            }
            self.publish(known).await;
        }
    }

    fn measure(&self, gpu: &GpuUuid, kind: &Observed, inventory: &Inventory) {
        let device = || inventory.names().gpu(gpu);
        if let Observed::Xid { xid, .. } = kind {
            self.metrics.xid(device(), *xid);
        }
        let condition = match kind {
            Observed::Condition(condition) => Some(condition),
            Observed::Xid { condition, .. } => condition.as_ref(),
        };
        if let Some(Ok(GpuCondition { recovery_action: Some(action), .. })) = condition {
            self.metrics.recovery_action(device(), *action);
        }
    }

    /// Publishes the findings if they changed, and reports what began and what is over.
    async fn publish(&mut self, known: &mut Known) {
        let now = seconds();
        let of_gpu = |(gpu, health): (&GpuUuid, &GpuHealth)| (gpu.clone(), health.findings(now, &self.policy));
        let mut findings: Findings = known.gpus.iter().map(of_gpu).filter(|(_, all)| !all.is_empty()).collect();
        // A prepare waits for no budget.
        self.engine.set_findings(Arc::new(findings.clone()));
        let Some(inventory) = self.state.borrow().inventory.clone() else {
            // How many GPUs the node has, and so what may be evicted, is not known yet.
            return;
        };
        // A GPU that was removed takes no place of the budget.
        let is_present = |gpu: &GpuUuid| inventory.gpus.iter().any(|entry| entry.uuid() == Some(gpu));
        let absent: Findings = findings.extract_if(.., |gpu, _| !is_present(gpu)).collect();
        let held_back = self.hold_back(&mut findings, inventory.gpus.len()).await;
        findings.extend(absent);
        self.metrics.findings(&inventory, &findings, &held_back);
        self.report_held_back(&known.held_back, &held_back);
        known.held_back = held_back;
        let mut before = None;
        self.state.send_if_modified(|state| {
            let is_first = !std::mem::replace(&mut state.is_judged, true);
            if *state.findings != findings {
                before = Some(std::mem::replace(&mut state.findings, Arc::new(findings.clone())));
            }
            is_first || before.is_some()
        });
        if let Some(before) = before {
            self.report(&before, &findings);
        }
    }

    /// Weakens what exceeds the budgets of the node and of the cluster. Returns the GPUs whose pods stay, with the reason.
    async fn hold_back(&mut self, findings: &mut Findings, gpus: usize) -> BTreeMap<GpuUuid, HeldBack> {
        let beyond = within_budget(findings, gpus, self.eviction_percent.into());
        let mut held_back: BTreeMap<_, _> = beyond.into_iter().map(|gpu| (gpu, HeldBack::Node)).collect();
        let Some(permit) = &mut self.permit else { return held_back };
        let evicting = evicting(findings);
        if evicting.is_empty() {
            permit.end();
        } else if let Err(reason) = permit.request().await {
            hold_back(findings, &evicting);
            held_back.extend(evicting.into_iter().map(|gpu| (gpu, reason.clone())));
        }
        held_back
    }

    fn report_held_back(&self, before: &BTreeMap<GpuUuid, HeldBack>, now: &BTreeMap<GpuUuid, HeldBack>) {
        // An error in other words is not reported again.
        let is_new = |gpu: &GpuUuid, reason: &HeldBack| before.get(gpu).map(discriminant) != Some(discriminant(reason));
        for (gpu, reason) in now.iter().filter(|(gpu, reason)| is_new(gpu, reason)) {
            warn!(%gpu, %reason, "pods of the GPU are not evicted");
            self.reports.send_about_node(EventText::EvictionHeldBack { gpu: gpu.clone(), reason: reason.clone() });
        }
    }

    fn report(&self, before: &Findings, after: &Findings) {
        let mut texts = Vec::new();
        for (gpu, finding) in others(after, before) {
            warn!(%gpu, cause = %finding.cause, value = finding.value, effect = %finding.effect, "{}", finding.message);
            let (cause, message, effect) = (finding.cause, finding.message.clone(), finding.effect);
            texts.push((gpu.clone(), EventText::GpuFault { gpu: gpu.clone(), cause, message, effect }));
        }
        let is_over =
            |gpu: &GpuUuid, cause: Cause| after.get(gpu).is_none_or(|all| all.iter().all(|one| one.cause != cause));
        for (gpu, finding) in others(before, after).filter(|(gpu, finding)| is_over(gpu, finding.cause)) {
            info!(%gpu, cause = %finding.cause, "the GPU is well again");
            let message = finding.message.clone();
            texts.push((gpu.clone(), EventText::GpuRecovered { gpu: gpu.clone(), message }));
        }
        for (_, text) in &texts {
            self.reports.send_about_node(text.clone());
        }
        let (engine, reports) = (Arc::clone(&self.engine), self.reports.clone());
        spawn_blocking(move || report_on_claims(&engine, &reports, texts));
    }
}

/// Status and Events of the claims on the GPUs, whose records are on disk.
fn report_on_claims(engine: &Engine, reports: &ReportSender, texts: Vec<(GpuUuid, EventText)>) {
    let claims = match engine.claims() {
        Ok(claims) => claims,
        Err(failed) => {
            return error!(error = explain(&failed), "the claims get no Event about the health of their GPUs");
        }
    };
    for (gpu, text) in texts {
        let on_gpu = claims.iter().filter(|(_, devices)| devices.iter().any(|device| device.identity.gpu() == &gpu));
        for (claim, devices) in on_gpu.cloned() {
            reports.send(Report::Health { claim, devices, gpu: gpu.clone(), text: text.clone() });
        }
    }
}

/// The findings that only the first has.
fn others<'a>(one: &'a Findings, other: &'a Findings) -> impl Iterator<Item = (&'a GpuUuid, &'a Finding)> {
    let is_new = |gpu: &GpuUuid, finding: &Finding| !other.get(gpu).is_some_and(|all| all.contains(finding));
    one.iter()
        .flat_map(|(gpu, all)| all.iter().map(move |finding| (gpu, finding)))
        .filter(move |(gpu, finding)| is_new(gpu, finding))
}

/// An XID whose recovery action cannot be read is judged by the catalogue.
fn signals(kind: Observed) -> Vec<Signal> {
    match kind {
        Observed::Condition(condition) => of_condition(condition).into_iter().collect(),
        Observed::Xid { xid, scope, condition } => {
            let action = condition.as_ref().and_then(|condition| condition.as_ref().ok()?.recovery_action);
            let of_xid = Signal::Xid { xid, scope, recovery_action: action };
            // An answer right after the XID proves nothing.
            let failed = condition.and_then(of_condition).filter(|signal| !matches!(signal, Signal::Answers(_)));
            [of_xid].into_iter().chain(failed).collect()
        }
    }
}

fn of_condition(condition: Result<GpuCondition, GpuError>) -> Option<Signal> {
    const TIMEOUT: NvmlCode = NvmlCode(10);
    const GPU_IS_LOST: NvmlCode = NvmlCode(15);
    const RESET_REQUIRED: NvmlCode = NvmlCode(16);
    match condition {
        Ok(GpuCondition { recovery_action, is_remap_pending, has_remap_failed, is_fabric_pending, slowdown }) => {
            let answer = Answer { recovery_action, is_remap_pending, has_remap_failed, is_fabric_pending, slowdown };
            Some(Signal::Answers(answer))
        }
        Err(GpuError::Failed { code: GPU_IS_LOST, .. }) => Some(Signal::Lost),
        Err(GpuError::Failed { code: RESET_REQUIRED, .. }) => Some(Signal::ResetRequired),
        Err(GpuError::Failed { code: TIMEOUT, .. }) => Some(Signal::Silent),
        // The driver is reloaded, or has never answered this: no judgement of the GPU.
        Err(error) => {
            tracing::debug!(error = explain(&error), "the condition of a GPU is unknown");
            None
        }
    }
}

/// What is stored of all GPUs.
fn lasting(gpus: &BTreeMap<GpuUuid, GpuHealth>) -> BTreeMap<GpuUuid, GpuHealth> {
    gpus.iter().map(|(gpu, health)| (gpu.clone(), health.lasting())).collect()
}

/// Since 1970.
pub(crate) fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
