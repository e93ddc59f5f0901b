// SPDX-License-Identifier: Apache-2.0
//! The metrics of GPUs and MIG devices. A value that a GPU does not measure is absent.

use dra_hardware::{Measurements, MemoryUse, NvLinkErrors, NvLinks, RemappedRows};
use dra_model::MigUuid;
use prometheus_client::encoding::DescriptorEncoder;

use super::series::{self, Kind, Sample, number};
use super::snapshot::{MeasuredGpu, Snapshot};

/// A metric of a GPU.
struct GpuSeries {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    /// The label that distinguishes several values.
    label: Option<&'static str>,
    values: fn(&Measurements) -> Vec<(&'static str, f64)>,
}

const GPU_SERIES: &[GpuSeries] = &[
    gauge("gpu_utilization_ratio", "Part of the time in which a kernel ran on a GPU; absent in MIG mode", |m| {
        one(m.utilization_percent.map(|percent| f64::from(percent) / 100.0))
    }),
    gauge("gpu_memory_total_bytes", "Memory of a GPU", |m| memory(m, |memory| memory.total)),
    gauge("gpu_memory_used_bytes", "Memory of a GPU in use", |m| memory(m, |memory| memory.used)),
    gauge("gpu_memory_free_bytes", "Memory of a GPU that can be allocated", |m| memory(m, |memory| memory.free)),
    gauge("gpu_temperature_celsius", "Temperature of a GPU", |m| one(m.temperature_celsius.map(f64::from))),
    gauge("gpu_power_watts", "Power that a GPU draws", |m| one(m.power_milliwatts.map(thousandth))),
    gauge("gpu_power_limit_watts", "Power at which a GPU limits itself", |m| {
        one(m.power_limit_milliwatts.map(thousandth))
    }),
    GpuSeries {
        name: "gpu_clock_hertz",
        help: "Clocks of a GPU: sm, memory",
        kind: Kind::Gauge,
        label: Some("clock"),
        values: |m| some([("sm", m.sm_clock_mhz.map(mega)), ("memory", m.memory_clock_mhz.map(mega))]),
    },
    GpuSeries {
        name: "gpu_clock_throttled",
        help: "Whether the clocks of a GPU are reduced, by reason",
        kind: Kind::Gauge,
        label: Some("reason"),
        values: |m| m.throttle_reasons.map(throttled).unwrap_or_default(),
    },
    GpuSeries {
        name: "gpu_ecc_errors",
        help: "ECC errors of the memory of a GPU in its life: corrected, uncorrected",
        kind: Kind::Counter,
        label: Some("type"),
        values: |m| {
            let count = |errors: Option<u64>| errors.map(number);
            some([("corrected", count(m.corrected_ecc_errors)), ("uncorrected", count(m.uncorrected_ecc_errors))])
        },
    },
    GpuSeries {
        name: "gpu_remapped_rows",
        help: "Rows of the memory of a GPU that were replaced, by the errors they had: corrected, uncorrected",
        kind: Kind::Gauge,
        label: Some("type"),
        values: |m| {
            let rows = |of: fn(&RemappedRows) -> u32| m.remapped_rows.as_ref().map(of).map(f64::from);
            some([("corrected", rows(|rows| rows.corrected)), ("uncorrected", rows(|rows| rows.uncorrected))])
        },
    },
    gauge("gpu_row_remap_pending", "Whether a row of the memory of a GPU is replaced at its next reset", |m| {
        one(m.remapped_rows.map(|rows| flag(rows.is_pending)))
    }),
    gauge("gpu_row_remap_failed", "Whether a row of the memory of a GPU could not be replaced", |m| {
        one(m.remapped_rows.map(|rows| flag(rows.has_failed)))
    }),
    GpuSeries {
        name: "gpu_fabric_state",
        help: "State of the registration of a GPU with its NVLink fabric, 1 for the present one",
        kind: Kind::Gauge,
        label: Some("state"),
        values: |m| m.fabric_state.map(|state| vec![(fabric_state(state), 1.0)]).unwrap_or_default(),
    },
    GpuSeries {
        name: "gpu_nvlinks",
        help: "NVLinks of a GPU by their state: up, down",
        kind: Kind::Gauge,
        label: Some("state"),
        values: |m| {
            let links = |of: fn(&NvLinks) -> u32| m.nvlinks.as_ref().map(of).map(f64::from);
            some([("up", links(|links| links.up)), ("down", links(|links| links.down))])
        },
    },
    GpuSeries {
        name: "gpu_nvlink_errors",
        help: "Errors of the NVLinks of a GPU since the NVIDIA driver was loaded: crc, replay, recovery",
        kind: Kind::Counter,
        label: Some("type"),
        values: |m| {
            let NvLinkErrors { crc, replay, recovery } = m.nvlink_errors;
            some([("crc", crc.map(number)), ("replay", replay.map(number)), ("recovery", recovery.map(number))])
        },
    },
];

const fn gauge(
    name: &'static str,
    help: &'static str,
    values: fn(&Measurements) -> Vec<(&'static str, f64)>,
) -> GpuSeries {
    GpuSeries { name, help, kind: Kind::Gauge, label: None, values }
}

/// Bits of `nvmlClocksEventReasons` that mean a reduction; the others are wanted by an administrator, or mean an idle GPU.
const THROTTLE_REASONS: [(&str, u64); 7] = [
    ("power_cap", 0x4),
    ("hw_slowdown", 0x8),
    ("sync_boost", 0x10),
    ("sw_thermal", 0x20),
    ("hw_thermal", 0x40),
    ("hw_power_brake", 0x80),
    ("display", 0x100),
];

type BytesOf = fn(&MemoryUse) -> u64;

/// Name, help and value of the metrics of a MIG device.
const MIG_SERIES: [(&str, &str, BytesOf); 3] = [
    ("mig_memory_total_bytes", "Memory of a MIG device", |memory| memory.total),
    ("mig_memory_used_bytes", "Memory of a MIG device in use", |memory| memory.used),
    ("mig_memory_free_bytes", "Memory of a MIG device that can be allocated", |memory| memory.free),
];

pub(super) fn encode(snapshot: &Snapshot, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
    let info: Vec<Sample> = snapshot.gpus.iter().map(info).collect();
    series::encode(encoder, ("gpu_info", "Identity of a GPU, always 1", Kind::Gauge), &info)?;
    for one in GPU_SERIES {
        let samples: Vec<Sample> = snapshot.gpus.iter().flat_map(|gpu| samples(one, gpu)).collect();
        series::encode(encoder, (one.name, one.help, one.kind), &samples)?;
    }
    for (name, help, bytes) in MIG_SERIES {
        let all = snapshot.gpus.iter().flat_map(|gpu| gpu.measurements.mig_devices.iter().map(move |mig| (gpu, mig)));
        let samples: Vec<Sample> = all.filter_map(|(gpu, mig)| mig_sample(snapshot, gpu, mig, bytes)).collect();
        series::encode(encoder, (name, help, Kind::Gauge), &samples)?;
    }
    Ok(())
}

fn info(gpu: &MeasuredGpu) -> Sample {
    let labels = vec![
        ("device", gpu.device.clone()),
        ("gpu_uuid", gpu.gpu.uuid.to_string()),
        ("product", gpu.gpu.product_name.clone().unwrap_or_default()),
        ("pci_bus_id", gpu.gpu.pci.to_string()),
    ];
    Sample { labels, value: 1.0 }
}

fn samples(series: &GpuSeries, gpu: &MeasuredGpu) -> Vec<Sample> {
    let values = (series.values)(&gpu.measurements).into_iter();
    let sample = |(of, value): (&'static str, f64)| {
        let own = series.label.map(|label| (label, of.to_owned()));
        Sample { labels: [("device", gpu.device.clone())].into_iter().chain(own).collect(), value }
    };
    values.map(sample).collect()
}

/// A MIG device that was created since the last discovery has no name yet.
fn mig_sample(
    snapshot: &Snapshot,
    gpu: &MeasuredGpu,
    (uuid, memory): &(MigUuid, MemoryUse),
    bytes: BytesOf,
) -> Option<Sample> {
    let mig = gpu.gpu.mig_devices().iter().find(|mig| mig.uuid == *uuid)?;
    let device = snapshot.names.as_ref()?.mig(&mig.identity);
    Some(Sample { labels: vec![("device", device), ("gpu", gpu.device.clone())], value: number(bytes(memory)) })
}

fn one(value: Option<f64>) -> Vec<(&'static str, f64)> {
    some([("", value)])
}

fn some<const N: usize>(values: [(&'static str, Option<f64>); N]) -> Vec<(&'static str, f64)> {
    values.into_iter().filter_map(|(of, value)| Some((of, value?))).collect()
}

fn memory(measurements: &Measurements, bytes: BytesOf) -> Vec<(&'static str, f64)> {
    one(measurements.memory.as_ref().map(|memory| number(bytes(memory))))
}

fn throttled(reasons: u64) -> Vec<(&'static str, f64)> {
    THROTTLE_REASONS.iter().map(|(reason, bit)| (*reason, flag(reasons & bit != 0))).collect()
}

/// `nvmlGpuFabricState_t`.
fn fabric_state(state: u32) -> &'static str {
    match state {
        1 => "not_started",
        2 => "in_progress",
        3 => "completed",
        _ => "unknown",
    }
}

/// Of milliwatts.
fn thousandth(number: u32) -> f64 {
    f64::from(number) / 1000.0
}

/// Of MHz.
fn mega(number: u32) -> f64 {
    f64::from(number) * 1_000_000.0
}

fn flag(is_set: bool) -> f64 {
    if is_set { 1.0 } else { 0.0 }
}
