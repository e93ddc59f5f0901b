// SPDX-License-Identifier: Apache-2.0
//! Everything this process counts. Labels are bounded: no names, no UIDs.

use std::sync::atomic::AtomicI64;

use dra_model::{GpuEntry, Inventory};
use dra_resource::{SliceContent, names};
use dra_runtime::http::DURATIONS;
use k8s_openapi::api::resource::v1::Device;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// The metrics of the controller.
#[derive(Debug, Clone)]
pub struct Metrics {
    slice_writes: Family<WriteLabels, Counter>,
    publish_duration: Histogram,
    devices: Family<DeviceLabels, Gauge>,
    published_generation: Gauge<i64, AtomicI64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    op: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeviceLabels {
    r#type: &'static str,
    state: &'static str,
}

/// How many devices of each kind there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceCounts {
    /// Whole GPUs published.
    pub gpus: usize,
    /// MIG devices published.
    pub mig: usize,
    /// GPUs published once more for many claims, each as often as there are ways to share it.
    pub shared: usize,
    /// GPUs that could not be read.
    pub broken: usize,
}

impl DeviceCounts {
    /// Of a node that has this, when it publishes that.
    pub fn of(published: &[SliceContent], inventory: &Inventory) -> Self {
        let of = |kind| {
            let devices = published.iter().flat_map(SliceContent::devices);
            devices.filter(|device| kind_of(device) == Some(kind)).count()
        };
        let broken = inventory.gpus.iter().filter(|gpu| matches!(gpu, GpuEntry::Broken { .. })).count();
        Self { gpus: of("gpu"), mig: of("mig"), shared: of("shared-gpu"), broken }
    }
}

fn kind_of(device: &Device) -> Option<&str> {
    device.attributes.as_ref()?.get(names::TYPE)?.string.as_deref()
}

impl Metrics {
    /// Metrics in a registry of their own.
    pub fn registered() -> (Self, Registry) {
        let metrics = Self {
            slice_writes: Family::default(),
            publish_duration: Histogram::new(DURATIONS),
            devices: Family::default(),
            published_generation: Gauge::default(),
        };
        let mut registry = Registry::default();
        registry.register("gpu_dra_slice_writes", "Writes of ResourceSlices", metrics.slice_writes.clone());
        registry.register(
            "gpu_dra_publish_duration_seconds",
            "Time to make the slices of the node equal to its inventory, when something had to be written",
            metrics.publish_duration.clone(),
        );
        registry.register("gpu_dra_devices", "Devices of the node", metrics.devices.clone());
        registry.register(
            "gpu_dra_published_generation",
            "Pool generation of the slices last seen or written",
            metrics.published_generation.clone(),
        );
        (metrics, registry)
    }

    /// Counts one write.
    pub fn wrote(&self, op: &'static str, result: &'static str) {
        self.slice_writes.get_or_create(&WriteLabels { op, result }).inc();
    }

    /// Records how long a publishing with writes took.
    pub fn published_in(&self, seconds: f64) {
        self.publish_duration.observe(seconds);
    }

    /// Tells the devices of the node.
    pub fn set_devices(&self, counts: DeviceCounts) {
        for (r#type, state, count) in [
            ("gpu", "published", counts.gpus),
            ("mig", "published", counts.mig),
            ("shared-gpu", "published", counts.shared),
            ("gpu", "unreadable", counts.broken),
        ] {
            self.devices.get_or_create(&DeviceLabels { r#type, state }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Tells the generation of the pool.
    pub fn set_generation(&self, generation: i64) {
        self.published_generation.set(generation);
    }
}
