// SPDX-License-Identifier: Apache-2.0
//! Events on the Node: what keeps a GPU from being published, wholly or in part, told once per change.

use std::collections::BTreeMap;

use dra_model::chain;
use dra_model::{DriverState, Fault, Gpu, GpuEntry, Inventory, MigMode, NodeName};
use dra_resource::{DriverName, Form, Offer};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use tracing::{info, warn};

use crate::cluster::Cluster;
use crate::outage::Outage;
use crate::server::{Gated, Server};

/// The longest note an event may have (`events.k8s.io/v1`).
const NOTE_MAX: usize = 1024;

/// What is wrong with a node, by subject.
pub(crate) type Troubles = BTreeMap<String, Trouble>;

/// What keeps something from being published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    reason: &'static str,
    recovered: &'static str,
    note: String,
}

/// Who tells about which node, and what was told already.
#[derive(Debug)]
pub struct NodeEvents {
    driver: DriverName,
    node: NodeName,
    told: Troubles,
    outage: Outage,
}

impl NodeEvents {
    /// Nothing was told yet.
    pub fn new(driver: DriverName, node: NodeName) -> Self {
        Self { driver, node, told: Troubles::new(), outage: Outage::default() }
    }

    /// Tells what changed since the last time. What could not be told is told the next time; false asks for one soon.
    pub(crate) async fn tell(&mut self, cluster: &Cluster, node_uid: &str, now: Troubles) -> bool {
        let mut all_told = true;
        for (subject, trouble) in &now {
            if self.told.get(subject) != Some(trouble) {
                let event = self.event(node_uid, "Warning", trouble.reason, &trouble.note);
                all_told &= self.post(cluster, event, subject, Some(trouble)).await;
            }
        }
        let over: Vec<(String, Trouble)> = self
            .told
            .iter()
            .filter(|(subject, _)| !now.contains_key(*subject))
            .map(|(s, t)| (s.clone(), t.clone()))
            .collect();
        for (subject, trouble) in over {
            let event = self.event(node_uid, "Normal", trouble.recovered, &format!("over: {}", trouble.note));
            all_told &= self.post(cluster, event, &subject, None).await;
        }
        all_told
    }

    /// Posts one event and remembers the subject's new state, unless it is worth another try.
    async fn post(&mut self, cluster: &Cluster, event: Event, subject: &str, trouble: Option<&Trouble>) -> bool {
        let reason = event.reason.clone().unwrap_or_default();
        match cluster.post_event(&event).await {
            Ok(()) => {
                self.outage.over();
                info!(reason, subject, "told the node");
            }
            Err(error) if error.is_final() => {
                warn!(reason, subject, error = %chain(&error), "an event on the node was refused");
            }
            Err(error) => {
                let error = chain(&error).to_string();
                if self.outage.is_news(&error) {
                    warn!(reason, subject, error, "unable to post an event on the node (will retry)");
                }
                return false;
            }
        }
        match trouble {
            Some(trouble) => drop(self.told.insert(subject.to_owned(), trouble.clone())),
            None => drop(self.told.remove(subject)),
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
            note: note.get(..note.floor_char_boundary(NOTE_MAX)).map(str::to_owned),
            reporting_controller: Some(self.driver.to_string()),
            reporting_instance: Some(format!("gpu-controller-{}", self.node).chars().take(128).collect()),
            ..Event::default()
        }
    }
}

/// What is wrong with a node of which this should be published.
pub(crate) fn troubles(inventory: &Inventory, server: &Server, offer: &Offer) -> Troubles {
    let gpus = inventory.gpus.iter().filter_map(of_gpu);
    let others = [missing_driver(&inventory.driver), no_counters(server), no_shares(server, offer)];
    gpus.chain(others.into_iter().flatten()).collect()
}

fn missing_driver(driver: &DriverState) -> Option<(String, Trouble)> {
    match driver {
        DriverState::Loaded { .. } => None,
        DriverState::Missing { reason } => {
            let note = format!("no GPU of this node is published: {reason}; install or load the NVIDIA driver");
            let trouble = Trouble { reason: "DriverMissing", recovered: "DriverFound", note };
            Some(("the NVIDIA driver".to_owned(), trouble))
        }
    }
}

fn no_counters(server: &Server) -> Option<(String, Trouble)> {
    let reason = server.refusal(Gated::Counters)?;
    let note = format!("only the devices that exist now are published, without counters: {reason}");
    let trouble = Trouble { reason: "CountersUnavailable", recovered: "CountersAvailable", note };
    Some(("the API server".to_owned(), trouble))
}

fn no_shares(server: &Server, offer: &Offer) -> Option<(String, Trouble)> {
    let shared = offer.forms.iter().filter(|form| matches!(form, Form::Shared(_)));
    let shared: Vec<String> = shared.map(ToString::to_string).collect();
    let reason = server.refusal(Gated::Shares).filter(|_| !shared.is_empty())?;
    let note = format!("GPUs are not published as {}, only in their other forms: {reason}", shared.join(", "));
    let trouble = Trouble { reason: "SharedFormsUnavailable", recovered: "SharedFormsAvailable", note };
    Some(("shared forms".to_owned(), trouble))
}

/// The one thing that most matters about a GPU, so that what gets worse is not first told to be over.
fn of_gpu(entry: &GpuEntry) -> Option<(String, Trouble)> {
    match entry {
        GpuEntry::Good(gpu) => {
            let trouble = no_mig_devices(gpu).or_else(|| untold(gpu))?;
            Some((gpu.uuid.to_string(), trouble))
        }
        GpuEntry::Broken { index, uuid, pci, reason, fault } => {
            let uuid = uuid.as_ref().map(ToString::to_string);
            let pci = pci.as_ref().map(ToString::to_string);
            let subject = uuid.clone().or_else(|| pci.clone()).unwrap_or_else(|| format!("GPU {index}"));
            let known: Vec<String> = [uuid, pci].into_iter().flatten().collect();
            let named = if known.is_empty() { String::new() } else { format!(" ({})", known.join(", ")) };
            let advice = advice(*fault);
            let note = format!("GPU {index}{named} cannot be read and is not published: {reason}; {advice}");
            Some((subject, Trouble { reason: "GpuUnreadable", recovered: "GpuReadable", note }))
        }
    }
}

const fn advice(fault: Fault) -> &'static str {
    match fault {
        Fault::Failing => "reset or replace it",
        Fault::Unsupported => {
            "the NVIDIA driver has no answer on this GPU or platform, and without it no container can be given the GPU: \
             the GPU needs no reset, try another version of the NVIDIA driver"
        }
        Fault::Denied => {
            "access to the GPU is denied: see that no virtual machine has it and that the plugin's container is privileged"
        }
    }
}

fn no_mig_devices(gpu: &Gpu) -> Option<Trouble> {
    let is_empty = matches!(&gpu.mig, MigMode::On { devices, .. } if devices.is_empty());
    let Gpu { uuid, pci, .. } = gpu;
    let note = format!(
        "{uuid} at {pci} offers nothing: its MIG mode is on and it has no MIG devices; on the node, make some with \
         `nvidia-smi mig -i {pci} -cgi PROFILES -C`, or turn MIG mode off with `nvidia-smi -i {pci} -mig 0`"
    );
    is_empty.then_some(Trouble { reason: "MIGDevicesMissing", recovered: "MIGDevicesFound", note })
}

/// What a GPU is published without.
fn untold(gpu: &Gpu) -> Option<Trouble> {
    let without = [
        gpu.product_name.is_none().then_some("its name (productName is Unknown)"),
        gpu.compute_capability.is_none().then_some("the attribute cudaComputeCapability"),
        gpu.memory.is_none().then_some("memory (shares have no memory limit)"),
        matches!(gpu.mig, MigMode::On { layout: None, .. })
            .then_some("the list of its MIG profiles (their names are derived from sizes)"),
    ];
    let without: Vec<&str> = without.into_iter().flatten().collect();
    let note = format!(
        "{} at {} is published without {}: the NVIDIA driver has no answer on this GPU or platform; the GPU works and \
         needs no reset, let claims that may use it select by something else",
        gpu.uuid,
        gpu.pci,
        without.join(", ")
    );
    (!without.is_empty()).then_some(Trouble { reason: "GPUDetailsMissing", recovered: "GPUDetailsFound", note })
}
