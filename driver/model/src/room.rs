// SPDX-License-Identifier: Apache-2.0
//! Room for several GPU instances at once.

use std::cmp::Reverse;

use crate::gpu::{Gpu, MigLayout};
use crate::mig::{MigProfile, Placement};
use crate::partition::{Left, Partition};
use crate::preference::by_preference;

impl Gpu {
    /// Where GPU instances of these profiles can be created, all at once, beside those that exist and beside reserved ones, which are
    /// profile ids and placements. `None` if there is no room for all of them.
    pub fn room_for<'a>(
        &self,
        mut profiles: Vec<&'a MigProfile>,
        layout: &'a MigLayout,
        reserved: &[(u32, Placement)],
    ) -> Option<Vec<Partition<'a>>> {
        let mut taken = self.placements(|_| true);
        taken.extend(reserved);
        taken.sort_unstable();
        taken.dedup();
        // Large ones have the fewest placements.
        profiles.sort_by_key(|profile| (Reverse(profile.slices), Reverse(profile.memory), profile.id));
        let left = Left::beside(layout, &taken);
        let taken: Vec<Placement> = taken.into_iter().map(|(_, placement)| placement).collect();
        place(&profiles, &by_preference(layout.partitions().collect()), 0, left, &taken)
    }
}

/// Placements for profiles, by exact search. `candidates` are in order of preference; the first profile has one from `from` on.
fn place<'a>(
    profiles: &[&MigProfile],
    candidates: &[Partition<'a>],
    from: usize,
    left: Left,
    taken: &[Placement],
) -> Option<Vec<Partition<'a>>> {
    let Some((profile, others)) = profiles.split_first() else { return Some(Vec::new()) };
    if !left.admits(profile) {
        return None;
    }
    let is_free = |one: Placement| taken.iter().all(|other| !other.overlaps(one));
    let fits = |(_, one): &(usize, &Partition<'_>)| one.profile.id == profile.id && is_free(one.placement);
    candidates.iter().enumerate().skip(from).filter(fits).find_map(|(at, candidate)| {
        // Instances of one profile are alike, so each comes after the one before.
        let next = if others.first().is_some_and(|other| other.id == profile.id) { at + 1 } else { 0 };
        let taken = [taken, &[candidate.placement]].concat();
        let rest = place(others, candidates, next, left.without(profile), &taken)?;
        Some([vec![*candidate], rest].concat())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::MigMode;
    use crate::gpu::tests::plain_gpu as gpu;
    use crate::mig::MigOrigin;
    use crate::partition::tests::{instance, layout, on};

    /// Profile id and start of the placements for profiles by id.
    fn room(gpu: &Gpu, ids: &[u32], reserved: &[(u32, Placement)]) -> Option<Vec<(u32, u32)>> {
        let layout = layout(true);
        let profiles = ids.iter().map(|id| layout.profile(*id).unwrap()).collect();
        let found = gpu.room_for(profiles, &layout, reserved)?;
        Some(found.iter().map(|one| (one.profile.id, one.placement.start)).collect())
    }

    #[test]
    fn several_instances_have_room_together_or_not_at_all() {
        let empty = gpu(MigMode::Off(layout(true)));
        assert_eq!(room(&empty, &[], &[]), Some(vec![]));
        assert_eq!(room(&empty, &[19, 9, 9], &[]), None, "3 + 3 + 1 compute slices, but all memory slices are taken");
        assert_eq!(room(&empty, &[19, 9, 19, 19], &[]), Some(vec![(9, 4), (19, 0), (19, 1), (19, 2)]));
        assert_eq!(room(&empty, &[20, 20], &[]), None, "one OFA engine");
        assert_eq!(room(&empty, &[19; 7], &[]).map(|all| all.len()), Some(7));
        assert_eq!(room(&empty, &[19; 8], &[]), None);
        assert_eq!(room(&empty, &[0], &[]), Some(vec![(0, 0)]));
        let reserved = [(19, Placement { start: 5, size: 1 })];
        assert_eq!(room(&empty, &[9], &reserved), Some(vec![(9, 0)]));
        assert_eq!(room(&empty, &[0], &reserved), None);
        // What exists takes its place, own or foreign.
        for origin in [MigOrigin::ThisDriver, MigOrigin::Administrator] {
            let divided = on(origin, vec![instance(20, 1, 1, origin)]);
            assert_eq!(room(&divided, &[9], &[]), Some(vec![(9, 4)]));
            assert_eq!(room(&divided, &[20], &[]), None);
            assert_eq!(room(&divided, &[19; 6], &reserved), None);
            assert_eq!(room(&divided, &[19; 5], &reserved).map(|all| all.len()), Some(5));
        }
    }
}
