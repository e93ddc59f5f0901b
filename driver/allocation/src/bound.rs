// SPDX-License-Identifier: Apache-2.0
//! How many of some devices the counters allow beside each other, at most.
//!
//! Counter sets are independent, so each is searched for itself: the partitions of one GPU are few. Without this bound a search for one
//! partition more than fits would try every combination on every GPU.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::amount::Amount;
use crate::counters::FreeCounters;
use crate::device::Device;

/// Steps for one counter set, after which the bound is less tight.
const MAX_STEPS: u32 = 5_000;

/// The devices of one pool that counters limit, and those of it that are free of them.
#[derive(Debug, Default)]
pub(crate) struct Group<'a> {
    limited: BTreeMap<&'a Arc<str>, Vec<&'a Device>>,
    unlimited: usize,
}

impl<'a> Group<'a> {
    /// Adds a device that takes counters; one of several sets counts as free of them, which makes the bound no smaller.
    pub(crate) fn limited(&mut self, device: &'a Device) {
        match device.consumes.as_slice() {
            [one] => self.limited.entry(&one.set).or_default().push(device),
            _ => self.unlimited += 1,
        }
    }

    /// Adds a device whose counters are taken already.
    pub(crate) fn unlimited(&mut self) {
        self.unlimited += 1;
    }

    /// The most devices that can be taken together.
    pub(crate) fn most(&self, free: &FreeCounters) -> usize {
        self.limited.iter().map(|(set, devices)| Packing::new(free, set, devices).most()).sum::<usize>()
            + self.unlimited
    }
}

/// The devices of one counter set: their consumption by the position of the counter.
struct Packing {
    /// The ones that consume least come first.
    devices: Vec<Vec<Amount>>,
    free: Vec<Amount>,
    /// The least consumption of the devices from a position on.
    least: Vec<Vec<Amount>>,
    best: usize,
    steps: u32,
}

impl Packing {
    fn new(free: &FreeCounters, set: &str, devices: &[&Device]) -> Self {
        let counters: Vec<(&Arc<str>, Amount)> = free.set(set).collect();
        let consumption = |device: &&Device| -> Vec<Amount> {
            let consumed = device.consumes.iter().flat_map(|found| found.counters.iter());
            let consumed: BTreeMap<&Arc<str>, Amount> = consumed.map(|(name, amount)| (name, *amount)).collect();
            counters.iter().map(|(name, _)| consumed.get(name).copied().unwrap_or_default()).collect()
        };
        let free: Vec<Amount> = counters.iter().map(|(_, amount)| *amount).collect();
        let fits = |device: &Vec<Amount>| device.iter().zip(&free).all(|(amount, free)| amount <= free);
        let mut devices: Vec<Vec<Amount>> = devices.iter().map(consumption).filter(fits).collect();
        let share = |device: &Vec<Amount>| {
            device.iter().zip(&free).map(|(amount, free)| amount.per_mille_of(*free)).sum::<u32>()
        };
        devices.sort_by_key(share);
        let mut least: Vec<Vec<Amount>> = Vec::new();
        for device in devices.iter().rev() {
            let next = match least.last() {
                Some(after) => device.iter().zip(after).map(|(one, other)| *one.min(other)).collect(),
                None => device.clone(),
            };
            least.push(next);
        }
        least.reverse();
        Self { devices, free, least, best: 0, steps: 0 }
    }

    fn most(mut self) -> usize {
        self.search(0, 0);
        if self.steps > MAX_STEPS { self.room(0).max(self.best) } else { self.best }
    }

    /// What the counters that all devices from a position on consume allow at most.
    fn room(&self, from: usize) -> usize {
        let left = self.devices.len().saturating_sub(from);
        let Some(least) = self.least.get(from) else { return 0 };
        let rooms = least.iter().zip(&self.free).filter(|(least, _)| least.is_positive());
        let rooms = rooms.map(|(least, free)| usize::try_from(free.parts(*least)).unwrap_or_default());
        rooms.min().map_or(left, |room| room.min(left))
    }

    fn search(&mut self, from: usize, taken: usize) {
        self.best = self.best.max(taken);
        self.steps += 1;
        if self.steps > MAX_STEPS || taken + self.room(from) <= self.best {
            return;
        }
        for at in from..self.devices.len() {
            if taken + self.room(at) <= self.best {
                return;
            }
            let Some(device) = self.devices.get(at).cloned() else { return };
            if !device.iter().zip(&self.free).all(|(amount, free)| amount <= free) {
                continue;
            }
            self.change(&device, Amount::minus);
            self.search(at + 1, taken + 1);
            self.change(&device, Amount::plus);
        }
    }

    fn change(&mut self, device: &[Amount], change: impl Fn(Amount, Amount) -> Amount) {
        for (free, amount) in self.free.iter_mut().zip(device) {
            *free = change(*free, *amount);
        }
    }
}
