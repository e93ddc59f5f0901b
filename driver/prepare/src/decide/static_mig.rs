// SPDX-License-Identifier: Apache-2.0
//! Which instances a GPU lacks for the static MIG devices that an administrator wants on it. Pure.
//!
//! MIG devices of administrators count, those of claims do not. So a plan that was carried out in part is completed by
//! the next one: a GPU instance without its compute instances gets them.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use dra_model::{Gpu, GpuInstance, MigIdentity, MigLayout, MigOrigin, MigProfile, Partition, Placement};

/// MIG devices of one profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticMig {
    /// Of the GPU instance, such as `1g.10gb+me`.
    pub profile: String,
    /// Compute slices of the compute instance; those of the GPU instance if absent.
    pub compute_slices: Option<u32>,
    pub count: u32,
}

/// A GPU instance and the compute instances to create in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Addition {
    /// The MIG device that spans the GPU instance.
    pub(crate) gpu_instance: MigIdentity,
    pub(crate) exists: bool,
    /// Compute slices of each.
    pub(crate) compute_instances: Vec<u32>,
}

/// Why a GPU cannot have the devices.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlan {
    #[error("MIG profile {profile} is unknown, the profiles are {known}")]
    Profile { profile: String, known: String },
    #[error("no room for {missing}{}", beside(existing))]
    Room { missing: String, existing: String },
}

fn beside(existing: &str) -> String {
    if existing.is_empty() { String::new() } else { format!(" beside {existing}") }
}

/// Plans the instances that are missing. `reserved` are profile ids and placements of partitions of claims, which may exist.
pub(crate) fn plan(
    gpu: &Gpu,
    layout: &MigLayout,
    wanted: &[StaticMig],
    reserved: &[(u32, Placement)],
) -> Result<Vec<Addition>, NoPlan> {
    let missing = missing(gpu, layout, wanted)?;
    let mut rooms = existing_rooms(gpu, layout, reserved);
    for (profile, slices) in &missing {
        let fits = |room: &&mut Room<'_>| room.profile.id == profile.id && room.free() >= *slices;
        match rooms.iter_mut().find(fits) {
            Some(room) => room.added.push(*slices),
            None => rooms.push(Room { profile, placement: None, taken: 0, added: vec![*slices] }),
        }
    }
    let new = rooms.iter().filter(|room| room.placement.is_none()).map(|room| room.profile);
    let mut placed = gpu.room_for(new.collect(), layout, reserved).ok_or_else(|| no_room(gpu, &missing))?;
    Ok(rooms.into_iter().filter_map(|room| room.addition(gpu, &mut placed)).collect())
}

/// A GPU instance, existing or planned.
struct Room<'a> {
    profile: &'a MigProfile,
    /// Absent if it does not exist.
    placement: Option<Placement>,
    /// Compute slices that compute instances have.
    taken: u32,
    /// Compute slices of those that are planned.
    added: Vec<u32>,
}

impl Room<'_> {
    fn free(&self) -> u32 {
        self.profile.slices.saturating_sub(self.taken).saturating_sub(self.added.iter().sum())
    }

    /// `placed` has a placement for each GPU instance that does not exist.
    fn addition(self, gpu: &Gpu, placed: &mut Vec<Partition<'_>>) -> Option<Addition> {
        let placement = self.placement.or_else(|| {
            let at = placed.iter().position(|partition| partition.profile.id == self.profile.id)?;
            Some(placed.swap_remove(at).placement)
        })?;
        let gpu_instance = Partition { profile: self.profile, placement }.identity(&gpu.uuid);
        let addition = Addition { gpu_instance, exists: self.placement.is_some(), compute_instances: self.added };
        (!addition.compute_instances.is_empty()).then_some(addition)
    }
}

/// The devices that are missing, each with its profile and compute slices, large ones first.
fn missing<'a>(gpu: &Gpu, layout: &'a MigLayout, wanted: &[StaticMig]) -> Result<Vec<(&'a MigProfile, u32)>, NoPlan> {
    let mut devices = Vec::new();
    for StaticMig { profile: name, compute_slices, count } in wanted {
        let profile = layout.profiles.iter().find(|profile| profile.name == *name);
        let profile = profile.ok_or_else(|| NoPlan::Profile { profile: name.clone(), known: names(layout) })?;
        let slices = compute_slices.unwrap_or(profile.slices);
        devices.extend((0..*count).take(MAX_DEVICES).map(|_| (profile, slices)));
    }
    for mig in gpu.foreign_mig_devices() {
        let kind = (mig.identity.profile_id, mig.identity.share.slices);
        if let Some(at) = devices.iter().position(|(profile, slices)| (profile.id, *slices) == kind) {
            devices.swap_remove(at);
        }
    }
    devices.sort_by_key(|(profile, slices)| (Reverse(profile.slices), profile.id, Reverse(*slices)));
    Ok(devices)
}

/// Beyond what a GPU can have, which is 8 GPU instances with 1 to 8 compute instances.
const MAX_DEVICES: usize = 65;

/// The GPU instances of administrators.
fn existing_rooms<'a>(gpu: &Gpu, layout: &'a MigLayout, reserved: &[(u32, Placement)]) -> Vec<Room<'a>> {
    let foreign = gpu.gpu_instances().iter().filter(|one| one.origin == MigOrigin::Administrator);
    let free = foreign.filter(|one| !reserved.contains(&(one.profile_id, one.placement)));
    let room = |one: &GpuInstance| {
        let inside = gpu.mig_devices().iter().filter(|mig| mig.gpu_instance == one.id);
        let taken = inside.map(|mig| mig.identity.share.slices).sum();
        let profile = layout.profile(one.profile_id)?;
        Some(Room { profile, placement: Some(one.placement), taken, added: Vec::new() })
    };
    free.filter_map(room).collect()
}

fn no_room(gpu: &Gpu, missing: &[(&MigProfile, u32)]) -> NoPlan {
    let missing = missing.iter().map(|(profile, slices)| {
        let part = if *slices == profile.slices { String::new() } else { format!("{slices}c.") };
        format!("{part}{}", profile.name)
    });
    let existing = gpu.mig_devices().iter().map(|mig| mig.profile.clone());
    NoPlan::Room { missing: counted(missing), existing: counted(existing) }
}

/// `2 x 1g.10gb, 1 x 3g.40gb`.
fn counted(names: impl Iterator<Item = String>) -> String {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    counts.iter().map(|(name, count)| format!("{count} x {name}")).collect::<Vec<_>>().join(", ")
}

fn names(layout: &MigLayout) -> String {
    layout.profiles.iter().map(|profile| profile.name.as_str()).collect::<Vec<_>>().join(", ")
}
