// SPDX-License-Identifier: Apache-2.0
//! The order in which the partitions of a GPU are published, which is the order in which the scheduler tries them.
//!
//! The smallest profile comes first, so that a request by memory or multiprocessors takes no more than it needs. The placements of
//! a profile come in the order of the number of other partitions that they make impossible, so that small profiles fill the
//! positions that break the fewest large ones. The order is the same whatever is allocated, because publishing does not depend on
//! running claims.

use crate::engines::Engines;
use crate::partition::Partition;

/// Sorts all partitions of one GPU.
pub fn by_preference(mut partitions: Vec<Partition<'_>>) -> Vec<Partition<'_>> {
    let all = partitions.clone();
    let broken = |one: &Partition<'_>| all.iter().filter(|other| other.placement.overlaps(one.placement)).count();
    partitions.sort_by_cached_key(|one| {
        let profile = one.profile;
        let size = (profile.memory, profile.engines.multiprocessors, media_engines(&profile.engines), profile.id);
        (size, broken(one), one.placement)
    });
    partitions
}

/// The engines that few partitions can have.
fn media_engines(engines: &Engines) -> u32 {
    let Engines { multiprocessors: _, copy_engines: _, decoders, encoders, jpeg_engines, ofa_engines } = *engines;
    [decoders, encoders, jpeg_engines, ofa_engines].into_iter().fold(0, u32::saturating_add)
}
