// SPDX-License-Identifier: Apache-2.0
//! The search for devices: depth first over claims, requests and devices in the order of the scheduler, the first solution wins.
//!
//! The scheduler gives up after ten seconds. Here the number of steps is bounded, and a branch that has too few devices left is not
//! entered, which changes no answer: what is taken never makes a further device of the same request available.

use std::collections::{BTreeMap, BTreeSet};

use crate::bound::Group;
use crate::candidates::{Candidate, Cluster, NodeView, SelectorFault, untolerated};
use crate::capacity::{self, Consumed};
use crate::constraint::Tracker;
use crate::counters::FreeCounters;
use crate::device::DeviceId;
use crate::request::{Ask, ClaimSpec, Count, Request};

/// Devices of a claim by the API.
pub const MAX_RESULTS: usize = 32;

/// Steps of one search, of which each looks at all devices of the node; an allocation of 32 partitions takes 32.
const MAX_STEPS: u32 = 5_000;

/// What the claims of a pod get on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// In the order of claims and requests.
    Fits(Vec<Allocated>),
    DoesNotFit,
    /// The search took too many steps.
    Undecided,
    /// An expression fails, so the pod is scheduled on no node.
    Aborted(Box<SelectorFault>),
}

/// One device for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocated {
    /// Position of the claim.
    pub claim: usize,
    /// Name of the request, or `request/alternative`.
    pub request: String,
    pub device: DeviceId,
    pub is_admin: bool,
    /// What a share consumes; empty for a device that is not shared.
    pub consumed: Consumed,
    pub is_share: bool,
}

/// Allocates the claims of one pod on a node.
pub fn allocate(cluster: &Cluster<'_>, view: &NodeView<'_>, claims: &[ClaimSpec]) -> Outcome {
    let mut search = Search::new(cluster, view, claims);
    match search.claim(0) {
        Step::Done => Outcome::Fits(search.results),
        Step::No | Step::TooMany => Outcome::DoesNotFit,
        Step::Stop(stop) => *stop,
    }
}

/// How a branch of the search ended.
enum Step {
    Done,
    No,
    /// The claim would have more devices than the API allows.
    TooMany,
    Stop(Box<Outcome>),
}

/// The device that is searched: of which claim, request, alternative, and the how many-th of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct At {
    claim: usize,
    request: usize,
    ask: usize,
    number: usize,
}

struct Search<'a> {
    cluster: &'a Cluster<'a>,
    view: &'a NodeView<'a>,
    claims: &'a [ClaimSpec],
    /// By pool of the view.
    free: Vec<FreeCounters>,
    /// Exclusive devices that are taken in this search, by position, with the claims that take them.
    taken: BTreeMap<usize, BTreeSet<usize>>,
    /// Consumption of shares that are taken in this search, and their number, by position of the device.
    shares: BTreeMap<usize, (Consumed, usize)>,
    constraints: Vec<Vec<Tracker<'a>>>,
    results: Vec<Allocated>,
    steps: u32,
}

impl<'a> Search<'a> {
    fn new(cluster: &'a Cluster<'a>, view: &'a NodeView<'a>, claims: &'a [ClaimSpec]) -> Self {
        let trackers = |claim: &'a ClaimSpec| claim.constraints.iter().map(Tracker::new).collect();
        Self {
            cluster,
            view,
            claims,
            free: view.pools.iter().map(|pool| pool.free.clone()).collect(),
            taken: BTreeMap::new(),
            shares: BTreeMap::new(),
            constraints: claims.iter().map(trackers).collect(),
            results: Vec::new(),
            steps: 0,
        }
    }

    fn claim(&mut self, claim: usize) -> Step {
        if claim >= self.claims.len() { Step::Done } else { self.request(claim, 0) }
    }

    /// Tries the alternatives of a request in their order.
    fn request(&mut self, claim: usize, request: usize) -> Step {
        let Some(found) = self.claims.get(claim).and_then(|claim| claim.requests.get(request)) else {
            return match self.claim(claim + 1) {
                Step::TooMany => Step::No,
                step @ (Step::Done | Step::No | Step::Stop(_)) => step,
            };
        };
        let mut all_too_many = true;
        for ask in 0..found.asks.len() {
            match self.ask(At { claim, request, ask, number: 0 }) {
                Step::TooMany => {}
                Step::No => all_too_many = false,
                step @ (Step::Done | Step::Stop(_)) => return step,
            }
        }
        if all_too_many { Step::TooMany } else { Step::No }
    }

    fn found(&self, at: At) -> Option<(&'a Request, &'a Ask)> {
        let request = self.claims.get(at.claim)?.requests.get(at.request)?;
        Some((request, request.asks.get(at.ask)?))
    }

    fn ask(&mut self, at: At) -> Step {
        let Some((_, ask)) = self.found(at) else { return Step::No };
        match ask.count {
            Count::Exactly(count) => self.exactly(at, count, 0),
            Count::All => match self.all(ask) {
                Ok(Some(all)) if !all.is_empty() => self.each(at, &all),
                Ok(_) => Step::No,
                Err(fault) => Step::Stop(Box::new(Outcome::Aborted(fault))),
            },
        }
    }

    /// Whether the claim may have as many devices more.
    fn has_room(&self, at: At, more: usize) -> bool {
        let found = self.results.iter().filter(|result| result.claim == at.claim).count();
        found.saturating_add(more) <= MAX_RESULTS
    }

    fn exactly(&mut self, at: At, count: usize, start: usize) -> Step {
        if at.number >= count {
            return self.request(at.claim, at.request + 1);
        }
        if !self.has_room(at, count - at.number) {
            return Step::TooMany;
        }
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Step::Stop(Box::new(Outcome::Undecided));
        }
        // An expression that fails on a device matters only if no device before it leads to a solution.
        let (usable, fault) = self.usable(at, start);
        for (tried, index) in usable.iter().enumerate() {
            let left = usable.get(tried..).unwrap_or_default();
            if fault.is_none() && !self.may_have(left, count - at.number) {
                break;
            }
            let Some(undo) = self.take(at, *index) else { continue };
            match self.exactly(At { number: at.number + 1, ..at }, count, index + 1) {
                Step::No => self.release(at, undo),
                Step::TooMany => {
                    self.release(at, undo);
                    return Step::TooMany;
                }
                step @ (Step::Done | Step::Stop(_)) => return step,
            }
        }
        fault.map_or(Step::No, |fault| Step::Stop(Box::new(Outcome::Aborted(fault))))
    }

    /// The devices from a position on that are free and selected, up to one on which an expression fails.
    fn usable(&self, at: At, start: usize) -> (Vec<usize>, Option<Box<SelectorFault>>) {
        let mut usable = Vec::new();
        for index in start..self.view.devices.len() {
            match self.is_usable(at, index) {
                Ok(true) => usable.push(index),
                Ok(false) => {}
                Err(fault) => return (usable, Some(fault)),
            }
        }
        (usable, None)
    }

    /// Whether so many of these devices can be taken together, by their number and by counters.
    fn may_have(&self, devices: &[usize], needed: usize) -> bool {
        // Taking the device itself answers for one.
        if devices.len() < needed || needed < 2 {
            return devices.len() >= needed;
        }
        let mut groups: BTreeMap<usize, Group<'_>> = BTreeMap::new();
        for index in devices {
            let Some(candidate) = self.view.devices.get(*index) else { continue };
            let group = groups.entry(candidate.pool).or_default();
            if self.takes_counters(candidate, *index) {
                group.limited(candidate.device);
            } else {
                group.unlimited();
            }
        }
        let most = groups.iter().filter_map(|(pool, group)| Some(group.most(self.free.get(*pool)?)));
        most.sum::<usize>() >= needed
    }

    /// Whether nothing of the device is taken yet: further shares of it take no counters.
    fn takes_counters(&self, candidate: &Candidate<'_>, index: usize) -> bool {
        let is_shared_now = candidate.is_shared_now() || self.shares.get(&index).is_some_and(|(_, count)| *count > 0);
        !(candidate.device.is_shareable && is_shared_now)
    }

    /// The devices of an ask for all; nothing while a pool is not usable.
    fn all(&self, ask: &Ask) -> Result<Option<Vec<usize>>, Box<SelectorFault>> {
        if self.view.pools.iter().any(|pool| pool.pool.fault.is_some()) {
            return Ok(None);
        }
        let mut found = Vec::new();
        for (index, candidate) in self.view.devices.iter().enumerate() {
            // What earlier requests of the same pod take does not shrink the set: then it cannot be taken as a whole.
            let fits = capacity::consumption(candidate.device, candidate.driver(), &ask.capacity, &candidate.consumed);
            if self.cluster.mismatch(ask, candidate)?.is_none() && fits.is_ok() {
                found.push(index);
            }
        }
        Ok(Some(found))
    }

    /// Takes all of these devices; none of them can be replaced.
    fn each(&mut self, at: At, all: &[usize]) -> Step {
        if !self.has_room(at, all.len()) {
            return Step::TooMany;
        }
        let mut undos = Vec::new();
        for index in all {
            let usable = self.is_free(at, *index);
            let Some(undo) = usable.then(|| self.take(at, *index)).flatten() else {
                self.release_all(at, undos);
                return Step::No;
            };
            undos.push(undo);
        }
        match self.request(at.claim, at.request + 1) {
            step @ (Step::No | Step::TooMany) => {
                self.release_all(at, undos);
                step
            }
            step @ (Step::Done | Step::Stop(_)) => step,
        }
    }

    fn release_all(&mut self, at: At, undos: Vec<Undo>) {
        for undo in undos.into_iter().rev() {
            self.release(at, undo);
        }
    }

    /// Whether a device of a usable pool is free, selected and large enough.
    fn is_usable(&self, at: At, index: usize) -> Result<bool, Box<SelectorFault>> {
        let (Some((_, ask)), Some(candidate)) = (self.found(at), self.view.devices.get(index)) else {
            return Ok(false);
        };
        if candidate.id_pool.fault.is_some() || !self.is_free(at, index) {
            return Ok(false);
        }
        Ok(self.cluster.mismatch(ask, candidate)?.is_none() && self.capacity(ask, candidate, index).is_some())
    }

    /// Whether no claim has the device alone. Admin access asks only that the same claim does not have it.
    fn is_free(&self, at: At, index: usize) -> bool {
        let (Some((_, ask)), Some(candidate)) = (self.found(at), self.view.devices.get(index)) else { return false };
        let taken = self.taken.get(&index);
        if ask.is_admin {
            return !taken.is_some_and(|claims| claims.contains(&at.claim));
        }
        !candidate.is_exclusively_held() && taken.is_none_or(BTreeSet::is_empty)
    }

    fn capacity(&self, ask: &Ask, candidate: &Candidate<'_>, index: usize) -> Option<Consumed> {
        let mut consumed = candidate.consumed.clone();
        if let Some((more, _)) = self.shares.get(&index) {
            capacity::add(&mut consumed, more);
        }
        capacity::consumption(candidate.device, candidate.driver(), &ask.capacity, &consumed).ok()
    }

    /// Checks counters, taints and constraints, and takes the device.
    fn take(&mut self, at: At, index: usize) -> Option<Undo> {
        let (request, ask) = self.found(at)?;
        let candidate = self.view.devices.get(index)?;
        let counts = self.takes_counters(candidate, index);
        let free = self.free.get_mut(candidate.pool)?;
        if (counts && free.shortage(candidate.device).is_some()) || untolerated(candidate.device, ask).is_some() {
            return None;
        }
        let consumed = self.capacity(ask, candidate, index)?;
        let constrained = self.constrain(at, request, ask, candidate)?;
        if counts && let Some(free) = self.free.get_mut(candidate.pool) {
            free.take(candidate.device);
        }
        if candidate.device.is_shareable {
            let (sum, count) = self.shares.entry(index).or_default();
            capacity::add(sum, &consumed);
            *count += 1;
        } else {
            self.taken.entry(index).or_default().insert(at.claim);
        }
        let name = ask.name.as_ref();
        self.results.push(Allocated {
            claim: at.claim,
            request: name.map_or_else(|| request.name.clone(), |name| format!("{}/{name}", request.name)),
            device: candidate.id(),
            is_admin: ask.is_admin,
            consumed: consumed.clone(),
            is_share: candidate.device.is_shareable,
        });
        Some(Undo { index, consumed, counts, constrained })
    }

    /// The positions of the constraints that the device was added to; nothing if one of them refuses it.
    fn constrain(&mut self, at: At, request: &Request, ask: &Ask, candidate: &Candidate<'_>) -> Option<Vec<usize>> {
        let trackers = self.constraints.get_mut(at.claim)?;
        let mut added = Vec::new();
        for (position, tracker) in trackers.iter_mut().enumerate().filter(|(_, found)| found.concerns(request, ask)) {
            if !tracker.add(candidate.device, candidate.driver()) {
                for position in added {
                    if let Some(tracker) = trackers.get_mut::<usize>(position) {
                        tracker.remove();
                    }
                }
                return None;
            }
            added.push(position);
        }
        Some(added)
    }

    fn release(&mut self, at: At, undo: Undo) {
        let Undo { index, consumed, counts, constrained } = undo;
        self.results.pop();
        for tracker in constrained {
            if let Some(tracker) = self.constraints.get_mut(at.claim).and_then(|found| found.get_mut(tracker)) {
                tracker.remove();
            }
        }
        let Some(candidate) = self.view.devices.get(index) else { return };
        if candidate.device.is_shareable {
            let (sum, count) = self.shares.entry(index).or_default();
            capacity::subtract(sum, &consumed);
            *count = count.saturating_sub(1);
        } else if let Some(claims) = self.taken.get_mut(&index) {
            claims.remove(&at.claim);
        }
        if counts && let Some(free) = self.free.get_mut(candidate.pool) {
            free.release(candidate.device);
        }
    }
}

/// What [`Search::take`] changed.
struct Undo {
    index: usize,
    consumed: Consumed,
    counts: bool,
    constrained: Vec<usize>,
}
