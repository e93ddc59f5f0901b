// SPDX-License-Identifier: Apache-2.0
//! Whether the workloads of a manifest would fit: how many replicas now, how many if no other claim used a device, and on which nodes.
//!
//! Nodes are tried one after the other, and each gets as many replicas as it can take. Replicas of one workload are alike, so the order
//! of nodes changes no number. Other limits than devices, such as memory of nodes, are not looked at.

mod table;

use std::collections::BTreeSet;
use std::sync::Arc;

use dra_allocation::allocate::{Allocated, Outcome, allocate};
use dra_allocation::explain::tolerating_all;
use dra_allocation::usage::Kind;
use dra_allocation::{ClaimSpec, Cluster, Holder, NodeFacts, NodeView, Selectors, Usage};
use serde::Serialize;

pub use table::table;

use crate::manifest::Workload;
use dra_explain::subject::{Claim, ClaimState, Subject};
use dra_explain::why::{self, Seen, Verdict, Why};

/// Replicas that are counted beyond those that are asked for.
const MORE: usize = 100;

/// The answer for one workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fit {
    /// `Kind name`
    pub workload: String,
    pub replicas: usize,
    pub verdict: Verdict,
    pub now: Room,
    /// On nodes that no other claim uses, with devices that are well.
    pub emptied: Room,
    /// Why no replica fits now; absent if one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
}

/// How many replicas fit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Room {
    pub replicas: usize,
    /// Whether counting ended before the last node.
    pub or_more: bool,
    /// Nodes with room, in the order of their names.
    pub nodes: Vec<OnNode>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OnNode {
    pub node: String,
    pub replicas: usize,
}

/// Answers for one workload. The workloads of a file are judged one by one, as if only that one were created.
pub fn fit(workload: &Workload, seen: Seen<'_>) -> Fit {
    let selectors = Selectors::default();
    let cluster = Cluster { pools: seen.pools, classes: seen.classes, selectors: &selectors };
    let counting = |workload| Counting { workload, cluster, nodes: seen.nodes, limit: workload.replicas + MORE };
    let healed = tolerating(workload);
    let (now, emptied) = (counting(workload).room(seen.usage), counting(&healed).room(&Usage::default()));
    let verdict = match workload.replicas {
        wanted if now.replicas >= wanted => Verdict::Fits,
        wanted if emptied.replicas >= wanted => Verdict::Waits,
        _ => Verdict::Never,
    };
    let why = (now.replicas == 0 && verdict != Verdict::Fits).then(|| counting(workload).why(seen));
    // An expression that cannot be evaluated fits nowhere in the count.
    let is_undecided = why.as_ref().is_some_and(|why| why.verdict == Verdict::Undecided);
    let verdict = if is_undecided { Verdict::Undecided } else { verdict };
    Fit { workload: workload.what.clone(), replicas: workload.replicas, verdict, now, emptied, why }
}

/// On the emptied cluster devices are well, too: their taints keep nothing away.
fn tolerating(workload: &Workload) -> Workload {
    let all = |claims: &[ClaimSpec]| claims.iter().cloned().map(tolerating_all).collect();
    Workload { own: all(&workload.own), shared: all(&workload.shared), ..workload.clone() }
}

struct Counting<'a> {
    workload: &'a Workload,
    cluster: Cluster<'a>,
    nodes: &'a [NodeFacts],
    limit: usize,
}

impl Counting<'_> {
    fn accepts(&self, node: &NodeFacts) -> bool {
        self.workload.pod.as_ref().is_none_or(|pod| pod.rules.exclusion(node).is_none())
    }

    fn room(&self, usage: &Usage) -> Room {
        let mut room = Room::default();
        let is_shared = !self.workload.shared.is_empty();
        for node in self.nodes.iter().filter(|node| self.accepts(node)) {
            let left = self.limit.saturating_sub(room.replicas);
            let replicas = self.on_node(node, usage, if is_shared { self.limit } else { left });
            if replicas == 0 {
                continue;
            }
            let found = OnNode { node: node.name.to_string(), replicas };
            if is_shared {
                // All pods of a shared claim run on one node: the best one counts.
                if replicas > room.replicas {
                    room = Room { replicas, or_more: replicas >= self.limit, nodes: vec![found] };
                }
                continue;
            }
            room.replicas += replicas;
            room.nodes.push(found);
            if room.replicas >= self.limit {
                room.or_more = true;
                break;
            }
        }
        room.nodes.sort_by(|one, other| one.node.cmp(&other.node));
        room
    }

    /// The replicas that one node can take.
    fn on_node(&self, node: &NodeFacts, usage: &Usage, limit: usize) -> usize {
        let pools = self.cluster.pools.on(node);
        let mut usage = usage.without(&BTreeSet::new(), &pools);
        let mut replicas = 0;
        while replicas < limit {
            let claims: Vec<ClaimSpec> = match replicas {
                0 => self.workload.shared.iter().chain(&self.workload.own).cloned().collect(),
                _ => self.workload.own.clone(),
            };
            if claims.is_empty() {
                // Further pods of a shared claim need no device.
                return limit;
            }
            let view = NodeView::new(node, self.cluster.pools, &usage);
            let Outcome::Fits(devices) = allocate(&self.cluster, &view, &claims) else { break };
            let devices: Vec<_> = devices.into_iter().map(taken).collect();
            usage.take(nameless(), devices);
            replicas += 1;
        }
        replicas
    }

    /// Why no replica fits now.
    fn why(&self, seen: Seen<'_>) -> Why {
        let specs = self.workload.shared.iter().chain(&self.workload.own);
        let claims = specs.map(|spec| Claim {
            label: spec.label.clone(),
            uid: None,
            state: ClaimState::Unallocated(spec.clone()),
        });
        let claims: Vec<Claim> = claims.collect();
        let what = match self.workload.replicas {
            1 => self.workload.what.clone(),
            _ => format!("a replica of {}", self.workload.what),
        };
        let subject = Subject { what, pod: self.workload.pod.clone(), claims, events: Vec::new() };
        why::why(&subject, seen, Vec::new())
    }
}

fn taken(device: Allocated) -> (Arc<str>, Arc<str>, Arc<str>, Kind) {
    let kind = match (device.is_admin, device.is_share) {
        (true, _) => Kind::Admin,
        (false, true) => Kind::Share(device.consumed.into_iter().collect()),
        (false, false) => Kind::Exclusive,
    };
    (device.device.driver, device.device.pool, device.device.device, kind)
}

/// The claim of a replica that is only counted.
fn nameless() -> Holder {
    Holder { namespace: "".into(), name: "".into(), consumers: Vec::new(), since: None }
}
