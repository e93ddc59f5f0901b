// SPDX-License-Identifier: Apache-2.0
//! Everything this process counts. Labels are bounded: no names, no UIDs.

use std::sync::atomic::AtomicI64;

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
}

/// How many devices of each type are published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceCounts {
    /// Whole GPUs.
    pub gpus: usize,
    /// MIG devices.
    pub mig: usize,
    /// GPUs published once more for many claims, each as often as there are ways to share it.
    pub shared: usize,
}

impl DeviceCounts {
    /// Of these slices.
    pub fn of(published: &[SliceContent]) -> Self {
        let of = |kind| {
            let devices = published.iter().flat_map(SliceContent::devices);
            devices.filter(|device| kind_of(device) == Some(kind)).count()
        };
        Self { gpus: of("gpu"), mig: of("mig"), shared: of("shared-gpu") }
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
        registry.register(
            "gpu_dra_published_devices",
            "Devices in the ResourceSlices of the node, by type",
            metrics.devices.clone(),
        );
        registry.register(
            "gpu_dra_published_generation",
            "Pool generation of the ResourceSlices last seen or written",
            metrics.published_generation.clone(),
        );
        (metrics, registry)
    }

    /// Counts one write.
    pub fn count_write(&self, op: &'static str, result: &'static str) {
        self.slice_writes.get_or_create(&WriteLabels { op, result }).inc();
    }

    /// Records how long a publishing with writes took.
    pub fn observe_publish(&self, seconds: f64) {
        self.publish_duration.observe(seconds);
    }

    /// Sets the number of published devices.
    pub fn set_devices(&self, counts: DeviceCounts) {
        for (r#type, count) in [("gpu", counts.gpus), ("mig", counts.mig), ("shared-gpu", counts.shared)] {
            self.devices.get_or_create(&DeviceLabels { r#type }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Sets the generation of the pool; the last one stays where no slice was seen or written.
    pub fn set_generation(&self, generation: Option<i64>) {
        if let Some(generation) = generation {
            self.published_generation.set(generation);
        }
    }
}
