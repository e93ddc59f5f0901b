// SPDX-License-Identifier: Apache-2.0
//! Resource pools: the slices of the newest generation of a driver's pool, and the pools that a node can use.
//!
//! Consumers use a pool only if all slices of its newest generation exist and no name of a device occurs twice (KEP-4381).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::device::{Counters, Device, DeviceId};
use crate::node::{NodeFacts, Scope};

/// One ResourceSlice.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    pub name: Box<str>,
    pub driver: Arc<str>,
    pub pool: Arc<str>,
    pub generation: i64,
    /// The slices of the pool in this generation.
    pub count: i64,
    /// Absent if each device has nodes of its own.
    pub scope: Option<Scope>,
    pub devices: Vec<Device>,
    pub counters: Vec<CounterSet>,
}

/// Counters that devices of the pool consume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CounterSet {
    pub name: Arc<str>,
    pub counters: Arc<Counters>,
}

/// The slices of one pool with its newest generation, in the order of their names.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    pub driver: Arc<str>,
    pub name: Arc<str>,
    pub slices: Vec<Slice>,
    /// What keeps the scheduler from using the pool.
    pub fault: Option<PoolFault>,
}

/// A pool that the scheduler does not use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolFault {
    /// Slices are missing: the driver is replacing them.
    Incomplete { found: usize, expected: i64 },
    /// Two devices have one name.
    Duplicate(Arc<str>),
}

impl Pool {
    /// All devices, in the order in which the scheduler tries them.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.slices.iter().flat_map(|slice| &slice.devices)
    }

    /// The devices that a node can use.
    pub fn devices_on<'a>(&'a self, node: &'a NodeFacts) -> impl Iterator<Item = &'a Device> {
        let slices =
            self.slices.iter().filter(move |slice| slice.scope.as_ref().is_none_or(|scope| scope.includes(node)));
        slices.flat_map(move |slice| {
            let needs_own = slice.scope.is_none();
            slice.devices.iter().filter(move |device| !needs_own || (device.scope.is_some() && device.is_on(node)))
        })
    }

    pub fn counter_sets(&self) -> impl Iterator<Item = &CounterSet> {
        self.slices.iter().flat_map(|slice| &slice.counters)
    }

    pub fn id_of(&self, device: &Device) -> DeviceId {
        DeviceId { driver: Arc::clone(&self.driver), pool: Arc::clone(&self.name), device: Arc::clone(&device.name) }
    }

    /// The only node of the pool, if all of its slices name the same one.
    fn only_node(&self) -> Option<&Arc<str>> {
        let mut nodes = self.slices.iter().map(|slice| match &slice.scope {
            Some(Scope::Node(node)) => Some(node),
            Some(Scope::All | Scope::Selected(_)) | None => None,
        });
        let first = nodes.next()??;
        nodes.all(|node| node == Some(first)).then_some(first)
    }
}

/// All pools of a cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pools {
    /// In the order of driver and name.
    all: Vec<Pool>,
    /// Positions in `all`, by the only node of the pool.
    of_nodes: BTreeMap<Arc<str>, Vec<usize>>,
    /// Positions in `all` of pools that several nodes may use.
    of_many: Vec<usize>,
}

impl Pools {
    /// Slices of older generations are left out.
    pub fn of(slices: Vec<Slice>) -> Self {
        let mut found: BTreeMap<(Arc<str>, Arc<str>), Vec<Slice>> = BTreeMap::new();
        for slice in slices {
            let pool = found.entry((Arc::clone(&slice.driver), Arc::clone(&slice.pool))).or_default();
            match pool.first().map(|first| first.generation) {
                Some(newest) if newest > slice.generation => continue,
                Some(newest) if newest < slice.generation => pool.clear(),
                Some(_) | None => {}
            }
            pool.push(slice);
        }
        let mut pools = Self::default();
        for ((driver, name), mut slices) in found {
            slices.sort_by(|one, other| one.name.cmp(&other.name));
            let fault = fault_of(&slices);
            pools.add(Pool { driver, name, slices, fault });
        }
        pools
    }

    fn add(&mut self, pool: Pool) {
        let at = self.all.len();
        match pool.only_node() {
            Some(node) => self.of_nodes.entry(Arc::clone(node)).or_default().push(at),
            None => self.of_many.push(at),
        }
        self.all.push(pool);
    }

    pub fn iter(&self) -> impl Iterator<Item = &Pool> {
        self.all.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Pool> {
        self.all.iter_mut()
    }

    /// The names of nodes that have a pool of their own.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<str>> {
        self.of_nodes.keys()
    }

    /// The pools of a node and those of which it can use devices, in the order of driver and name.
    pub fn on<'a>(&'a self, node: &'a NodeFacts) -> Vec<&'a Pool> {
        let own = self.of_nodes.get(&node.name).into_iter().flatten().copied();
        let has_device = |at: &usize| self.all.get(*at).is_some_and(|pool| pool.devices_on(node).next().is_some());
        let mut found: Vec<usize> = own.chain(self.of_many.iter().copied().filter(has_device)).collect();
        found.sort_unstable();
        found.into_iter().filter_map(|at| self.all.get(at)).collect()
    }
}

fn fault_of(slices: &[Slice]) -> Option<PoolFault> {
    let expected = slices.first().map_or(0, |slice| slice.count);
    if i64::try_from(slices.len()) != Ok(expected) {
        return Some(PoolFault::Incomplete { found: slices.len(), expected });
    }
    let mut names = BTreeSet::new();
    let mut devices = slices.iter().flat_map(|slice| &slice.devices);
    devices.find(|device| !names.insert(&device.name)).map(|device| PoolFault::Duplicate(Arc::clone(&device.name)))
}
