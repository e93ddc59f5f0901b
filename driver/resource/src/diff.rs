// SPDX-License-Identifier: Apache-2.0
//! The writes that make the observed slices equal to the desired ones, in order.
//!
//! Consumers of a pool use only the slices of its highest generation, and only if their number is `resourceSliceCount` (KEP-4381). So
//! a change in one slice is one atomic write and keeps the generation, as does the creation of missing slices while the others are
//! equal: the pool is incomplete until the last one is created. Slices of which only taints change are written one by one with the same
//! generation, because each is complete without the others. Any other change uses a new generation and rewrites every slice.
//! Writes are ordered delete, update, create; after them the diff is empty. A slice that evicts pods is updated after those that end
//! an eviction, so that at no time more pods are evicted than before and after.
//!
//! The module sends no request. The caller lists and diffs again after a failed write.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use dra_model::NodeName;
use k8s_openapi::api::resource::v1::{Device, DeviceTaint, ResourcePool, ResourceSlice, ResourceSliceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};

use crate::names::{DriverName, slice_name, slice_names};
use crate::pack::SliceContent;

/// The identity of a pool. The pool has the name of its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    pub driver: DriverName,
    pub node: NodeName,
    /// UID of the Node, which owns the slices: they are deleted with it.
    pub node_uid: String,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    Delete {
        name: String,
        precondition: Precondition,
    },
    /// Replace a slice (PUT) of the resource version that was read.
    Update(Box<ResourceSlice>),
    Create(Box<ResourceSlice>),
}

/// The version of the slice to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Precondition {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

impl Write {
    /// The desired slice; nothing for a delete.
    pub fn slice(&self) -> Option<&ResourceSlice> {
        match self {
            Self::Delete { .. } => None,
            Self::Update(slice) | Self::Create(slice) => Some(slice),
        }
    }

    pub fn slice_name(&self) -> &str {
        match self {
            Self::Delete { name, .. } => name,
            Self::Update(slice) | Self::Create(slice) => slice.metadata.name.as_deref().unwrap_or_default(),
        }
    }
}

/// The writes that make the observed slices of a pool equal to the desired ones. Observed slices of other drivers and nodes are not
/// changed, and no new slice has the name of one of them.
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
        let content = with_known_times(content, &published);
        targets.push(Target { name: pool.free_name(index, &foreign), content, found });
    }
    let deletes = ours.into_values().map(delete);
    deletes.chain(pool.writes(targets, newest)).collect()
}

/// A desired slice, and the observed one with one of its names.
struct Target<'a> {
    /// Name for a new slice.
    name: String,
    /// Copied only for a write, because the devices of a node are large.
    content: Cow<'a, SliceContent>,
    found: Option<&'a ResourceSlice>,
}

impl Target<'_> {
    fn devices(&self) -> &[Device] {
        match &*self.content {
            SliceContent::Devices(devices) => devices,
            SliceContent::Counters(_) => &[],
        }
    }

    /// The observed slice with the desired taints.
    fn with_new_taints(&self) -> Option<ResourceSlice> {
        let mut slice = self.found?.clone();
        for (device, desired) in slice.spec.devices.iter_mut().flatten().zip(self.devices()) {
            device.taints.clone_from(&desired.taints);
        }
        Some(slice)
    }

    /// Whether the desired slice has more taints that evict pods than the observed one.
    fn evicts_more(&self) -> bool {
        let observed = self.found.into_iter().flat_map(|slice| slice.spec.devices.iter().flatten());
        evictions(self.devices()) > evictions(observed)
    }
}

fn evictions<'a>(devices: impl IntoIterator<Item = &'a Device>) -> usize {
    let taints = devices.into_iter().flat_map(|device| device.taints.iter().flatten());
    taints.filter(|taint| taint.effect == "NoExecute").count()
}

impl Pool {
    /// Whether a slice is of this driver and node.
    pub fn has(&self, slice: &ResourceSlice) -> bool {
        slice.spec.driver == self.driver.as_str() && slice.spec.node_name.as_deref() == Some(self.node.as_str())
    }

    /// Whether a slice is in the pool of this node. Pool names are immutable, so a slice in another pool is deleted.
    fn has_in_pool(&self, slice: &ResourceSlice) -> bool {
        slice.spec.pool.name == self.node.as_str()
    }

    /// The first name of the slice at an index that no foreign slice has.
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
        let count = targets.len();
        let holds = |target: &Target<'_>| target.found.is_some_and(|slice| self.holds(slice, target, newest, count));
        let found = targets.iter().filter(|target| target.found.is_some()).count();
        let missing = targets.len() - found;
        let changed: Vec<_> = targets.iter().filter(|target| target.found.is_some() && !holds(target)).collect();
        let of_taints = |target: &&Target<'_>| {
            target.with_new_taints().is_some_and(|slice| self.holds(&slice, target, newest, count))
        };
        let are_independent = changed.len() == 1 || changed.iter().all(of_taints);
        let keeps_generation = found > 0 && (changed.is_empty() || (missing == 0 && are_independent));
        let generation = if keeps_generation { newest } else { newest.saturating_add(1) };
        let (mut updates, creates): (Vec<_>, Vec<_>) = targets
            .into_iter()
            .filter(|target| !(keeps_generation && holds(target)))
            .partition(|target| target.found.is_some());
        updates.sort_by_key(Target::evicts_more);
        updates.into_iter().chain(creates).map(|target| self.write(target, generation, count)).collect()
    }

    /// Whether a slice is equal to its target.
    fn holds(&self, slice: &ResourceSlice, target: &Target<'_>, generation: i64, count: usize) -> bool {
        let ResourceSliceSpec {
            all_nodes,
            devices,
            driver,
            node_name,
            node_selector,
            partition_type_attribute,
            per_device_node_selection,
            pool,
            shared_counters,
            skip_node_operations,
        } = &slice.spec;
        let (wanted, sets) = match &*target.content {
            SliceContent::Counters(sets) => (None, Some(sets)),
            SliceContent::Devices(wanted) => (Some(wanted).filter(|wanted| !wanted.is_empty()), None),
        };
        let expected = self.spec(SliceContent::Devices(Vec::new()), generation, count);
        (devices.as_ref(), shared_counters.as_ref()) == (wanted, sets)
            && (driver, node_name, pool) == (&expected.driver, &expected.node_name, &expected.pool)
            && (all_nodes, node_selector, partition_type_attribute, per_device_node_selection, skip_node_operations)
                == (&None, &None, &None, &None, &None)
            && slice.metadata.owner_references.as_ref().is_some_and(|owners| owners.contains(&self.owner()))
    }

    fn write(&self, target: Target<'_>, generation: i64, count: usize) -> Write {
        let spec = self.spec(target.content.into_owned(), generation, count);
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

/// The API server adds a time to a taint. The time is kept, also if the device moves to another slice, because a new time would
/// restart the toleration of running pods.
fn with_known_times<'a>(content: &'a SliceContent, published: &BTreeMap<&str, &Device>) -> Cow<'a, SliceContent> {
    let SliceContent::Devices(devices) = content else { return Cow::Borrowed(content) };
    if devices.iter().all(|device| device.taints.is_none()) {
        return Cow::Borrowed(content);
    }
    let mut devices = devices.clone();
    for device in &mut devices {
        let known = published.get(device.name.as_str()).and_then(|device| device.taints.as_deref());
        for taint in device.taints.iter_mut().flatten() {
            taint.time_added = known_time(taint, known.unwrap_or_default());
        }
    }
    Cow::Owned(SliceContent::Devices(devices))
}

/// Times are stored in whole seconds, so a time that differs by less is equal.
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
