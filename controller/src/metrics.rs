// SPDX-License-Identifier: Apache-2.0
//! The metrics of the controller. Labels have few values: no names, no UIDs.

use std::sync::atomic::AtomicI64;

use dra_resource::published::PublishedDevice;
use dra_resource::{Pool, SliceContent};
use dra_runtime::http::DURATIONS;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

#[derive(Debug, Clone)]
pub struct Metrics {
    slice_writes: Family<WriteLabels, Counter>,
    publish_duration: Histogram,
    devices: Family<DeviceLabels, Gauge>,
    pool_generation: Gauge<i64, AtomicI64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    operation: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeviceLabels {
    r#type: &'static str,
}

/// The number of published devices by type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceCounts {
    pub gpus: usize,
    pub mig: usize,
    /// Shared GPUs, one for each GPU and sharing strategy.
    pub shared: usize,
}

impl DeviceCounts {
    pub fn of(pool: &Pool, slices: &[SliceContent]) -> Self {
        let devices = || slices.iter().flat_map(SliceContent::devices).map(|device| PublishedDevice::new(pool, device));
        let of = |kind| devices().filter(|device| device.kind() == Some(kind)).count();
        Self { gpus: of("gpu"), mig: of("mig"), shared: of("shared-gpu") }
    }
}

impl Metrics {
    pub fn registered() -> (Self, Registry) {
        let metrics = Self {
            slice_writes: Family::default(),
            publish_duration: Histogram::new(DURATIONS),
            devices: Family::default(),
            pool_generation: Gauge::default(),
        };
        let mut registry = Registry::default();
        registry.register(
            "gpu_dra_resourceslice_writes",
            "Writes of ResourceSlices by operation and result",
            metrics.slice_writes.clone(),
        );
        registry.register_with_unit(
            "gpu_dra_publish_duration",
            "Time of a round with writes, from the changed inventory to the last write",
            Unit::Seconds,
            metrics.publish_duration.clone(),
        );
        registry.register(
            "gpu_dra_published_devices",
            "Published devices of the node by type",
            metrics.devices.clone(),
        );
        registry.register(
            "gpu_dra_pool_generation",
            "Pool generation of the ResourceSlices last read or written",
            metrics.pool_generation.clone(),
        );
        registry.register(
            "gpu_dra_build",
            "Version of the program",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        (metrics, registry)
    }

    /// Counts one write.
    pub fn count_write(&self, operation: &'static str, result: &'static str) {
        self.slice_writes.get_or_create(&WriteLabels { operation, result }).inc();
    }

    /// Records the duration of a round with writes.
    pub fn observe_publish(&self, seconds: f64) {
        self.publish_duration.observe(seconds);
    }

    pub fn set_devices(&self, counts: DeviceCounts) {
        for (r#type, count) in [("gpu", counts.gpus), ("mig", counts.mig), ("shared-gpu", counts.shared)] {
            self.devices.get_or_create(&DeviceLabels { r#type }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Sets the generation of the pool; absent if no slice was read or written, which leaves the last value.
    pub fn set_generation(&self, generation: Option<i64>) {
        if let Some(generation) = generation {
            self.pool_generation.set(generation);
        }
    }
}
