// SPDX-License-Identifier: Apache-2.0
//! Events about the Node: each problem that prevents a GPU or a part of it from being published, once per change.

use std::collections::BTreeMap;

use dra_model::chain;
use dra_model::{Device, DriverState, Failure, Fault, Gpu, GpuEntry, Inventory, MigMode, NodeName};
use dra_resource::{DriverName, Form, Offer};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use tracing::{info, warn};

use crate::cluster::Cluster;
use crate::feature_support::{FeatureSupport, GatedFields};
use crate::repeated_failures::RepeatedFailures;

/// Limit of `events.k8s.io/v1` in bytes.
const MAX_NOTE_BYTES: usize = 1024;

/// The problems of a node, by subject.
pub(crate) type Problems = BTreeMap<String, Problem>;

/// Why something is not published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    reason: &'static str,
    recovered: &'static str,
    note: String,
}

/// Reports the problems of a node as Events, and records the reported ones.
#[derive(Debug)]
pub struct NodeEvents {
    driver: DriverName,
    node: NodeName,
    reported: Problems,
    failures: RepeatedFailures,
}

impl NodeEvents {
    pub fn new(driver: DriverName, node: NodeName) -> Self {
        Self { driver, node, reported: Problems::new(), failures: RepeatedFailures::default() }
    }

    /// Reports the changes since the last call; false if an Event could not be recorded and the call must be repeated.
    pub(crate) async fn report(&mut self, cluster: &Cluster, node_uid: &str, now: Problems) -> bool {
        let mut all_reported = true;
        for (subject, problem) in &now {
            if self.reported.get(subject) != Some(problem) {
                let event = self.event(node_uid, "Warning", problem.reason, &problem.note);
                all_reported &= self.post(cluster, event, subject, Some(problem)).await;
            }
        }
        let resolved: Vec<(String, Problem)> = self
            .reported
            .iter()
            .filter(|(subject, _)| !now.contains_key(*subject))
            .map(|(s, t)| (s.clone(), t.clone()))
            .collect();
        for (subject, problem) in resolved {
            let event = self.event(node_uid, "Normal", problem.recovered, &format!("Resolved: {}", problem.note));
            all_reported &= self.post(cluster, event, &subject, None).await;
        }
        all_reported
    }

    /// Records one Event and the state of its subject, unless the request must be repeated.
    async fn post(&mut self, cluster: &Cluster, event: Event, subject: &str, problem: Option<&Problem>) -> bool {
        let reason = event.reason.clone().unwrap_or_default();
        match cluster.post_event(&event).await {
            Ok(()) => {
                self.failures.recovered();
                info!(reason, subject, "recorded an Event about the node");
            }
            Err(error) if error.is_final() => {
                warn!(reason, subject, error = %chain(&error), "the API server refused an Event about the node");
            }
            Err(error) => {
                let error = chain(&error).to_string();
                if self.failures.should_log(&error) {
                    warn!(reason, subject, error, "failed to record an Event about the node; retrying");
                }
                return false;
            }
        }
        match problem {
            Some(problem) => drop(self.reported.insert(subject.to_owned(), problem.clone())),
            None => drop(self.reported.remove(subject)),
        }
        true
    }

    fn event(&self, node_uid: &str, kind: &str, reason: &str, note: &str) -> Event {
        Event {
            metadata: ObjectMeta { generate_name: Some("gpu-controller-".to_owned()), ..ObjectMeta::default() },
            event_time: Some(MicroTime(Timestamp::now())),
            regarding: Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Node".to_owned()),
                name: Some(self.node.to_string()),
                uid: Some(node_uid.to_owned()),
                ..ObjectReference::default()
            }),
            type_: Some(kind.to_owned()),
            reason: Some(reason.to_owned()),
            action: Some("Publish".to_owned()),
            note: note.get(..note.floor_char_boundary(MAX_NOTE_BYTES)).map(str::to_owned),
            reporting_controller: Some(format!("{}/controller", self.driver)),
            reporting_instance: Some(format!("gpu-controller-{}", self.node).chars().take(128).collect()),
            ..Event::default()
        }
    }
}

/// The problems of a node.
pub(crate) fn problems(inventory: &Inventory, support: &FeatureSupport, offer: &Offer) -> Problems {
    let gpus = inventory.gpus.iter().enumerate().filter_map(|(index, entry)| of_gpu(index, entry, support, offer));
    let others =
        [missing_driver(&inventory.driver), no_counters(support), no_shares(support, offer), no_taints(support)];
    gpus.chain(others.into_iter().flatten()).collect()
}

fn missing_driver(driver: &DriverState) -> Option<(String, Problem)> {
    match driver {
        DriverState::Loaded { .. } => None,
        DriverState::Missing { reason } => {
            let note = format!(
                "No GPU of this node is published: {reason}; install or load the NVIDIA driver, or correct the driver root"
            );
            let problem = Problem { reason: "NVIDIADriverUnavailable", recovered: "NVIDIADriverAvailable", note };
            Some(("the NVIDIA driver".to_owned(), problem))
        }
    }
}

fn no_counters(support: &FeatureSupport) -> Option<(String, Problem)> {
    let reason = support.unavailable_reason(GatedFields::Counters)?;
    let note = format!("GPUs and existing MIG devices are published without shared counters: {reason}");
    let problem = Problem { reason: "SharedCountersUnavailable", recovered: "SharedCountersAvailable", note };
    Some(("the API server".to_owned(), problem))
}

fn no_shares(support: &FeatureSupport, offer: &Offer) -> Option<(String, Problem)> {
    let shared = offer.forms.iter().filter(|form| matches!(form, Form::Shared(_)));
    let shared: Vec<String> = shared.map(ToString::to_string).collect();
    let reason = support.unavailable_reason(GatedFields::Shares).filter(|_| !shared.is_empty())?;
    let note = format!("GPUs are published without the forms {}: {reason}", shared.join(", "));
    let problem = Problem { reason: "SharedDevicesUnavailable", recovered: "SharedDevicesAvailable", note };
    Some(("shared forms".to_owned(), problem))
}

fn no_taints(support: &FeatureSupport) -> Option<(String, Problem)> {
    let reason = support.unavailable_reason(GatedFields::Taints)?;
    let note = format!(
        "Slices do not show that a GPU failed: claims for it fail when their pods start, and its pods are not evicted: {reason}"
    );
    let problem = Problem { reason: "DeviceTaintsUnavailable", recovered: "DeviceTaintsAvailable", note };
    Some(("taints of devices".to_owned(), problem))
}

/// The most severe problem of a GPU. It has only one, so that a problem that gets worse is not reported as resolved.
fn of_gpu(index: usize, entry: &GpuEntry, support: &FeatureSupport, offer: &Offer) -> Option<(String, Problem)> {
    match (entry.failure(), entry) {
        (Some(failure), _) => Some(failed(index, entry, failure, support)),
        (None, GpuEntry::Known { gpu, .. }) => {
            let problem = no_mig_devices(gpu, support, offer).or_else(|| missing_details(gpu))?;
            Some((gpu.uuid.to_string(), problem))
        }
        (None, GpuEntry::Unidentified { .. }) => None,
    }
}

fn failed(index: usize, entry: &GpuEntry, failure: &Failure, support: &FeatureSupport) -> (String, Problem) {
    let uuid = entry.uuid().map(ToString::to_string);
    let pci = entry.pci().map(|pci| pci.to_string());
    let subject = uuid.clone().or_else(|| pci.clone()).unwrap_or_else(|| format!("GPU {index}"));
    let ids: Vec<String> = [uuid, pci].into_iter().flatten().collect();
    let named = if ids.is_empty() { String::new() } else { format!(" ({})", ids.join(", ")) };
    let effect = match (entry, support.unavailable_reason(GatedFields::Taints)) {
        (GpuEntry::Known { .. }, None) => "and gets no new claims".to_owned(),
        (GpuEntry::Known { .. }, Some(reason)) => format!("and is not published, because {reason}"),
        (GpuEntry::Unidentified { .. }, _) => "and is not published".to_owned(),
    };
    let note = format!("GPU {index}{named} failed {effect}: {}; {}", failure.reason, advice(failure.fault));
    (subject, Problem { reason: "GPUUnavailable", recovered: "GPUAvailable", note })
}

const fn advice(fault: Fault) -> &'static str {
    match fault {
        Fault::Failing => "reset or replace the GPU",
        Fault::Unsupported => {
            "the NVIDIA driver does not support a required query on this GPU or platform: the GPU needs no reset, try \
             another version of the NVIDIA driver"
        }
        Fault::Denied => {
            "access to the GPU is denied: check that no virtual machine uses it and that the plugin's container is privileged"
        }
    }
}

fn no_mig_devices(gpu: &Gpu, support: &FeatureSupport, offer: &Offer) -> Option<Problem> {
    let divides = support.unavailable_reason(GatedFields::Counters).is_none();
    let is_published = |device: &Device<'_>| match device {
        Device::Partition(..) => divides && offer.includes(*device),
        Device::Gpu(_) | Device::Mig(..) | Device::Shared(..) => true,
    };
    let is_empty = matches!(&gpu.mig, MigMode::On { .. }) && !gpu.forms().iter().any(is_published);
    let Gpu { uuid, pci, .. } = gpu;
    let note = format!(
        "{uuid} at {pci} has no devices: MIG mode is enabled, but no MIG device exists; on the node, create MIG devices with \
         `nvidia-smi mig -i {pci} -cgi PROFILES -C`, or disable MIG mode with `nvidia-smi -i {pci} -mig 0`"
    );
    is_empty.then_some(Problem { reason: "MIGDevicesMissing", recovered: "MIGDevicesFound", note })
}

/// The details that a GPU is published without.
fn missing_details(gpu: &Gpu) -> Option<Problem> {
    let without = [
        gpu.product_name.is_none().then_some("its name (productName is Unknown)"),
        gpu.compute_capability.is_none().then_some("the attribute cudaComputeCapability"),
        gpu.memory.is_none().then_some("memory (shares have no memory limit)"),
        matches!(gpu.mig, MigMode::On { layout: None, .. })
            .then_some("the list of its MIG profiles (their names are derived from sizes)"),
    ];
    let without: Vec<&str> = without.into_iter().flatten().collect();
    let note = format!(
        "{} at {} is published without {}: the NVIDIA driver does not support the query on this GPU or platform; the GPU \
         works and needs no reset, claims for it must select by other attributes",
        gpu.uuid,
        gpu.pci,
        without.join(", ")
    );
    (!without.is_empty()).then_some(Problem { reason: "GPUDetailsMissing", recovered: "GPUDetailsFound", note })
}
