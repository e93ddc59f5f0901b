// SPDX-License-Identifier: Apache-2.0
//! The metrics of the health of GPUs, from the findings that are published.

use std::collections::BTreeMap;

use dra_model::{Effect, GpuUuid, Health, Inventory, Verdict};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::health::permit::HeldBack;
use crate::node_service::Findings;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GpuLabels {
    device: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FaultLabels {
    device: String,
    cause: &'static str,
    effect: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct XidLabels {
    device: String,
    xid: String,
}

/// XIDs are smaller; more of them share one label value.
const MAX_XID: u64 = 255;

#[derive(Debug, Clone, Default)]
pub struct HealthMetrics {
    healthy: Family<GpuLabels, Gauge>,
    faults: Family<FaultLabels, Gauge>,
    held_back: Family<GpuLabels, Gauge>,
    xids: Family<XidLabels, Counter>,
    recovery_action: Family<GpuLabels, Gauge>,
}

impl HealthMetrics {
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "gpu_healthy",
            "Whether a GPU is healthy: 1, or 0 while it has a fault or cannot be asked",
            self.healthy.clone(),
        );
        registry.register(
            "gpu_fault",
            "Faults of a GPU, each 1, by the cause and the effect of its taint: None, NoSchedule, NoExecute",
            self.faults.clone(),
        );
        registry.register(
            "gpu_eviction_held_back",
            "GPUs, each 1, whose pods are not evicted, because a budget of evictions is used up or cannot be read",
            self.held_back.clone(),
        );
        registry.register("gpu_xids", "XIDs of a GPU by number, those of applications too", self.xids.clone());
        registry.register(
            "gpu_recovery_action",
            "Cure that the driver recommends for a GPU (NVML field 230): 0 none, 1 reset, 2 reboot, 3 drain, 4 drain and reset, 5 IMEX domain",
            self.recovery_action.clone(),
        );
    }

    /// Counts an XID of the device of a whole GPU.
    pub fn xid(&self, device: String, xid: u64) {
        let xid = if xid <= MAX_XID { xid.to_string() } else { "other".to_owned() };
        self.xids.get_or_create(&XidLabels { device, xid }).inc();
    }

    pub fn recovery_action(&self, device: String, action: u32) {
        self.recovery_action.get_or_create(&GpuLabels { device }).set(action.into());
    }

    /// A GPU that is gone is absent.
    pub fn findings(&self, inventory: &Inventory, findings: &Findings, held_back: &BTreeMap<GpuUuid, HeldBack>) {
        self.healthy.clear();
        self.faults.clear();
        self.held_back.clear();
        let names = inventory.names();
        for (gpu, health) in inventory.known_gpus() {
            let (device, of_gpu) = (names.gpu(&gpu.uuid), findings.get(&gpu.uuid).map_or(&[][..], Vec::as_slice));
            let is_readable = *health == Health::Usable;
            let is_healthy = is_readable && of_gpu.iter().all(|finding| finding.verdict == Verdict::Healthy);
            self.healthy.get_or_create(&GpuLabels { device: device.clone() }).set(is_healthy.into());
            if held_back.contains_key(&gpu.uuid) {
                self.held_back.get_or_create(&GpuLabels { device: device.clone() }).set(1);
            }
            for finding in of_gpu {
                let effect: Effect = finding.effect;
                let labels =
                    FaultLabels { device: device.clone(), cause: finding.cause.key(), effect: effect.to_string() };
                self.faults.get_or_create(&labels).set(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use dra_model::{Failure, Fault, GpuEntry};
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn a_gpu_that_cannot_be_read_is_not_healthy() {
        let node = include_str!("../../../driver/resource/testdata/h100-8.json");
        let mut inventory: Inventory = serde_json::from_str(node).unwrap();
        inventory.gpus.truncate(2);
        let GpuEntry::Known { gpu, .. } = inventory.gpus.remove(1) else { panic!("it is known") };
        let failure = Failure { reason: "GPU is lost".to_owned(), fault: Fault::Failing };
        inventory.gpus.push(GpuEntry::unusable(gpu, failure));
        let (mut registry, metrics) = (Registry::default(), HealthMetrics::default());
        metrics.register(&mut registry);
        metrics.findings(&inventory, &Findings::new(), &BTreeMap::new());
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for ((gpu, _), value) in inventory.known_gpus().zip([1, 0]) {
            let line = format!("gpu_healthy{{device=\"{}\"}} {value}\n", inventory.names().gpu(&gpu.uuid));
            assert!(text.contains(&line), "{line} in {text}");
        }
    }
}
