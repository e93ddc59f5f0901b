// SPDX-License-Identifier: Apache-2.0
//! The counters of a pool: what allocated devices leave of them, and whether a further device fits (KEP-4815).
//!
//! A shared device consumes its counters once, however many claims have a share of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::amount::Amount;
use crate::device::Device;
use crate::pool::Pool;
use crate::usage::{Kind, PoolUsage};

/// What is free of each counter, by counter set and counter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FreeCounters(BTreeMap<Arc<str>, BTreeMap<Arc<str>, Amount>>);

/// A counter of which too little is free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    pub set: Arc<str>,
    pub counter: Arc<str>,
    pub needed: Amount,
    pub free: Amount,
}

impl FreeCounters {
    /// The counters of a pool without what its allocated devices consume.
    pub fn of(pool: &Pool, usage: Option<&PoolUsage>) -> Self {
        let sets = pool.counter_sets().map(|set| (Arc::clone(&set.name), set.counters.iter().cloned().collect()));
        let mut free = Self(sets.collect());
        let Some(usage) = usage else { return free };
        for device in pool.devices().filter(|device| is_taken(device, usage)) {
            free.take(device);
        }
        free
    }

    /// The counters of one set alone.
    pub fn only(&self, set: &str) -> Self {
        Self(
            self.0
                .get_key_value(set)
                .map(|(name, counters)| (Arc::clone(name), counters.clone()))
                .into_iter()
                .collect(),
        )
    }

    /// The first counter that does not suffice. A counter that is not published limits nothing.
    pub fn shortage(&self, device: &Device) -> Option<Shortage> {
        let consumed = device.consumes.iter().flat_map(|consumption| {
            consumption.counters.iter().map(|(counter, needed)| (&consumption.set, counter, *needed))
        });
        consumed.into_iter().find_map(|(set, counter, needed)| {
            let free = *self.0.get(set)?.get(counter)?;
            let short = || Shortage { set: Arc::clone(set), counter: Arc::clone(counter), needed, free };
            (free < needed).then(short)
        })
    }

    pub fn take(&mut self, device: &Device) {
        self.change(device, Amount::minus);
    }

    pub fn release(&mut self, device: &Device) {
        self.change(device, Amount::plus);
    }

    fn change(&mut self, device: &Device, change: impl Fn(Amount, Amount) -> Amount) {
        for consumption in &device.consumes {
            let Some(set) = self.0.get_mut(&consumption.set) else { continue };
            for (counter, amount) in consumption.counters.iter() {
                if let Some(free) = set.get_mut(counter) {
                    *free = change(*free, *amount);
                }
            }
        }
    }

    /// The counters of a set; empty for an unknown one.
    pub fn set(&self, name: &str) -> impl Iterator<Item = (&Arc<str>, Amount)> {
        self.0.get(name).into_iter().flatten().map(|(counter, free)| (counter, *free))
    }
}

/// Whether a claim that is no administrator's holds the device or a share of it.
pub fn is_taken(device: &Device, usage: &PoolUsage) -> bool {
    let allocations = usage.get(device.name.as_ref()).into_iter().flatten();
    allocations.into_iter().any(|allocation| match &allocation.kind {
        Kind::Exclusive | Kind::Share(_) => true,
        Kind::Admin => false,
    })
}
