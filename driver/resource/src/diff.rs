// SPDX-License-Identifier: Apache-2.0
//! Desired slices against what the API server has: the writes that make them equal, in order.
//!
//! Consumers of a pool use only the slices of its highest generation, and only when there are as many of them as
//! `resourceSliceCount` says (KEP-4381). So a change in one slice is one atomic write and keeps the generation, and so
//! does putting back slices that went missing while the rest is right: the pool is incomplete until the last is there.
//! Any other change takes a new generation and rewrites every slice. Writes are ordered delete, update, create; after
//! them the diff is empty, and it is empty from the start when nothing changed.
//!
//! Never here: talking to the API server, deciding what to do when a write fails (list again, diff again).

use std::collections::{BTreeMap, BTreeSet};

use dra_model::NodeName;
use k8s_openapi::api::resource::v1::{Device, DeviceTaint, ResourcePool, ResourceSlice, ResourceSliceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};

use crate::names::{DriverName, slice_name, slice_names};
use crate::pack::SliceContent;

/// Whose slices these are. The pool is named after its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// The driver that publishes it.
    pub driver: DriverName,
    /// The node its devices are on.
    pub node: NodeName,
    /// The UID of the Node object, which owns the slices: they go when it goes.
    pub node_uid: String,
}

/// One request to the API server.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Delete a slice that should not exist.
    Delete {
        /// Its name.
        name: String,
        /// Delete it only if it is still this one.
        precondition: Precondition,
    },
    /// Replace a slice (PUT); it carries the resource version it was read with.
    Update(Box<ResourceSlice>),
    /// Create a slice.
    Create(Box<ResourceSlice>),
}

/// Which object was looked at when a delete was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Precondition {
    /// Its UID.
    pub uid: Option<String>,
    /// Its resource version.
    pub resource_version: Option<String>,
}

impl Write {
    /// The slice as it should be; nothing when it should not.
    pub fn slice(&self) -> Option<&ResourceSlice> {
        match self {
            Self::Delete { .. } => None,
            Self::Update(slice) | Self::Create(slice) => Some(slice),
        }
    }

    /// The name of the slice that is written.
    pub fn slice_name(&self) -> &str {
        match self {
            Self::Delete { name, .. } => name,
            Self::Update(slice) | Self::Create(slice) => slice.metadata.name.as_deref().unwrap_or_default(),
        }
    }
}

/// The writes that make the observed slices of a pool equal to the desired ones. Slices of other drivers and nodes
/// among the observed are left alone, and no new slice gets the name of one.
pub fn diff(pool: &Pool, desired: &[SliceContent], observed: &[ResourceSlice]) -> Vec<Write> {
    let mut ours: BTreeMap<&str, &ResourceSlice> =
        observed.iter().filter(|slice| pool.has(slice)).map(|slice| (name_of(slice), slice)).collect();
    let newest = ours.values().filter(|s| pool.has_in_pool(s)).map(|s| s.spec.pool.generation).max().unwrap_or(0);
    let published = published_devices(&ours);
    let foreign: BTreeSet<&str> = observed.iter().filter(|slice| !pool.has(slice)).map(name_of).collect();
    let mut targets = Vec::with_capacity(desired.len());
    for (index, content) in desired.iter().enumerate() {
        let found = slice_names(index, &pool.driver, &pool.node)
            .find_map(|name| ours.get(name.as_str()).copied().filter(|slice| pool.has_in_pool(slice)));
        if let Some(slice) = found {
            ours.remove(name_of(slice));
        }
        let spec = pool.spec(with_known_times(content, &published), newest, desired.len());
        targets.push(Target { name: pool.free_name(index, &foreign), spec, found });
    }
    let deletes = ours.into_values().map(delete);
    deletes.chain(pool.writes(targets, newest)).collect()
}

/// A slice that should exist, and the one that does under one of its names.
struct Target<'a> {
    /// The name to create it under.
    name: String,
    spec: ResourceSliceSpec,
    found: Option<&'a ResourceSlice>,
}

impl Pool {
    /// Whether a slice is this driver's and of this node.
    pub fn has(&self, slice: &ResourceSlice) -> bool {
        slice.spec.driver == self.driver.as_str() && slice.spec.node_name.as_deref() == Some(self.node.as_str())
    }

    /// Pool names are immutable, so a slice in another pool can only be deleted.
    fn has_in_pool(&self, slice: &ResourceSlice) -> bool {
        slice.spec.pool.name == self.node.as_str()
    }

    /// The first name of the slice at a position that no foreign slice holds.
    fn free_name(&self, index: usize, foreign: &BTreeSet<&str>) -> String {
        let free = slice_names(index, &self.driver, &self.node).find(|name| !foreign.contains(name.as_str()));
        free.unwrap_or_else(|| slice_name(index, &self.driver, &self.node))
    }

    fn spec(&self, content: SliceContent, generation: i64, count: usize) -> ResourceSliceSpec {
        let (devices, shared_counters) = match content {
            SliceContent::Counters(sets) => (None, Some(sets)),
            SliceContent::Devices(devices) => ((!devices.is_empty()).then_some(devices), None),
        };
        ResourceSliceSpec {
            driver: self.driver.to_string(),
            node_name: Some(self.node.to_string()),
            pool: ResourcePool {
                name: self.node.to_string(),
                generation,
                resource_slice_count: i64::try_from(count).unwrap_or(i64::MAX),
            },
            devices,
            shared_counters,
            ..ResourceSliceSpec::default()
        }
    }

    fn writes(&self, targets: Vec<Target<'_>>, newest: i64) -> Vec<Write> {
        let found = targets.iter().filter(|target| target.found.is_some()).count();
        let missing = targets.len() - found;
        let changed =
            targets.iter().filter(|target| target.found.is_some_and(|slice| !self.holds(slice, target))).count();
        let keeps_generation = found > 0 && (changed == 0 || (changed == 1 && missing == 0));
        let generation = if keeps_generation { newest } else { newest.saturating_add(1) };
        let (updates, creates): (Vec<_>, Vec<_>) = targets
            .into_iter()
            .filter(|target| !(keeps_generation && target.found.is_some_and(|slice| self.holds(slice, target))))
            .partition(|target| target.found.is_some());
        updates.into_iter().chain(creates).map(|target| self.write(target, generation)).collect()
    }

    /// Whether a slice is already what it should be.
    fn holds(&self, slice: &ResourceSlice, target: &Target<'_>) -> bool {
        slice.spec == target.spec && slice.metadata.owner_references.as_ref().is_some_and(|o| o.contains(&self.owner()))
    }

    fn write(&self, target: Target<'_>, generation: i64) -> Write {
        let mut spec = target.spec;
        spec.pool.generation = generation;
        match target.found {
            Some(slice) => {
                let mut metadata = slice.metadata.clone();
                let owners = metadata.owner_references.get_or_insert_default();
                owners.retain(|owner| owner.kind != "Node");
                owners.push(self.owner());
                Write::Update(Box::new(ResourceSlice { metadata, spec }))
            }
            None => Write::Create(Box::new(ResourceSlice {
                metadata: ObjectMeta {
                    name: Some(target.name),
                    owner_references: Some(vec![self.owner()]),
                    ..ObjectMeta::default()
                },
                spec,
            })),
        }
    }

    fn owner(&self) -> OwnerReference {
        OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: self.node.to_string(),
            uid: self.node_uid.clone(),
            controller: Some(true),
            block_owner_deletion: None,
        }
    }
}

fn name_of(slice: &ResourceSlice) -> &str {
    slice.metadata.name.as_deref().unwrap_or_default()
}

fn delete(slice: &ResourceSlice) -> Write {
    let precondition =
        Precondition { uid: slice.metadata.uid.clone(), resource_version: slice.metadata.resource_version.clone() };
    Write::Delete { name: name_of(slice).to_owned(), precondition }
}

fn published_devices<'a>(ours: &BTreeMap<&str, &'a ResourceSlice>) -> BTreeMap<&'a str, &'a Device> {
    ours.values().flat_map(|slice| slice.spec.devices.iter().flatten()).map(|d| (d.name.as_str(), d)).collect()
}

/// A taint without a time gets one from the API server. It is kept from then on, also when the device moves to
/// another slice: a new time would start the toleration of running pods anew.
fn with_known_times(content: &SliceContent, published: &BTreeMap<&str, &Device>) -> SliceContent {
    let mut content = content.clone();
    match &mut content {
        SliceContent::Counters(_) => {}
        SliceContent::Devices(devices) => {
            for device in devices {
                let known = published.get(device.name.as_str()).and_then(|device| device.taints.as_deref());
                for taint in device.taints.iter_mut().flatten() {
                    taint.time_added = known_time(taint, known.unwrap_or_default());
                }
            }
        }
    }
    content
}

/// Times are stored in whole seconds, so one that differs by less is the same.
fn known_time(taint: &DeviceTaint, known: &[DeviceTaint]) -> Option<Time> {
    let stored = known
        .iter()
        .find(|old| old.key == taint.key && old.value == taint.value && old.effect == taint.effect)
        .and_then(|old| old.time_added.clone());
    match (&taint.time_added, stored) {
        (None, stored) => stored,
        (Some(wanted), Some(stored)) if wanted.0.as_second().abs_diff(stored.0.as_second()) <= 1 => Some(stored),
        (Some(wanted), _) => Some(wanted.clone()),
    }
}
