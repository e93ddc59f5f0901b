// SPDX-License-Identifier: Apache-2.0
//! One node as the allocator sees it: its pools and devices, and what is already taken of them.

use crate::capacity::{self, Consumed};
use crate::classes::Classes;
use crate::counters::FreeCounters;
use crate::device::{Device, DeviceId, Taint};
use crate::node::{Effect, NodeFacts};
use crate::pool::{Pool, Pools};
use crate::request::Ask;
use crate::selector::{SelectorError, Selectors};
use crate::usage::{Allocation, Kind, PoolUsage, Usage};

/// What is the same for all nodes.
#[derive(Debug, Clone, Copy)]
pub struct Cluster<'a> {
    pub pools: &'a Pools,
    pub classes: &'a Classes,
    pub selectors: &'a Selectors,
}

/// The devices that a node can use.
#[derive(Debug)]
pub struct NodeView<'a> {
    pub node: &'a NodeFacts,
    pub pools: Vec<PoolView<'a>>,
    /// In the order in which the scheduler tries them.
    pub devices: Vec<Candidate<'a>>,
}

/// A pool that the node can use, with what is free of it.
#[derive(Debug)]
pub struct PoolView<'a> {
    pub pool: &'a Pool,
    pub free: FreeCounters,
    pub usage: Option<&'a PoolUsage>,
}

/// A device of a pool of the node.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    /// Position of the pool in [`NodeView::pools`].
    pub pool: usize,
    pub id_pool: &'a Pool,
    pub device: &'a Device,
    /// What claims hold of it, those with admin access left out.
    pub held: Vec<&'a Allocation>,
    /// What they consume of its capacities.
    pub consumed: Consumed,
}

impl<'a> NodeView<'a> {
    /// Pools that the scheduler does not use are in the view, too: their fault is a reason.
    pub fn new(node: &'a NodeFacts, pools: &'a Pools, usage: &'a Usage) -> Self {
        let pools: Vec<PoolView<'a>> = pools.on(node).into_iter().map(|pool| PoolView::new(pool, usage)).collect();
        let devices = pools.iter().enumerate().flat_map(|(at, view)| {
            let devices = view.pool.devices_on(node);
            devices.map(move |device| Candidate::new(at, view, device))
        });
        let devices = devices.collect();
        Self { node, pools, devices }
    }
}

impl<'a> PoolView<'a> {
    fn new(pool: &'a Pool, usage: &'a Usage) -> Self {
        let usage = usage.of_pool(pool);
        Self { pool, free: FreeCounters::of(pool, usage), usage }
    }
}

impl<'a> Candidate<'a> {
    fn new(at: usize, view: &PoolView<'a>, device: &'a Device) -> Self {
        let held = view.usage.and_then(|usage| usage.get(device.name.as_ref())).into_iter().flatten();
        let held: Vec<&Allocation> = held.filter(|allocation| allocation.kind != Kind::Admin).collect();
        let mut consumed = Consumed::new();
        for allocation in &held {
            if let Kind::Share(share) = &allocation.kind {
                capacity::add(&mut consumed, &share.iter().cloned().collect());
            }
        }
        Self { pool: at, id_pool: view.pool, device, held, consumed }
    }

    pub fn id(&self) -> DeviceId {
        self.id_pool.id_of(self.device)
    }

    pub fn driver(&self) -> &'a str {
        &self.id_pool.driver
    }

    /// Whether a claim has the device alone.
    pub fn is_exclusively_held(&self) -> bool {
        self.held.iter().any(|allocation| allocation.kind == Kind::Exclusive)
    }

    /// Whether claims have shares of the device, so that its counters are already taken.
    pub fn is_shared_now(&self) -> bool {
        self.device.is_shareable && !self.held.is_empty()
    }
}

/// An expression that fails, which ends the scheduling attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectorFault {
    /// Absent for a selector of the claim.
    pub class: Option<String>,
    pub expression: String,
    pub device: DeviceId,
    pub error: SelectorError,
}

/// Which selector a device does not match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mismatch {
    /// The class does not exist.
    NoClass,
    Class {
        expression: String,
    },
    /// `at` is the position of the selector in the request.
    Request {
        at: usize,
        expression: String,
    },
}

impl Cluster<'_> {
    /// Whether the class and the selectors of a request select a device.
    pub fn mismatch(&self, ask: &Ask, candidate: &Candidate<'_>) -> Result<Option<Mismatch>, Box<SelectorFault>> {
        let Some(class) = self.classes.selectors(&ask.class) else { return Ok(Some(Mismatch::NoClass)) };
        let selects = |expression: &String, class: Option<&String>| {
            let outcome = self.selectors.selects(expression, candidate.driver(), candidate.device);
            outcome.map_err(|error| {
                let (class, expression) = (class.cloned(), expression.clone());
                Box::new(SelectorFault { class, expression, device: candidate.id(), error })
            })
        };
        for expression in class {
            if !selects(expression, Some(&ask.class))? {
                return Ok(Some(Mismatch::Class { expression: expression.clone() }));
            }
        }
        for (at, expression) in ask.selectors.iter().enumerate() {
            if !selects(expression, None)? {
                return Ok(Some(Mismatch::Request { at, expression: expression.clone() }));
            }
        }
        Ok(None)
    }
}

/// The first taint that keeps a request away. Effects that are not known keep nothing away.
pub fn untolerated<'a>(device: &'a Device, ask: &Ask) -> Option<&'a Taint> {
    let keeps_away = |taint: &&Taint| match taint.effect {
        Effect::None => false,
        Effect::NoSchedule | Effect::NoExecute => {
            !ask.tolerations.iter().any(|toleration| toleration.tolerates(&taint.key, &taint.value, taint.effect))
        }
    };
    device.taints.iter().find(keeps_away)
}
