// SPDX-License-Identifier: Apache-2.0
//! Shared counters, by which the forms of one GPU exclude each other: one counter set per physical GPU (KEP-4815).
//!
//! A counter for each memory slice makes placements exclusive; a counter for each kind of engine limits the sum of several MIG
//! devices. The whole GPU consumes all counters. The scheduler never exceeds a counter, so a GPU is never allocated twice in different
//! forms.
//!
//! The counter `memory` restricts nothing beyond the memory slices. It is for quota by memory, with the same name on every GPU.

use std::collections::BTreeMap;

use dra_model::{Bytes, Gpu, MigDevice, Partition, Placement};
use k8s_openapi::api::resource::v1::{Counter, CounterSet, DeviceCounterConsumption};

use crate::capacity::engines;
use crate::limits;
use crate::names;
use crate::quantity::{Milli, binary, decimal, fraction};

/// Number of engine kinds, each with a counter.
const ENGINE_KINDS: u32 = 6;

/// Limit of memory-slice counters in a set, beside the engines and `memory`; GPUs have 8 memory slices.
const MEMORY_COUNTERS: u32 = {
    assert!(limits::COUNTERS == 32, "the next line depends on the limit of the API");
    32 - ENGINE_KINDS - 1
};

/// Amounts by name of the counter, and of the counter `memory`.
#[derive(Debug, Default)]
struct Amounts {
    counts: BTreeMap<String, Milli>,
    memory: Bytes,
}

/// The name of the counter set of a GPU, from the name of its device.
pub fn set_name(gpu_name: &str) -> String {
    format!("{gpu_name}-counters")
}

/// The counter set of a GPU.
pub fn counter_set(gpu: &Gpu, gpu_name: &str) -> CounterSet {
    CounterSet { name: set_name(gpu_name), counters: rendered(totals(gpu)) }
}

/// The consumption of the whole GPU, shared or not: all counters.
pub fn of_whole_gpu(gpu: &Gpu, gpu_name: &str) -> DeviceCounterConsumption {
    consumption(gpu_name, totals(gpu))
}

/// The consumption of a MIG device: its engines and memory slices.
pub fn of_mig(gpu: &Gpu, mig: &MigDevice, gpu_name: &str) -> DeviceCounterConsumption {
    consumption(gpu_name, consumed(gpu, mig))
}

/// The consumption of a partition: its engines and memory slices, whether it exists or not.
pub fn of_partition(gpu: &Gpu, partition: Partition<'_>, gpu_name: &str) -> DeviceCounterConsumption {
    let Partition { profile, placement } = partition;
    let counts = engines(&profile.engines).into_iter();
    let mut counts: BTreeMap<String, Milli> =
        counts.map(|(_, counter, count)| (counter.to_owned(), Milli::from_count(count))).collect();
    counts.extend(memory_counters(gpu, placement).map(|at| (memory_counter(at), Milli::ONE)));
    consumption(gpu_name, Amounts { counts, memory: profile.memory })
}

fn consumption(gpu_name: &str, amounts: Amounts) -> DeviceCounterConsumption {
    DeviceCounterConsumption {
        counter_set: set_name(gpu_name),
        counters: rendered(amounts),
        compatibility_groups: None,
    }
}

fn rendered(Amounts { counts, memory }: Amounts) -> BTreeMap<String, Counter> {
    let counts = counts.into_iter().filter(|(_, amount)| *amount > Milli(0));
    let memory = (memory.0 > 0).then(|| (names::MEMORY.to_owned(), binary(memory)));
    let counts = counts.map(|(name, amount)| (name, decimal(amount)));
    counts.chain(memory).map(|(name, value)| (name, Counter { value })).collect()
}

/// The memory of the GPU or of its largest profile, and of each engine the maximum of all profiles, or the sum of the MIG devices of an administrator if that
/// is more.
fn totals(gpu: &Gpu) -> Amounts {
    let mut totals: BTreeMap<String, Milli> = BTreeMap::new();
    let mut cut = 0_u64;
    for mig in gpu.foreign_mig_devices() {
        cut = cut.saturating_add(memory_consumed(mig).0);
        for (counter, amount) in engines_consumed(mig) {
            let total = totals.entry(counter).or_default();
            *total = total.plus(amount);
        }
    }
    if let Some(layout) = gpu.mig_layout() {
        for (_, counter, count) in engines(&layout.engines) {
            let total = totals.entry(counter.to_owned()).or_default();
            *total = (*total).max(Milli::from_count(count));
        }
    }
    totals.extend((0..memory_slices(gpu).min(MEMORY_COUNTERS)).map(|slice| (memory_counter(slice), Milli::ONE)));
    let profiles = gpu.mig_layout().into_iter().flat_map(|layout| &layout.profiles);
    let largest = profiles.map(|profile| profile.memory).max().unwrap_or_default();
    Amounts { counts: totals, memory: gpu.memory.unwrap_or_default().max(Bytes(cut)).max(largest) }
}

fn consumed(gpu: &Gpu, mig: &MigDevice) -> Amounts {
    let share = mig.identity.share;
    let slice = Milli::ONE.fraction(share.slices, share.of);
    let mut consumed: BTreeMap<String, Milli> = engines_consumed(mig).collect();
    consumed.extend(memory_counters(gpu, mig.identity.placement).map(|at| (memory_counter(at), slice)));
    Amounts { counts: consumed, memory: memory_consumed(mig) }
}

/// The memory of a GPU instance; a compute instance that does not span it counts its fraction in whole MiB.
fn memory_consumed(mig: &MigDevice) -> Bytes {
    let share = mig.identity.share;
    if share.is_whole() {
        return mig.memory;
    }
    Bytes::from_mib(fraction(mig.memory.mib(), share.slices, share.of))
}

/// Multiprocessors belong to the compute instance; all other engines belong to the GPU instance, of which a compute instance counts
/// its fraction, so that siblings fit together.
fn engines_consumed(mig: &MigDevice) -> impl Iterator<Item = (String, Milli)> {
    let share = mig.identity.share;
    engines(&mig.engines).into_iter().map(move |(capacity, counter, count)| {
        let amount = Milli::from_count(count);
        let own = capacity == "multiprocessors";
        (counter.to_owned(), if own { amount } else { amount.fraction(share.slices, share.of) })
    })
}

/// The number of memory slices of a GPU; one for a GPU without MIG.
fn memory_slices(gpu: &Gpu) -> u32 {
    let known = gpu.mig_layout().map_or(1, |layout| layout.memory_slices);
    gpu.foreign_mig_devices().map(|mig| end(mig.identity.placement)).fold(known.max(1), u32::max)
}

fn end(placement: Placement) -> u32 {
    placement.start.saturating_add(placement.size)
}

/// The counters of a placement. If a GPU had more slices than counters, neighbouring slices would share a counter.
fn memory_counters(gpu: &Gpu, placement: Placement) -> impl Iterator<Item = u32> {
    let slices = memory_slices(gpu);
    let counter_of = move |slice: u32| {
        let scaled = u64::from(slice) * u64::from(slices.min(MEMORY_COUNTERS)) / u64::from(slices);
        u32::try_from(scaled).unwrap_or(0)
    };
    let last = end(placement).saturating_sub(1).max(placement.start);
    counter_of(placement.start.min(slices.saturating_sub(1)))..=counter_of(last.min(slices.saturating_sub(1)))
}

fn memory_counter(slice: u32) -> String {
    format!("memory-slice-{slice}")
}
