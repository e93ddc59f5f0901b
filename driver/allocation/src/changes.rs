// SPDX-License-Identifier: Apache-2.0
//! The smallest changes with which the claims of a pod would fit: of the request, or of what other claims hold.
//!
//! Each change is tried alone, and is found only if the allocation succeeds with it. The first node that fits is named.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::allocate::{Outcome, allocate};
use crate::amount::Amount;
use crate::candidates::{Cluster, NodeView};
use crate::capacity::CapacityRefusal;
use crate::device::{QualifiedName, Taint, Valid};
use crate::explain::{Answer, Blocked, Rule, explain};
use crate::node::{NodeFacts, Toleration};
use crate::request::{Ask, ClaimSpec, ConstraintRule, Count};
use crate::usage::Usage;

/// Claims that are taken away one after the other before a node is given up.
const MAX_CLAIMS: usize = 8;

/// Nodes on which claims are taken away to find the fewest.
const MAX_NODES: usize = 100;

/// A change with which the claims fit on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub kind: ChangeKind,
    pub node: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeKind {
    /// These claims end; positions in the usage.
    Wait {
        claims: Vec<usize>,
    },
    /// Another class for a request.
    Class {
        request: String,
        class: String,
    },
    /// Less of a capacity.
    Capacity {
        request: String,
        name: String,
        amount: Amount,
    },
    /// Fewer devices.
    Count {
        request: String,
        count: usize,
    },
    Tolerate(Taint),
    /// One selector less; the position counts from 1.
    Selector {
        request: String,
        at: usize,
        expression: String,
    },
    Constraint(ConstraintRule),
}

/// The nodes that the pod accepts, each with what it answered.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub cluster: &'a Cluster<'a>,
    pub usage: &'a Usage,
    pub claims: &'a [ClaimSpec],
    pub nodes: &'a [(&'a NodeFacts, Answer)],
}

/// What would help, in the order in which a user would want to try it.
pub fn changes(question: &Question<'_>) -> Vec<Change> {
    let views: Vec<NodeView<'_>> =
        question.nodes.iter().map(|(node, _)| NodeView::new(node, question.cluster.pools, question.usage)).collect();
    let search = Search { question, views: &views };
    let mut found: Vec<Change> = wait(question).into_iter().collect();
    found.extend(search.smaller(Search::less_capacity));
    found.extend(search.smaller(Search::fewer));
    found.extend(search.smaller(Search::other_class));
    found.extend(search.tolerate());
    found.extend(search.smaller(Search::without_selector));
    found.extend(search.without_constraint());
    found
}

/// The fewest claims that have to end, of the nodes that lack the fewest devices.
fn wait(question: &Question<'_>) -> Option<Change> {
    let blocked = question.nodes.iter().filter_map(|(node, answer)| Some((*node, answer.blocked()?)));
    let mut blocked: Vec<(&NodeFacts, &Blocked)> = blocked.collect();
    blocked.sort_by_key(|(_, blocked)| blocked.lacking());
    let rules =
        blocked.into_iter().take(MAX_NODES).flat_map(|(node, blocked)| blocked.rules().map(move |rule| (node, rule)));
    let mut fewest: Option<(BTreeSet<usize>, &NodeFacts)> = None;
    for (node, rule) in rules {
        let Some(claims) = released(question, node, rule) else { continue };
        if fewest.as_ref().is_none_or(|(fewest, _)| claims.len() < fewest.len()) {
            fewest = Some((claims, node));
        }
        if fewest.as_ref().is_some_and(|(fewest, _)| fewest.len() == 1) {
            break;
        }
    }
    let (claims, node) = fewest?;
    Some(Change { kind: ChangeKind::Wait { claims: claims.into_iter().collect() }, node: Arc::clone(&node.name) })
}

/// Takes away the claims of the device that came furthest until the claims fit.
fn released(question: &Question<'_>, node: &NodeFacts, rule: &Rule) -> Option<BTreeSet<usize>> {
    let pools = question.cluster.pools.on(node);
    let mut claims = BTreeSet::new();
    let mut holders: Vec<usize> = rule.holders().to_vec();
    while !holders.is_empty() && claims.len() < MAX_CLAIMS {
        let with = |more: &[usize]| {
            let without: BTreeSet<usize> = claims.iter().chain(more).copied().collect();
            let usage = question.usage.without(&without, &pools);
            explain(question.cluster, &NodeView::new(node, question.cluster.pools, &usage), question.claims)
        };
        if let Some(one) = holders.iter().find(|one| matches!(with(&[**one]), Answer::Fits(_))) {
            claims.insert(*one);
            return Some(claims);
        }
        match with(&holders) {
            Answer::Fits(_) => {
                claims.extend(holders);
                return (claims.len() <= MAX_CLAIMS).then_some(claims);
            }
            Answer::Blocked(next) => {
                claims.extend(holders);
                holders = next.rule.holders().iter().copied().filter(|claim| !claims.contains(claim)).collect();
            }
            Answer::Undecided | Answer::Aborted(_) => return None,
        }
    }
    None
}

struct Search<'a> {
    question: &'a Question<'a>,
    views: &'a [NodeView<'a>],
}

/// A request that fails on some node, and on which rule.
struct Failing<'a> {
    claim: usize,
    request: usize,
    ask: usize,
    found: &'a Ask,
    label: String,
    blocked: &'a Blocked,
}

impl Search<'_> {
    /// The first node on which changed claims fit.
    fn fits(&self, claims: &[ClaimSpec]) -> Option<Arc<str>> {
        let fits = |view: &&NodeView<'_>| matches!(allocate(self.question.cluster, view, claims), Outcome::Fits(_));
        self.views.iter().find(fits).map(|view| Arc::clone(&view.node.name))
    }

    /// The requests that fail, each once for every kind of rule.
    fn failing(&self) -> Vec<Failing<'_>> {
        let mut known = BTreeSet::new();
        let mut found = Vec::new();
        for (_, answer) in self.question.nodes {
            let Some(blocked) = answer.blocked() else { continue };
            for (claim, spec) in self.question.claims.iter().enumerate().filter(|(_, spec)| spec.label == blocked.claim)
            {
                for (request, named) in spec.requests.iter().enumerate() {
                    for (ask, asked) in named.asks.iter().enumerate() {
                        let name = asked.name.as_ref();
                        let label = name.map_or_else(|| named.name.clone(), |name| format!("{}/{name}", named.name));
                        if label == blocked.request && known.insert((claim, request, ask, rule_key(&blocked.rule))) {
                            found.push(Failing { claim, request, ask, found: asked, label, blocked });
                        }
                    }
                }
            }
        }
        found
    }

    /// The claims with another ask in the place of one.
    fn with(&self, failing: &Failing<'_>, ask: Ask) -> Vec<ClaimSpec> {
        let mut claims = self.question.claims.to_vec();
        let request = claims.get_mut(failing.claim).and_then(|claim| claim.requests.get_mut(failing.request));
        if let Some(found) = request.and_then(|request| request.asks.get_mut(failing.ask)) {
            *found = ask;
        }
        claims
    }

    /// The first of the changes of an ask that fits.
    fn smaller(&self, variants: impl Fn(&Self, &Failing<'_>) -> Vec<(Ask, ChangeKind)>) -> Option<Change> {
        self.failing().iter().find_map(|failing| {
            variants(self, failing).into_iter().find_map(|(ask, kind)| {
                let node = self.fits(&self.with(failing, ask))?;
                Some(Change { kind, node })
            })
        })
    }

    fn fewer(_: &Self, failing: &Failing<'_>) -> Vec<(Ask, ChangeKind)> {
        let Count::Exactly(count) = failing.found.count else { return Vec::new() };
        let variant = |count| {
            let ask = Ask { count: Count::Exactly(count), ..failing.found.clone() };
            (ask, ChangeKind::Count { request: failing.label.clone(), count })
        };
        (1..count).rev().map(variant).collect()
    }

    /// As much as some device has free, or at most has, on any node.
    fn less_capacity(&self, failing: &Failing<'_>) -> Vec<(Ask, ChangeKind)> {
        let same =
            |blocked: &&Blocked| blocked.claim == failing.blocked.claim && blocked.request == failing.blocked.request;
        let blocked = self.question.nodes.iter().filter_map(|(_, answer)| answer.blocked()).filter(same);
        let refusals = blocked.flat_map(Blocked::rules).filter_map(Rule::refusal);
        let mut limits: BTreeMap<&QualifiedName, Amount> = BTreeMap::new();
        for refusal in refusals {
            let (name, amount) = match refusal {
                CapacityRefusal::Taken { name, free, .. } => (name, *free),
                CapacityRefusal::TooLarge { name, total, .. } => (name, *total),
                CapacityRefusal::Invalid { name, policy: Valid::Range { max: Some(max), .. }, .. } => (name, *max),
                CapacityRefusal::Missing { .. } | CapacityRefusal::Invalid { .. } => continue,
            };
            let limit = limits.entry(name).or_default();
            *limit = amount.max(*limit);
        }
        let variants = limits.into_iter().filter(|(_, amount)| amount.is_positive()).map(|(name, amount)| {
            let requested = failing.found.capacity.keys().find(|key| name.is(key, &name.domain)).cloned();
            let mut ask = failing.found.clone();
            ask.capacity.insert(requested.unwrap_or_else(|| name.id.to_string()), amount);
            (ask, ChangeKind::Capacity { request: failing.label.clone(), name: name.id.to_string(), amount })
        });
        variants.collect()
    }

    /// Other classes, with the selectors and amounts of the request.
    fn other_class(&self, failing: &Failing<'_>) -> Vec<(Ask, ChangeKind)> {
        let names = self.question.cluster.classes.names().filter(|name| *name != failing.found.class);
        let variant = |class: &str| {
            let ask = Ask { class: class.to_owned(), ..failing.found.clone() };
            (ask, ChangeKind::Class { request: failing.label.clone(), class: class.to_owned() })
        };
        names.map(variant).collect()
    }

    fn without_selector(_: &Self, failing: &Failing<'_>) -> Vec<(Ask, ChangeKind)> {
        let variant = |at: usize| {
            let mut ask = failing.found.clone();
            let expression = ask.selectors.remove(at);
            (ask, ChangeKind::Selector { request: failing.label.clone(), at: at + 1, expression })
        };
        (0..failing.found.selectors.len()).map(variant).collect()
    }

    fn tolerate(&self) -> Option<Change> {
        let blocked = self.question.nodes.iter().filter_map(|(_, answer)| answer.blocked());
        let taints = blocked.flat_map(Blocked::rules).filter_map(Rule::taint);
        let taints: BTreeSet<&Taint> = taints.collect();
        taints.into_iter().find_map(|taint| {
            let toleration =
                Toleration { key: taint.key.to_string(), operator: "Exists".to_owned(), ..Toleration::default() };
            let mut claims = self.question.claims.to_vec();
            let asks = claims.iter_mut().flat_map(|claim| &mut claim.requests).flat_map(|request| &mut request.asks);
            asks.for_each(|ask| ask.tolerations.push(toleration.clone()));
            let node = self.fits(&claims)?;
            Some(Change { kind: ChangeKind::Tolerate(taint.clone()), node })
        })
    }

    fn without_constraint(&self) -> Option<Change> {
        let all = self.question.claims.iter().enumerate().flat_map(|(at, claim)| {
            claim.constraints.iter().enumerate().map(move |(position, constraint)| (at, position, constraint))
        });
        all.into_iter().find_map(|(at, position, constraint)| {
            let mut claims = self.question.claims.to_vec();
            claims.get_mut(at)?.constraints.remove(position);
            let node = self.fits(&claims)?;
            Some(Change { kind: ChangeKind::Constraint(constraint.rule.clone()), node })
        })
    }
}

/// Rules of one kind are alike for a change of the request.
fn rule_key(rule: &Rule) -> u8 {
    match rule {
        Rule::NoDevices | Rule::Pool(_) => 0,
        Rule::NoClass => 1,
        Rule::Class { .. } => 2,
        Rule::Selector { .. } => 3,
        Rule::InUse { .. } => 4,
        Rule::Capacity { .. } => 5,
        Rule::Counters { .. } => 6,
        Rule::Taint(_) => 7,
        Rule::Constraint(_) | Rule::Together | Rule::TooMany => 8,
    }
}
