// SPDX-License-Identifier: Apache-2.0
//! Why the claims of a pod do not fit on a node: the first request that fails, the rule that fails it, and the device that came
//! furthest.
//!
//! Every device is judged alone, with what is free now, in the order in which the scheduler checks: selection, use by other claims,
//! capacity, counters, taints. If every request alone has enough devices, the reason is that they do not fit together.

use std::collections::{BTreeMap, BTreeSet};

use crate::allocate::{Allocated, MAX_RESULTS, Outcome, allocate};
use crate::candidates::{Candidate, Cluster, Mismatch, NodeView, SelectorFault, untolerated};
use crate::capacity::{self, CapacityRefusal};
use crate::counters::{self, Shortage};
use crate::device::{DeviceId, Taint};
use crate::node::{NodeFacts, Toleration};
use crate::pool::PoolFault;
use crate::request::{Ask, ClaimSpec, ConstraintRule, Count};
use crate::usage::Usage;

/// What a node answers to a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Fits(Vec<Allocated>),
    Blocked(Box<Blocked>),
    /// The search took too many steps; the scheduler may time out.
    Undecided,
    /// An expression fails, so the pod is scheduled on no node.
    Aborted(Box<SelectorFault>),
}

impl Answer {
    pub fn blocked(&self) -> Option<&Blocked> {
        if let Self::Blocked(blocked) = self { Some(blocked) } else { None }
    }
}

/// The request that fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// `namespace/name` of the claim.
    pub claim: String,
    /// Name of the request, or `request/alternative`.
    pub request: String,
    pub class: String,
    pub needed: Count,
    /// Devices that would do.
    pub usable: usize,
    pub rule: Rule,
    /// The device that came furthest, of those that would not do.
    pub device: Option<DeviceId>,
    /// For every earlier rule that keeps a device away, the device that lacks least, furthest first.
    pub others: Vec<(DeviceId, Rule)>,
}

impl Blocked {
    /// Devices that the node is short of; one if the number is not known.
    pub fn lacking(&self) -> usize {
        match self.needed {
            Count::Exactly(count) => count.saturating_sub(self.usable),
            Count::All => 1,
        }
    }

    /// The rule of the device that came furthest, then those of the others.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        std::iter::once(&self.rule).chain(self.others.iter().map(|(_, rule)| rule))
    }
}

/// The rule that fails, in the order in which rules are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// The node has no devices at all.
    NoDevices,
    Pool(PoolFault),
    NoClass,
    Class {
        expression: String,
    },
    Selector {
        at: usize,
        expression: String,
    },
    /// Claims that have the device.
    InUse {
        holders: Vec<usize>,
    },
    Capacity {
        refusal: CapacityRefusal,
        holders: Vec<usize>,
    },
    /// Claims that have the other forms or parts of the same hardware.
    Counters {
        shortage: Shortage,
        holders: Vec<usize>,
    },
    Taint(Taint),
    /// The requests fit one by one, but not under this constraint.
    Constraint(ConstraintRule),
    /// The requests fit one by one, but not beside each other.
    Together,
    /// More devices than a claim may have.
    TooMany,
}

impl Rule {
    /// How far a device came.
    fn stage(&self) -> u8 {
        match self {
            Self::NoDevices => 0,
            Self::Pool(_) => 1,
            Self::NoClass => 2,
            Self::Class { .. } => 3,
            Self::Selector { .. } => 4,
            // No change of the cluster makes the device large enough.
            Self::Capacity {
                refusal:
                    CapacityRefusal::Missing { .. } | CapacityRefusal::Invalid { .. } | CapacityRefusal::TooLarge { .. },
                ..
            } => 5,
            Self::InUse { .. } => 6,
            Self::Capacity { refusal: CapacityRefusal::Taken { .. }, .. } => 7,
            Self::Counters { .. } => 8,
            Self::Taint(_) => 9,
            Self::Constraint(_) | Self::Together | Self::TooMany => 10,
        }
    }

    /// The taint that keeps the request away.
    pub fn taint(&self) -> Option<&Taint> {
        if let Self::Taint(taint) = self { Some(taint) } else { None }
    }

    /// Why a capacity does not suffice.
    pub fn refusal(&self) -> Option<&CapacityRefusal> {
        if let Self::Capacity { refusal, .. } = self { Some(refusal) } else { None }
    }

    /// The claims that have what is missing.
    pub fn holders(&self) -> &[usize] {
        match self {
            Self::InUse { holders } | Self::Capacity { holders, .. } | Self::Counters { holders, .. } => holders,
            Self::NoDevices
            | Self::Pool(_)
            | Self::NoClass
            | Self::Class { .. }
            | Self::Selector { .. }
            | Self::Taint(_)
            | Self::Constraint(_)
            | Self::Together
            | Self::TooMany => &[],
        }
    }
}

/// What a node answers to the claims of a pod.
pub fn explain(cluster: &Cluster<'_>, view: &NodeView<'_>, claims: &[ClaimSpec]) -> Answer {
    match allocate(cluster, view, claims) {
        Outcome::Fits(devices) => Answer::Fits(devices),
        Outcome::Undecided => Answer::Undecided,
        Outcome::Aborted(fault) => Answer::Aborted(fault),
        Outcome::DoesNotFit => match blocked(cluster, view, claims) {
            Ok(blocked) => Answer::Blocked(Box::new(blocked)),
            Err(fault) => Answer::Aborted(fault),
        },
    }
}

fn blocked(cluster: &Cluster<'_>, view: &NodeView<'_>, claims: &[ClaimSpec]) -> Result<Blocked, Box<SelectorFault>> {
    let mut last = None;
    for claim in claims {
        for request in &claim.requests {
            let mut asks = Vec::new();
            for ask in &request.asks {
                let name = ask.name.as_ref();
                let request = name.map_or_else(|| request.name.clone(), |name| format!("{}/{name}", request.name));
                let judged = judge(cluster, view, ask)?;
                let is_enough = judged.is_enough(ask);
                let found = judged.blocked(claim, request, ask);
                if is_enough {
                    last = Some(found);
                    asks.clear();
                    break;
                }
                asks.push(found);
            }
            if let Some(found) = asks.into_iter().max_by_key(|found| found.rule.stage()) {
                return Ok(found);
            }
        }
    }
    let rule = combination(cluster, view, claims);
    let none = || Blocked {
        claim: claims.first().map(|claim| claim.label.clone()).unwrap_or_default(),
        request: String::new(),
        class: String::new(),
        needed: Count::Exactly(0),
        usable: 0,
        rule: Rule::Together,
        device: None,
        others: Vec::new(),
    };
    Ok(Blocked { rule, device: None, others: Vec::new(), ..last.unwrap_or_else(none) })
}

/// Why requests that have enough devices one by one do not fit together.
fn combination(cluster: &Cluster<'_>, view: &NodeView<'_>, claims: &[ClaimSpec]) -> Rule {
    let fits = |claims: &[ClaimSpec]| matches!(allocate(cluster, view, claims), Outcome::Fits(_));
    for (at, claim) in claims.iter().enumerate() {
        for (position, constraint) in claim.constraints.iter().enumerate() {
            let mut without = claims.to_vec();
            if let Some(claim) = without.get_mut(at) {
                claim.constraints.remove(position);
            }
            if fits(&without) {
                return Rule::Constraint(constraint.rule.clone());
            }
        }
        let wanted = claim.requests.iter().map(|request| {
            let counts = request.asks.iter().map(|ask| match ask.count {
                Count::Exactly(count) => count,
                Count::All => 1,
            });
            counts.min().unwrap_or_default()
        });
        if wanted.sum::<usize>() > MAX_RESULTS {
            return Rule::TooMany;
        }
    }
    Rule::Together
}

/// The devices of a node for one ask.
struct Judged<'a> {
    usable: usize,
    /// For each rule the device that lacks least, by how far it came.
    failing: BTreeMap<u8, (&'a Candidate<'a>, Rule)>,
    /// What keeps the pools of the node from being used.
    fault: Option<PoolFault>,
    /// Devices that match the selectors.
    matching: usize,
}

impl Judged<'_> {
    fn is_enough(&self, ask: &Ask) -> bool {
        match ask.count {
            Count::Exactly(count) => self.usable >= count,
            Count::All => self.usable > 0 && self.usable == self.matching && self.fault.is_none(),
        }
    }

    fn blocked(self, claim: &ClaimSpec, request: String, ask: &Ask) -> Blocked {
        let mut failing = self.failing.into_values().rev().map(|(candidate, rule)| (candidate.id(), rule));
        let (device, rule) = match self.fault {
            Some(fault) if ask.count == Count::All || self.usable == 0 => (None, Rule::Pool(fault)),
            Some(_) | None => match failing.next() {
                Some((device, rule)) => (Some(device), rule),
                None if self.usable > 0 => (None, Rule::Together),
                None => (None, Rule::NoDevices),
            },
        };
        Blocked {
            claim: claim.label.clone(),
            request,
            class: ask.class.clone(),
            needed: ask.count,
            usable: self.usable,
            rule,
            device,
            others: failing.collect(),
        }
    }
}

fn judge<'a>(cluster: &Cluster<'_>, view: &'a NodeView<'a>, ask: &Ask) -> Result<Judged<'a>, Box<SelectorFault>> {
    let fault = view.pools.iter().find_map(|pool| pool.pool.fault.clone());
    let mut judged = Judged { usable: 0, failing: BTreeMap::new(), fault, matching: 0 };
    for candidate in view.devices.iter().filter(|candidate| candidate.id_pool.fault.is_none()) {
        let rule = match cluster.mismatch(ask, candidate)? {
            Some(Mismatch::NoClass) => Some(Rule::NoClass),
            Some(Mismatch::Class { expression }) => Some(Rule::Class { expression }),
            Some(Mismatch::Request { at, expression }) => Some(Rule::Selector { at, expression }),
            None => {
                judged.matching += 1;
                availability(view, candidate, ask)
            }
        };
        let Some(rule) = rule else {
            judged.usable += 1;
            continue;
        };
        let known = judged.failing.get(&rule.stage());
        if known.is_none_or(|(_, known)| rule.holders().len() < known.holders().len()) {
            judged.failing.insert(rule.stage(), (candidate, rule));
        }
    }
    Ok(judged)
}

/// The first rule that keeps a matching device from a request, in the order of the scheduler.
fn availability(view: &NodeView<'_>, candidate: &Candidate<'_>, ask: &Ask) -> Option<Rule> {
    let holders = || candidate.held.iter().map(|held| held.claim).collect::<BTreeSet<_>>().into_iter().collect();
    if !ask.is_admin && candidate.is_exclusively_held() {
        return Some(Rule::InUse { holders: holders() });
    }
    let fits = capacity::consumption(candidate.device, candidate.driver(), &ask.capacity, &candidate.consumed);
    if let Err(refusal) = fits {
        return Some(Rule::Capacity { refusal: *refusal, holders: holders() });
    }
    if !candidate.is_shared_now()
        && let Some(pool) = view.pools.get(candidate.pool)
        && let Some(shortage) = pool.free.shortage(candidate.device)
    {
        let holders = counter_holders(view, candidate, &shortage);
        return Some(Rule::Counters { shortage, holders });
    }
    untolerated(candidate.device, ask).cloned().map(Rule::Taint)
}

/// The claims whose devices consume the counter that is short.
fn counter_holders(view: &NodeView<'_>, candidate: &Candidate<'_>, shortage: &Shortage) -> Vec<usize> {
    let Some(pool) = view.pools.get(candidate.pool) else { return Vec::new() };
    let Some(usage) = pool.usage else { return Vec::new() };
    let consumes = |device: &crate::device::Device| {
        let mut sets = device.consumes.iter().filter(|consumption| consumption.set == shortage.set);
        sets.any(|consumption| consumption.counters.iter().any(|(name, _)| *name == shortage.counter))
    };
    let devices = pool.pool.devices().filter(|device| counters::is_taken(device, usage) && consumes(device));
    let held = devices.flat_map(|device| usage.get(device.name.as_ref()).into_iter().flatten());
    held.map(|allocation| allocation.claim).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Whether the claims would fit on a node that no other claim uses and whose devices are well.
pub fn fits_on_emptied(cluster: &Cluster<'_>, node: &NodeFacts, claims: &[ClaimSpec]) -> bool {
    let usage = Usage::default();
    let view = NodeView::new(node, cluster.pools, &usage);
    let claims: Vec<ClaimSpec> = claims.iter().cloned().map(tolerating_all).collect();
    matches!(allocate(cluster, &view, &claims), Outcome::Fits(_))
}

/// The claim with a toleration of every taint: what keeps devices away for now is not looked at.
pub fn tolerating_all(mut claim: ClaimSpec) -> ClaimSpec {
    let all = Toleration { operator: "Exists".to_owned(), ..Toleration::default() };
    for ask in claim.requests.iter_mut().flat_map(|request| &mut request.asks) {
        ask.tolerations.push(all.clone());
    }
    claim
}
