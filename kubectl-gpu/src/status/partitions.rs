// SPDX-License-Identifier: Apache-2.0
//! The MIG devices that claims can still get of a GPU, and how fragmented its free memory is.

use std::collections::BTreeMap;

use dra_allocation::counters::{FreeCounters, is_taken};
use dra_allocation::usage::PoolUsage;
use dra_allocation::{Amount, Device};
use serde::Serialize;

/// What is free of a GPU for MIG devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Partitions {
    /// How many devices of a profile fit, if no other profile is created beside them; largest profile first.
    pub free: Vec<Fitting>,
    /// Memory that no claim has; absent without counters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_memory: Option<String>,
    /// Percent of the free memory that the largest profile which fits leaves: 0 means that the free memory is in one piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fragmented_percent: Option<u32>,
}

/// A profile that fits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fitting {
    pub profile: String,
    pub count: usize,
}

/// `free` are the counters of the pool, `devices` those of one GPU.
pub(super) fn partitions(devices: &[&Device], driver: &str, free: &FreeCounters, usage: &PoolUsage) -> Partitions {
    let set = devices.iter().flat_map(|device| &device.consumes).map(|consumption| &consumption.set).next();
    let free = &set.map(|set| free.only(set)).unwrap_or_default();
    let mut profiles: BTreeMap<&str, Vec<&Device>> = BTreeMap::new();
    for device in devices {
        if let Some(profile) = device.text("profile", driver) {
            profiles.entry(profile).or_default().push(device);
        }
    }
    let memory = |device: &Device| device.capacity("memory", driver).map(|found| found.value).unwrap_or_default();
    let fitting = profiles.into_iter().filter_map(|(profile, devices)| {
        let count = fitting(&devices, free, usage);
        let largest = devices.iter().map(|device| memory(device)).max()?;
        (count > 0).then_some((largest, profile, count))
    });
    let mut fitting: Vec<(Amount, &str, usize)> = fitting.collect();
    fitting.sort_by(|one, other| other.0.cmp(&one.0).then(one.1.cmp(other.1)));
    let free_memory = set.and_then(|set| free.set(set).find(|(name, _)| ***name == *"memory").map(|(_, free)| free));
    let largest = fitting.first().map(|(memory, ..)| *memory).unwrap_or_default();
    let fragmented = |free: Amount| 100 - (largest.per_mille_of(free) + 5) / 10;
    let is_divided = !fitting.is_empty() || devices.iter().any(|device| device.text("profile", driver).is_some());
    Partitions {
        free_memory: free_memory.map(|free| free.to_string()),
        fragmented_percent: free_memory.filter(|free| free.is_positive() && is_divided).map(fragmented),
        free: fitting.into_iter().map(|(_, profile, count)| Fitting { profile: profile.to_owned(), count }).collect(),
    }
}

/// Devices of one profile that fit beside each other, by taking them in the order of their names. Placements of one profile have one
/// size, so a device that is taken first never keeps more than one other from fitting.
fn fitting(devices: &[&Device], free: &FreeCounters, usage: &PoolUsage) -> usize {
    let mut free = free.clone();
    let mut count = 0;
    for device in devices {
        if !is_taken(device, usage) && free.shortage(device).is_none() {
            free.take(device);
            count += 1;
        }
    }
    count
}
