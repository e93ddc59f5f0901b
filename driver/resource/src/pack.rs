// SPDX-License-Identifier: Apache-2.0
//! From an inventory to the content of the slices of a node's pool, within the limits of the API.
//!
//! Deterministic, and stable under small changes: the devices of up to eight GPUs fill a slice of their own, so that
//! a MIG device that appears or goes changes one slice and leaves the counters alone. Counter sets come first and in
//! slices of their own (required since Kubernetes 1.35). A node without devices has one empty slice, which tells
//! consumers that the driver is alive and has nothing. Within a GPU the order is that of preference: the scheduler takes the
//! first device that fits.

use std::collections::BTreeSet;

use dra_model::{Device, DeviceNames, DriverState, Gpu, Inventory};
use k8s_openapi::api::resource::v1 as k8s;

use crate::attributes::attributes;
use crate::capacity::capacities;
use crate::counters;
use crate::limits;
use crate::offer::Offer;

/// The content of one slice; the API allows one or the other.
#[derive(Debug, Clone, PartialEq)]
pub enum SliceContent {
    /// Counter sets, one per GPU.
    Counters(Vec<k8s::CounterSet>),
    /// Devices, possibly none.
    Devices(Vec<k8s::Device>),
}

impl SliceContent {
    /// The devices, if it is a slice of devices.
    pub fn devices(&self) -> &[k8s::Device] {
        match self {
            Self::Counters(_) => &[],
            Self::Devices(devices) => devices,
        }
    }
}

/// The slices of a node, in order.
pub fn pack(inventory: &Inventory, offer: &Offer) -> Vec<SliceContent> {
    let names = inventory.names();
    let gpus = distinct_gpus(inventory);
    let blocks: Vec<Vec<k8s::Device>> =
        gpus.iter().map(|gpu| devices_of(gpu, &inventory.driver, &names, offer)).collect();
    let mut slices: Vec<SliceContent> = Vec::new();
    if offer.features.partitionable {
        let sets: Vec<_> = gpus.iter().map(|gpu| counters::counter_set(gpu, &names.gpu(&gpu.uuid))).collect();
        slices.extend(sets.chunks(limits::COUNTER_SETS).map(|sets| SliceContent::Counters(sets.to_vec())));
        slices
            .extend(blocks.chunks(limits::COUNTER_SETS).flat_map(|blocks| fill(blocks, limits::DEVICES_WITH_COUNTERS)));
    } else {
        slices.extend(fill(&blocks, limits::DEVICES));
    }
    if slices.is_empty() { vec![SliceContent::Devices(Vec::new())] } else { slices }
}

/// NVML never names two GPUs the same; a device published twice would make the whole pool invalid.
fn distinct_gpus(inventory: &Inventory) -> Vec<&Gpu> {
    let mut seen = BTreeSet::new();
    inventory.good_gpus().filter(|gpu| seen.insert(&gpu.uuid)).collect()
}

fn devices_of(gpu: &Gpu, driver: &DriverState, names: &DeviceNames, offer: &Offer) -> Vec<k8s::Device> {
    let mut seen = BTreeSet::new();
    gpu.forms()
        .into_iter()
        .filter(|device| offer.includes(*device))
        .map(|device| publish(device, driver, names, offer))
        .filter(|device| seen.insert(device.name.clone()))
        .collect()
}

fn publish(device: Device<'_>, driver: &DriverState, names: &DeviceNames, offer: &Offer) -> k8s::Device {
    let attributes = attributes(device, driver);
    let capacity = capacities(device, offer.shares, attributes.len());
    let gpu_name = names.gpu(&device.gpu().uuid);
    let consumes = || match device {
        Device::Gpu(gpu) | Device::Shared(gpu, _) => vec![counters::of_whole_gpu(gpu, &gpu_name)],
        Device::Mig(gpu, mig) => vec![counters::of_mig(gpu, mig, &gpu_name)],
    };
    let many_claims = match device {
        Device::Gpu(_) | Device::Mig(..) => None,
        Device::Shared(..) => Some(true),
    };
    k8s::Device {
        name: names.device(device),
        allow_multiple_allocations: many_claims,
        attributes: Some(attributes),
        capacity: (!capacity.is_empty()).then_some(capacity),
        consumes_counters: offer.features.partitionable.then(consumes),
        ..k8s::Device::default()
    }
}

/// Puts the devices of GPUs into slices, in order; a GPU's devices stay together if they fit into one slice at all.
/// There is always at least one slice when there is a GPU, so that its first MIG device needs no new one.
fn fill(blocks: &[Vec<k8s::Device>], limit: usize) -> Vec<SliceContent> {
    let mut slices: Vec<Vec<k8s::Device>> = Vec::new();
    for block in blocks {
        match slices.last_mut() {
            Some(last) if last.len() + block.len() <= limit => last.extend(block.iter().cloned()),
            Some(_) | None if block.is_empty() => slices.push(Vec::new()),
            Some(_) | None => slices.extend(block.chunks(limit).map(<[k8s::Device]>::to_vec)),
        }
    }
    slices.into_iter().map(SliceContent::Devices).collect()
}
