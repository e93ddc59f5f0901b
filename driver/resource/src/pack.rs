// SPDX-License-Identifier: Apache-2.0
//! Converts an inventory to the content of the slices of a node's pool, within the limits of the API.
//!
//! The result is deterministic and stable under small changes: the devices of up to eight GPUs have slices of their own, so that a
//! created or removed MIG device changes one slice and no counters. Counter sets come first, in separate slices (required since
//! Kubernetes 1.35). A node without devices has one empty slice, which shows that the driver runs. The devices of a GPU are in the
//! order of preference, because the scheduler takes the first device that fits.
//!
//! A GPU that cannot be read stays published as it was known last, and a taint keeps new claims away. Where the API server drops
//! taints, it is left out. What else is wrong with a GPU becomes taints of all of its forms, or of those that overlap the GPU instance
//! that it is about.

use std::collections::BTreeSet;

use dra_model::{
    Device, DeviceNames, DriverState, Failure, Fault, Finding, Gpu, Health, Inventory, Placement, by_preference,
};
use k8s_openapi::api::resource::v1 as k8s;

use crate::attributes::attributes;
use crate::capacity::capacities;
use crate::counters;
use crate::limits::{self, DeviceLimit};
use crate::names::DriverName;
use crate::offer::Offer;

/// The content of one slice: the API allows either counter sets or devices.
#[derive(Debug, Clone, PartialEq)]
pub enum SliceContent {
    /// One counter set per GPU.
    Counters(Vec<k8s::CounterSet>),
    Devices(Vec<k8s::Device>),
}

impl SliceContent {
    /// The devices; none in a slice of counter sets.
    pub fn devices(&self) -> &[k8s::Device] {
        match self {
            Self::Counters(_) => &[],
            Self::Devices(devices) => devices,
        }
    }
}

/// The slices of a node, in order.
pub fn pack(driver: &DriverName, inventory: &Inventory, offer: &Offer) -> Vec<SliceContent> {
    let names = inventory.names();
    let gpus = published_gpus(inventory, offer);
    let tainted = |(gpu, health): &(&Gpu, &Health)| {
        let unusable = taint(driver, health);
        let findings = if offer.features.taints { inventory.findings_of(&gpu.uuid) } else { &[] };
        let with_taints = |(placement, device): (Option<Placement>, k8s::Device)| {
            let concerned = findings.iter().filter(|finding| finding.concerns(placement));
            let found = concerned.map(|finding| taint_of(driver, finding));
            let taints: Vec<_> = unusable.iter().cloned().chain(found).collect();
            k8s::Device { taints: (!taints.is_empty()).then_some(taints), ..device }
        };
        devices_of(gpu, &inventory.driver, &names, offer).into_iter().map(with_taints).collect()
    };
    let blocks: Vec<Vec<k8s::Device>> = gpus.iter().map(tainted).collect();
    let mut slices: Vec<SliceContent> = Vec::new();
    if offer.features.partitionable {
        let sets: Vec<_> = gpus.iter().map(|(gpu, _)| counters::counter_set(gpu, &names.gpu(&gpu.uuid))).collect();
        slices.extend(sets.chunks(limits::COUNTER_SETS).map(|sets| SliceContent::Counters(sets.to_vec())));
        let mut blocks = blocks.into_iter();
        while blocks.len() > 0 {
            slices.extend(fill(blocks.by_ref().take(limits::COUNTER_SETS)));
        }
    } else {
        slices.extend(fill(blocks.into_iter()));
    }
    if slices.is_empty() { vec![SliceContent::Devices(Vec::new())] } else { slices }
}

/// The GPUs without duplicates, because a device that is published twice makes the whole pool invalid.
fn published_gpus<'a>(inventory: &'a Inventory, offer: &Offer) -> Vec<(&'a Gpu, &'a Health)> {
    let mut seen = BTreeSet::new();
    let is_published = |health: &Health| *health == Health::Usable || offer.features.taints;
    inventory.known_gpus().filter(|(gpu, health)| seen.insert(&gpu.uuid) && is_published(health)).collect()
}

/// The taint of every device of a GPU that cannot be read. Its running pods stay, and no new claim gets it.
fn taint(driver: &DriverName, health: &Health) -> Option<k8s::DeviceTaint> {
    let fault = match health {
        Health::Usable => return None,
        Health::Unusable(Failure { fault, .. }) => fault,
    };
    let value = match fault {
        Fault::Failing => "Failing",
        Fault::Unsupported => "Unsupported",
        Fault::Denied => "Denied",
    };
    Some(k8s::DeviceTaint {
        key: format!("{driver}/unusable"),
        value: Some(value.to_owned()),
        effect: "NoSchedule".to_owned(),
        time_added: None,
    })
}

fn taint_of(driver: &DriverName, finding: &Finding) -> k8s::DeviceTaint {
    k8s::DeviceTaint {
        key: format!("{driver}/{}", finding.cause),
        value: Some(finding.value.clone()),
        effect: finding.effect.to_string(),
        time_added: None,
    }
}

/// The devices, each with its placement if it is a part of the GPU.
fn devices_of(
    gpu: &Gpu,
    driver: &DriverState,
    names: &DeviceNames,
    offer: &Offer,
) -> Vec<(Option<Placement>, k8s::Device)> {
    let mut seen = BTreeSet::new();
    let others = gpu.forms().into_iter().filter(|device| !matches!(device, Device::Partition(..)));
    let partitions = by_preference(gpu.partitions()).into_iter().map(|partition| Device::Partition(gpu, partition));
    others
        .chain(partitions)
        .filter(|device| offer.includes(*device))
        .map(|device| (device.placement(), publish(device, driver, names, offer)))
        .filter(|(_, device)| seen.insert(device.name.clone()))
        .collect()
}

fn publish(device: Device<'_>, driver: &DriverState, names: &DeviceNames, offer: &Offer) -> k8s::Device {
    let attributes = attributes(device, driver);
    let capacity = capacities(device, offer.shares, attributes.len());
    let gpu_name = names.gpu(&device.gpu().uuid);
    let consumes = || match device {
        Device::Gpu(gpu) | Device::Shared(gpu, _) => vec![counters::of_whole_gpu(gpu, &gpu_name)],
        Device::Mig(gpu, mig) => vec![counters::of_mig(gpu, mig, &gpu_name)],
        Device::Partition(gpu, partition) => vec![counters::of_partition(gpu, partition, &gpu_name)],
    };
    let many_claims = match device {
        Device::Gpu(_) | Device::Mig(..) | Device::Partition(..) => None,
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

/// Distributes the devices of GPUs over slices, in order. The devices of a GPU are in one slice if its limit allows, and the limit
/// is that of the devices in the slice, so a GPU with taints lowers it only for its own slice. A GPU without devices has an empty
/// slice if it is the first, so that its first MIG device needs no new slice.
fn fill(blocks: impl Iterator<Item = Vec<k8s::Device>>) -> Vec<SliceContent> {
    let mut slices: Vec<Vec<k8s::Device>> = Vec::new();
    for mut block in blocks {
        let fits =
            |last: &Vec<k8s::Device>| last.len() + block.len() <= DeviceLimit::of(last.iter().chain(&block)).devices();
        match slices.last_mut() {
            Some(last) if fits(last) => last.append(&mut block),
            Some(_) | None if block.is_empty() => slices.push(Vec::new()),
            Some(_) | None => {
                let limit = DeviceLimit::of(&block).devices();
                let mut devices = block.into_iter();
                while devices.len() > 0 {
                    slices.push(devices.by_ref().take(limit).collect());
                }
            }
        }
    }
    slices.into_iter().map(SliceContent::Devices).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(count: usize, change: impl Fn(&mut k8s::Device)) -> Vec<k8s::Device> {
        let mut block = vec![k8s::Device::default(); count];
        block.first_mut().into_iter().for_each(change);
        block
    }

    fn plain(count: usize) -> Vec<k8s::Device> {
        block(count, |_| ())
    }

    fn tainted(count: usize) -> Vec<k8s::Device> {
        block(count, |device| device.taints = Some(vec![k8s::DeviceTaint::default()]))
    }

    fn counting(count: usize) -> Vec<k8s::Device> {
        block(count, |device| device.consumes_counters = Some(vec![k8s::DeviceCounterConsumption::default()]))
    }

    fn listing(count: usize) -> Vec<k8s::Device> {
        let list = k8s::DeviceAttribute { strings: Some(vec![String::new()]), ..k8s::DeviceAttribute::default() };
        block(count, |device| device.attributes = Some([("a".to_owned(), list.clone())].into()))
    }

    #[test]
    fn the_limit_of_a_slice_depends_on_its_devices() {
        for (blocks, expect) in [
            (vec![plain(64), plain(64)], vec![128]),
            (vec![plain(128), plain(1)], vec![128, 1]),
            (vec![plain(40), tainted(40)], vec![40, 40]),
            (vec![tainted(40), plain(24)], vec![64]),
            (vec![tainted(40), plain(25)], vec![40, 25]),
            (vec![plain(100), counting(8), plain(28)], vec![100, 36]),
            (vec![counting(65)], vec![64, 1]),
            (vec![listing(65)], vec![64, 1]),
            (vec![tainted(40), plain(100), plain(28)], vec![40, 128]),
            (vec![plain(0), plain(3)], vec![3]),
        ] {
            let slices = fill(blocks.into_iter());
            assert_eq!(slices.iter().map(|slice| slice.devices().len()).collect::<Vec<_>>(), expect);
            for slice in slices {
                assert!(slice.devices().len() <= DeviceLimit::of(slice.devices()).devices());
            }
        }
    }
}
