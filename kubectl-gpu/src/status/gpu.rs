// SPDX-License-Identifier: Apache-2.0
//! One GPU of a node: the devices that are its forms, the form that is in use, and what is free.

use std::collections::{BTreeMap, BTreeSet};

use dra_allocation::counters::{FreeCounters, is_taken};
use dra_allocation::device::Taint;
use dra_allocation::node::Effect;
use dra_allocation::usage::{Allocation, Kind, PoolUsage};
use dra_allocation::{Amount, Device, Pool};
use serde::Serialize;

use super::partitions::{Partitions, partitions};
use crate::bar::{Bar, Part};

/// How a GPU is used now. One GPU has one form at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Form {
    Free,
    Gpu,
    Mig,
    Mps,
    TimeSlicing,
}

impl Form {
    /// As in the API of the driver.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Gpu => "gpu",
            Self::Mig => "mig",
            Self::Mps => "mps",
            Self::TimeSlicing => "timeSlicing",
        }
    }
}

/// A GPU of a node.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gpu {
    pub name: String,
    pub uuid: Option<String>,
    pub product: Option<String>,
    #[serde(serialize_with = "quantity")]
    pub memory: Option<Amount>,
    /// Whether the driver publishes the GPU as a whole; a GPU that an administrator put into MIG mode is not.
    pub is_whole: bool,
    pub form: Form,
    #[serde(skip)]
    pub bar: Bar,
    /// The claims that hold it, without admin access.
    pub claims: usize,
    /// MIG devices that can be created or are free, and how the free memory is divided.
    pub partitions: Partitions,
    /// What is promised of a shared GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shares: Option<Vec<Shares>>,
    pub taints: Vec<String>,
    /// Whether a taint keeps new claims away that do not tolerate it.
    pub is_tainted: bool,
}

/// What claims have of one capacity of a shared GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shares {
    pub capacity: String,
    pub used: String,
    pub total: String,
    #[serde(skip)]
    pub per_mille: u32,
    #[serde(skip)]
    pub free: Amount,
}

/// The name that the devices of one GPU have in common.
pub fn name(device: &Device, driver: &str) -> String {
    let of_set = device.consumes.first().and_then(|consumption| consumption.set.strip_suffix("-counters"));
    let of_uuid = || {
        let uuid = device.text("parentUUID", driver).or_else(|| device.text("uuid", driver));
        uuid.map(str::to_owned)
    };
    let own = || device.name.split("-mig-").next().unwrap_or_default().to_owned();
    match of_set {
        Some(name) => name.to_owned(),
        None if device.name.contains("-mig-") => own(),
        None => of_uuid().filter(|_| device.is_shareable).unwrap_or_else(own),
    }
}

/// The form that a device is.
pub fn form_of(device: &Device, driver: &str) -> Form {
    match (device.text("type", driver), device.text("sharingStrategy", driver)) {
        (Some("mig"), _) => Form::Mig,
        (Some("shared-gpu"), Some("MPS")) => Form::Mps,
        (Some("shared-gpu"), _) => Form::TimeSlicing,
        (Some(_) | None, _) => Form::Gpu,
    }
}

/// A pool, its allocations, and what they leave of its counters.
pub(super) struct InPool<'a> {
    pub(super) pool: &'a Pool,
    pub(super) usage: &'a PoolUsage,
    pub(super) free: FreeCounters,
}

impl InPool<'_> {
    /// `devices` are all of the GPU.
    pub(super) fn gpu(&self, name: String, devices: &[&Device]) -> Gpu {
        let Self { pool, usage, free } = self;
        let driver = &pool.driver;
        let taken: Vec<&&Device> = devices.iter().filter(|device| is_taken(device, usage)).collect();
        let form = taken.first().map_or(Form::Free, |device| form_of(device, driver));
        let text = |name| devices.iter().find_map(|device| device.text(name, driver)).map(str::to_owned);
        let claims = taken.iter().flat_map(|device| holding(device, usage)).map(|held| held.claim);
        let shares = match form {
            Form::Mps | Form::TimeSlicing => taken.first().map(|device| shares(device, usage)),
            Form::Free | Form::Gpu | Form::Mig => None,
        };
        let taints: BTreeSet<&Taint> = devices.iter().flat_map(|device| &device.taints).collect();
        let is_tainted = taints.iter().any(|taint| taint.effect != Effect::None);
        let bar = bar(form, devices, free, usage, shares.as_deref());
        Gpu {
            name,
            uuid: text("gpuUUID").or_else(|| text("parentUUID")).or_else(|| text("uuid")),
            product: text("productName"),
            memory: memory(devices, pool),
            is_whole: devices.iter().any(|device| form_of(device, driver) == Form::Gpu),
            form,
            claims: claims.collect::<BTreeSet<_>>().len(),
            partitions: partitions(devices, driver, free, usage),
            bar: if is_tainted { bar.without_free() } else { bar },
            shares,
            taints: taints.into_iter().map(ToString::to_string).collect(),
            is_tainted,
        }
    }
}

/// The memory that the forms share, or without counters the largest of one of them.
fn memory(devices: &[&Device], pool: &Pool) -> Option<Amount> {
    let sets = devices.iter().flat_map(|device| &device.consumes).map(|consumption| &consumption.set);
    let set = sets.into_iter().find_map(|name| pool.counter_sets().find(|set| set.name == *name));
    let of_set =
        set.and_then(|set| set.counters.iter().find(|(name, _)| **name == *"memory").map(|(_, memory)| *memory));
    let of_device = |device: &&Device| device.capacity("memory", &pool.driver).map(|memory| memory.value);
    of_set.or_else(|| devices.iter().filter_map(of_device).max())
}

#[expect(clippy::ref_option, reason = "the type of a function for serde")]
fn quantity<S: serde::Serializer>(amount: &Option<Amount>, serializer: S) -> Result<S::Ok, S::Error> {
    amount.map(|amount| amount.to_string()).serialize(serializer)
}

fn holding<'a>(device: &Device, usage: &'a PoolUsage) -> impl Iterator<Item = &'a Allocation> {
    let held = usage.get(device.name.as_ref()).into_iter().flatten();
    held.filter(|held| held.kind != Kind::Admin)
}

fn shares(device: &Device, usage: &PoolUsage) -> Vec<Shares> {
    let mut used: BTreeMap<String, Amount> = BTreeMap::new();
    for held in holding(device, usage) {
        let Kind::Share(consumed) = &held.kind else { continue };
        for (name, amount) in consumed {
            let sum = used.entry(name.to_string()).or_default();
            *sum = sum.plus(*amount);
        }
    }
    let shares = device.capacity.iter().map(|capacity| {
        let used = used.get(&capacity.name.to_string()).copied().unwrap_or_default();
        Shares {
            capacity: capacity.name.id.to_string(),
            used: used.to_string(),
            total: capacity.value.to_string(),
            per_mille: used.per_mille_of(capacity.value),
            free: capacity.value.minus(used),
        }
    });
    shares.collect()
}

fn bar(form: Form, devices: &[&Device], free: &FreeCounters, usage: &PoolUsage, shares: Option<&[Shares]>) -> Bar {
    // The scarcest capacity limits further shares.
    let scarcest = shares.into_iter().flatten().map(|share| share.per_mille).max().unwrap_or_default();
    match form {
        Form::Free => Bar::of_share(0, Part::Used),
        Form::Gpu => Bar::of_share(1000, Part::Used),
        Form::Mps => Bar::of_share(scarcest, Part::Mps),
        Form::TimeSlicing => Bar::of_share(scarcest, Part::TimeSliced),
        Form::Mig => {
            let slices = slices(devices, free);
            if slices.is_empty() { of_static(devices, usage) } else { Bar::of_parts(slices) }
        }
    }
}

/// The memory slices in their order, by the counters of the GPU.
fn slices(devices: &[&Device], free: &FreeCounters) -> Vec<Part> {
    let set = devices.iter().flat_map(|device| &device.consumes).map(|consumption| &consumption.set).next();
    let Some(set) = set else { return Vec::new() };
    let numbered = free.set(set).filter_map(|(name, free)| {
        let number: usize = name.strip_prefix("memory-slice-")?.parse().ok()?;
        Some((number, if free.is_positive() { Part::Free } else { Part::Used }))
    });
    numbered.collect::<BTreeMap<_, _>>().into_values().collect()
}

/// MIG devices without counters: one part for each.
fn of_static(devices: &[&Device], usage: &PoolUsage) -> Bar {
    let part = |device: &&Device| if is_taken(device, usage) { Part::Used } else { Part::Free };
    Bar::of_parts(devices.iter().map(part).collect())
}

impl Gpu {
    /// The GPU as one part of its node.
    pub fn part(&self) -> Part {
        match self.form {
            Form::Free if self.is_tainted => Part::Unusable,
            Form::Free => Part::Free,
            Form::Gpu | Form::Mig => Part::Used,
            Form::Mps => Part::Mps,
            Form::TimeSlicing => Part::TimeSliced,
        }
    }
}
