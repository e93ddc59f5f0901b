// SPDX-License-Identifier: Apache-2.0
//! What the order of the published MIG devices is worth: MIG devices of random profiles and lifetimes come to one GPU, and each has
//! the first placement that fits, as the scheduler decides.
//!
//! Beside the order of this driver stand that of the placements, and the best that any order could do: a GPU on which every arrival
//! fits that fits after all others are placed anew.

use std::path::Path;

use dra_hardware::discover::discover;
use dra_model::{Gpu, MigLayout, Partition, Placement, by_preference};
use dra_resource::fragmentation::admits;
use dra_sim::{Setup, Simulator, catalog};
use proptest::prelude::RngExt as _;
use proptest::test_runner::{RngAlgorithm, TestRng};

use crate::figures::{Figure, Unit};

const ARRIVALS: u32 = 50_000;

/// Profiles of an H100 by how often they come: mostly small ones.
pub(crate) const MIX: [(u32, &str); 16] = [
    (19, "1g.10gb"),
    (19, "1g.10gb"),
    (19, "1g.10gb"),
    (19, "1g.10gb"),
    (19, "1g.10gb"),
    (19, "1g.10gb"),
    (14, "2g.20gb"),
    (14, "2g.20gb"),
    (14, "2g.20gb"),
    (15, "1g.20gb"),
    (15, "1g.20gb"),
    (9, "3g.40gb"),
    (9, "3g.40gb"),
    (9, "3g.40gb"),
    (5, "4g.40gb"),
    (0, "7g.80gb"),
];

/// Of a MIG device, that it goes before the next one comes.
const END: f64 = 0.5;

pub(crate) fn measure() -> Vec<Figure> {
    let model = catalog::model("h100").expect("a model of the simulator");
    let machine =
        Simulator::new(&Setup { seed: "bench".to_owned(), gpus: vec![model], driver_version: "580.95.05".to_owned() });
    let inventory = discover(&machine, Path::new("/nonexistent"));
    let gpu = inventory.usable_gpus().next().expect("the GPU");
    let (ours, plain, best) = refused(gpu);
    let percent = |count: u32| f64::from(count) * 100.0 / f64::from(ARRIVALS);
    vec![
        Figure::promised(
            "MIG devices refused for lack of a place, to those in the order of the placements",
            f64::from(ours) / f64::from(plain),
            Unit::Ratio,
            1.0,
        ),
        Figure::measured("MIG devices refused, in the published order", percent(ours), Unit::Percent),
        Figure::measured("MIG devices refused, in the order of the placements", percent(plain), Unit::Percent),
        Figure::measured("MIG devices refused at best, by exact search", percent(best), Unit::Percent),
    ]
}

/// How many arrivals find no place: in the published order, in that of the placements, and at best.
fn refused(gpu: &Gpu) -> (u32, u32, u32) {
    let layout = gpu.mig_layout().expect("a GPU with MIG");
    let (ours, plain) = (by_preference(gpu.partitions()), gpu.partitions());
    let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let arrivals: Vec<_> =
        (0..ARRIVALS).map(|now| (MIX[random.random_range(0..MIX.len())].0, now, end(now, &mut random))).collect();
    (
        refusals(&arrivals, |profile, taken: &[(u32, Placement)]| first_fit(layout, &ours, profile, taken)),
        refusals(&arrivals, |profile, taken: &[(u32, Placement)]| first_fit(layout, &plain, profile, taken)),
        refusals(&arrivals, |profile, taken: &[u32]| {
            let all: Vec<u32> = taken.iter().copied().chain([profile]).collect();
            fits(layout, &plain, &all, &mut Vec::new()).then_some(profile)
        }),
    )
}

fn end(mut now: u32, random: &mut TestRng) -> u32 {
    while !random.random_bool(END) {
        now += 1;
    }
    now
}

/// How many arrivals, each with its profile, its time and its end, have no place.
fn refusals<T: Copy>(arrivals: &[(u32, u32, u32)], place: impl Fn(u32, &[T]) -> Option<T>) -> u32 {
    let (mut present, mut refused) = (Vec::new(), 0);
    for (profile, now, end) in arrivals {
        present.retain(|(_, end)| end >= now);
        let taken: Vec<T> = present.iter().map(|(one, _)| *one).collect();
        match place(*profile, &taken) {
            Some(one) => present.push((one, *end)),
            None => refused += 1,
        }
    }
    refused
}

fn first_fit(
    layout: &MigLayout,
    order: &[Partition<'_>],
    profile: u32,
    taken: &[(u32, Placement)],
) -> Option<(u32, Placement)> {
    let mut all = order.iter().filter(|one| one.profile.id == profile);
    all.find(|one| admits(layout, taken, **one)).map(|one| (profile, one.placement))
}

/// Whether there is a place for each of these profiles at once.
fn fits(layout: &MigLayout, all: &[Partition<'_>], profiles: &[u32], taken: &mut Vec<(u32, Placement)>) -> bool {
    let Some((first, rest)) = profiles.split_first() else { return true };
    all.iter().filter(|one| one.profile.id == *first).any(|one| {
        if !admits(layout, taken, *one) {
            return false;
        }
        taken.push((*first, one.placement));
        let fits = fits(layout, all, rest, taken);
        taken.pop();
        fits
    })
}
