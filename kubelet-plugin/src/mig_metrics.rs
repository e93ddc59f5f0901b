// SPDX-License-Identifier: Apache-2.0
//! The metrics of MIG devices: how long their creation takes, and how the free memory of a GPU in MIG mode can be used.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use dra_model::{Inventory, MigMode};
use dra_prepare::MigChangeKind;
use dra_resource::fragmentation::{self, Free};
use dra_runtime::http::DURATIONS;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GpuLabels {
    device: String,
}

#[derive(Debug, Clone)]
pub struct MigMetrics {
    duration: Family<OperationLabels, Histogram>,
    largest_free: Family<GpuLabels, Gauge>,
    unusable: Family<GpuLabels, Gauge<f64, AtomicU64>>,
}

impl Default for MigMetrics {
    fn default() -> Self {
        Self {
            duration: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
            largest_free: Family::default(),
            unusable: Family::default(),
        }
    }
}

impl MigMetrics {
    pub fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "mig_device_operation_duration",
            "Time to create or destroy the MIG device of a claim, MIG mode included, by operation: create, destroy",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register_with_unit(
            "mig_largest_free_profile",
            "Memory of the largest MIG device that can be created beside those that exist, of each GPU in MIG mode",
            Unit::Bytes,
            self.largest_free.clone(),
        );
        registry.register_with_unit(
            "mig_unusable_free_memory",
            "Part of the free memory that no further MIG devices can have, of each GPU in MIG mode",
            Unit::Other("ratio".to_owned()),
            self.unusable.clone(),
        );
    }

    /// Counts a MIG device that was created or destroyed.
    pub fn changed(&self, change: &MigChangeKind, took: Duration) {
        let operation = match change {
            MigChangeKind::Created(_) => "create",
            MigChangeKind::Destroyed => "destroy",
        };
        self.duration.get_or_create(&OperationLabels { operation }).observe(took.as_secs_f64());
    }

    /// A GPU whose MIG mode is off is absent.
    pub fn inventory(&self, inventory: &Inventory) {
        self.largest_free.clear();
        self.unusable.clear();
        let names = inventory.names();
        for gpu in inventory.usable_gpus() {
            let (MigMode::On { gpu_instances, .. }, Some(layout)) = (&gpu.mig, gpu.mig_layout()) else { continue };
            let taken: Vec<_> =
                gpu_instances.iter().map(|instance| (instance.profile_id, instance.placement)).collect();
            let Free { largest, slices, unusable } = fragmentation::free(layout, &taken);
            let labels = GpuLabels { device: names.gpu(&gpu.uuid) };
            self.largest_free.get_or_create(&labels).set(i64::try_from(largest.0).unwrap_or(i64::MAX));
            self.unusable.get_or_create(&labels).set(f64::from(unusable) / f64::from(slices.max(1)));
        }
    }
}
