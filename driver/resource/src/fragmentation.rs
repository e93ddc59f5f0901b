// SPDX-License-Identifier: Apache-2.0
//! How well what is free of a GPU can still be used: the largest profile that can be created, and the memory that no profile can
//! have.

use dra_model::{Bytes, Engines, MigLayout, MigProfile, Partition, Placement};

/// The free part of one GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Free {
    /// Memory of the largest partition that can be created; none if none can.
    pub largest: Bytes,
    /// Memory slices without a GPU instance.
    pub slices: u32,
    /// Of those, how many the best set of further partitions leaves.
    pub unusable: u32,
}

/// What is free beside GPU instances, given as profile id and placement.
pub fn free(layout: &MigLayout, taken: &[(u32, Placement)]) -> Free {
    let state = State::beside(layout, taken);
    let possible: Vec<Partition<'_>> = layout.partitions().filter(|partition| state.admits(*partition)).collect();
    let slices = layout.memory_slices.saturating_sub(state.covered.count_ones());
    let largest = possible.iter().map(|partition| partition.profile.memory).max().unwrap_or_default();
    let unusable = slices.saturating_sub(state.most_slices(&cheapest(&possible), slices));
    Free { largest, slices, unusable }
}

/// Whether a partition can be created beside GPU instances, given as profile id and placement.
pub fn admits(layout: &MigLayout, taken: &[(u32, Placement)], partition: Partition<'_>) -> bool {
    State::beside(layout, taken).admits(partition)
}

/// Of several partitions at one placement those that no other one undercuts.
fn cheapest<'a>(partitions: &[Partition<'a>]) -> Vec<Partition<'a>> {
    let undercuts = |one: &Partition<'_>, other: &Partition<'_>| {
        one.placement == other.placement
            && one.profile.id != other.profile.id
            && one.profile.slices <= other.profile.slices
            && one.profile.engines.fits_in(other.profile.engines)
    };
    partitions.iter().filter(|one| !partitions.iter().any(|other| undercuts(other, one))).copied().collect()
}

/// What the GPU instances of a GPU have.
#[derive(Clone, Copy)]
struct State {
    /// One bit for each memory slice.
    covered: u64,
    compute_slices: u32,
    engines: Engines,
}

impl State {
    fn beside(layout: &MigLayout, taken: &[(u32, Placement)]) -> Self {
        taken.iter().fold(Self::empty(layout), |state, (id, placement)| state.with(layout.profile(*id), *placement))
    }

    fn empty(layout: &MigLayout) -> Self {
        Self { covered: 0, compute_slices: layout.compute_slices(), engines: layout.engines }
    }

    /// With one instance more. An instance of an unknown profile has its memory slices.
    fn with(self, profile: Option<&MigProfile>, placement: Placement) -> Self {
        let (slices, engines) = profile.map(|profile| (profile.slices, profile.engines)).unwrap_or_default();
        Self {
            covered: self.covered | mask(placement),
            compute_slices: self.compute_slices.saturating_sub(slices),
            engines: self.engines.without(engines),
        }
    }

    fn admits(self, partition: Partition<'_>) -> bool {
        let Partition { profile, placement } = partition;
        self.covered & mask(placement) == 0
            && profile.slices <= self.compute_slices
            && profile.engines.fits_in(self.engines)
    }

    /// The most of these free memory slices that further partitions can have together, by trying sets of them.
    fn most_slices(self, possible: &[Partition<'_>], free: u32) -> u32 {
        let Some((first, rest)) = possible.split_first() else { return 0 };
        let size = first.placement.size;
        let with = if self.admits(*first) {
            let next = self.with(Some(first.profile), first.placement);
            size.saturating_add(next.most_slices(rest, free.saturating_sub(size)))
        } else {
            0
        };
        if with >= free { with } else { with.max(self.most_slices(rest, free)) }
    }
}

fn mask(placement: Placement) -> u64 {
    placement.slices().filter(|slice| *slice < u64::BITS).fold(0, |mask, slice| mask | 1 << slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(id: u32, slices: u32, size: u32, starts: &[u32], ofa_engines: u32) -> MigProfile {
        MigProfile {
            id,
            name: format!("{slices}g"),
            slices,
            memory: Bytes::from_mib(u64::from(size) * 10_000),
            engines: Engines { ofa_engines, ..Engines::default() },
            placements: starts.iter().map(|start| Placement { start: *start, size }).collect(),
        }
    }

    /// As an H100.
    fn layout() -> MigLayout {
        let profiles = vec![
            profile(0, 7, 8, &[0], 1),
            profile(5, 4, 4, &[0], 0),
            profile(9, 3, 4, &[0, 4], 0),
            profile(14, 2, 2, &[0, 2, 4], 0),
            profile(15, 1, 2, &[0, 2, 4, 6], 0),
            profile(19, 1, 1, &[0, 1, 2, 3, 4, 5, 6], 0),
            profile(20, 1, 1, &[0, 1, 2, 3, 4, 5, 6], 1),
        ];
        let engines = Engines { ofa_engines: 1, ..Engines::default() };
        MigLayout { memory_slices: 8, engines, resetless: true, profiles }
    }

    #[test]
    fn what_no_profile_can_have_is_unusable() {
        let at = |start, size| Placement { start, size };
        for (taken, largest, slices, unusable) in [
            (vec![], 80_000, 8, 0),
            (vec![(0, at(0, 8))], 0, 0, 0),
            // Six of seven compute slices: no profile of the last one starts at a free memory slice.
            (vec![(9, at(0, 4)), (9, at(4, 4))], 0, 0, 0),
            (vec![(9, at(0, 4))], 40_000, 4, 0),
            // Small profiles in the middle of both halves.
            (vec![(19, at(1, 1)), (19, at(5, 1))], 20_000, 6, 0),
            // The last memory slice is of no profile of one slice.
            (vec![(19, at(6, 1))], 40_000, 7, 1),
            (vec![(9, at(0, 4)), (14, at(4, 2)), (19, at(6, 1))], 0, 1, 1),
        ] {
            let expect = Free { largest: Bytes::from_mib(largest), slices, unusable };
            assert_eq!(free(&layout(), &taken), expect, "{taken:?}");
        }
    }
}
