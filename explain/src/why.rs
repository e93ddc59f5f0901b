// SPDX-License-Identifier: Apache-2.0
//! Why a pod waits for its claims, and what would help: the allocation is tried again on every node by the rules of the scheduler.

mod groups;
mod sentences;

use std::cell::Cell;

use dra_allocation::candidates::SelectorFault;
use dra_allocation::changes::{Change, ChangeKind, Question, changes};
use dra_allocation::selector::SelectorError;
use dra_allocation::{
    Answer, ClaimSpec, Classes, Cluster, Exclusion, NodeFacts, NodeView, Pools, Selectors, Usage, explain,
    fits_on_emptied,
};
use serde::Serialize;

pub use groups::{Group, HeldBy};

use crate::subject::{ClaimState, Subject};
use groups::{NodeAnswer, groups};

/// Nodes whose search takes too many steps; then further ones are not searched.
const MAX_UNDECIDED: usize = 4;

/// The answer of `kubectl gpu why`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Why {
    /// `pod NAMESPACE/NAME` or `claim NAMESPACE/NAME`.
    pub subject: String,
    pub verdict: Verdict,
    /// One sentence.
    pub summary: String,
    /// What the claims ask for, a line for each request.
    pub asks: Vec<String>,
    /// What Kubernetes and the driver said last.
    pub messages: Vec<String>,
    /// The nodes by their reason, those that fit first.
    pub nodes: Vec<Group>,
    /// What would help, the smallest change first.
    pub changes: Vec<Proposal>,
    /// Rights that would show more, with what is missing without them.
    pub incomplete: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Allocated, or a node fits now.
    Fits,
    /// Fits when something that is in use becomes free, or a fault ends.
    Waits,
    /// Fits on no node, even if no other claim used it.
    Never,
    /// This program cannot tell.
    Undecided,
}

/// Something that would help.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Proposal {
    /// One sentence.
    pub text: String,
    /// Whether the sentence names claims of others.
    #[serde(skip)]
    pub names_claims: bool,
}

impl From<String> for Proposal {
    fn from(text: String) -> Self {
        Self { text, names_claims: false }
    }
}

/// What was read of the cluster.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    pub pools: &'a Pools,
    pub usage: &'a Usage,
    pub classes: &'a Classes,
    pub nodes: &'a [NodeFacts],
}

/// Answers for a subject.
pub fn why(subject: &Subject, seen: Seen<'_>, incomplete: Vec<String>) -> Why {
    let claims = subject.unallocated();
    let asks = claims.iter().flat_map(sentences::asks).collect();
    let why = Why {
        subject: subject.what.clone(),
        verdict: Verdict::Waits,
        summary: String::new(),
        asks,
        messages: Vec::new(),
        nodes: Vec::new(),
        changes: Vec::new(),
        incomplete,
    };
    let known = gated_pod(subject, &why).or_else(|| missing_claim(subject, why.clone()));
    if let Some(why) = known.or_else(|| bound_pod(subject, why.clone())) {
        return why;
    }
    if claims.is_empty() { allocated(subject, why) } else { unallocated(subject, &claims, seen, why) }
}

/// A pod that the scheduler does not look at yet.
fn gated_pod(subject: &Subject, why: &Why) -> Option<Why> {
    let gates = subject.pod.as_ref().map(|pod| pod.gates.join(", ")).filter(|gates| !gates.is_empty())?;
    let summary = format!(
        "{} waits: the scheduler does not try it before its scheduling gates are removed: {gates}",
        subject.what
    );
    Some(Why { summary, ..why.clone() })
}

/// A claim that is not created: the template is missing, or a quota refuses it.
fn missing_claim(subject: &Subject, mut why: Why) -> Option<Why> {
    let missing = subject.claims.iter().find_map(|claim| match &claim.state {
        ClaimState::Missing { template, spec } => Some((claim, template, spec)),
        ClaimState::Unallocated(_) | ClaimState::Allocated(_) => None,
    });
    let (claim, template, spec) = missing?;
    let refusal = subject.event("FailedResourceClaimCreation");
    why.summary = match (template, spec, refusal) {
        (Some(template), None, _) => {
            format!("{} waits: its ResourceClaimTemplate {template} does not exist", subject.what)
        }
        (None, _, _) => format!("{} waits: claim {} does not exist", subject.what, claim.label),
        (Some(_), Some(_), Some(_)) => {
            format!("{} waits: the claim for {} was refused when it was created", subject.what, claim.label)
        }
        (Some(_), Some(_), None) => return None,
    };
    if let Some(event) = refusal {
        why.messages.push(format!("{}: {}", event.reason, event.message));
        if event.message.contains("exceeded quota") {
            why.changes
                .push("ask for a higher ResourceQuota of the namespace, or delete claims in it".to_owned().into());
        }
    }
    Some(why)
}

/// A pod that has a node: what remains is the preparation of its devices.
fn bound_pod(subject: &Subject, mut why: Why) -> Option<Why> {
    let pod = subject.pod.as_ref()?;
    let node = pod.node.as_ref()?;
    let devices = devices(subject).join(", ");
    let failed = subject.event("FailedPrepareDynamicResources").filter(|_| pod.phase == "Pending");
    why.messages.extend(failed.map(|event| format!("{}: {}", event.reason, event.message)));
    why.messages.extend(conditions(subject));
    (why.verdict, why.summary) = match failed {
        Some(_) => {
            (Verdict::Waits, format!("{} is on node {node}, where its devices cannot be prepared", subject.what))
        }
        None => (Verdict::Fits, format!("{} is on node {node} and has {devices}", subject.what)),
    };
    Some(why)
}

/// All claims are allocated, and no pod is bound.
fn allocated(subject: &Subject, mut why: Why) -> Why {
    let devices = devices(subject).join(", ");
    why.messages.extend(conditions(subject));
    if subject.pod.is_none() {
        why.verdict = Verdict::Fits;
        why.summary = format!("{} is allocated: {devices}", subject.what);
        return why;
    }
    why.summary = format!("{} has {devices}, but no node: it waits for something else", subject.what);
    why.messages.extend(scheduler(subject));
    why
}

fn devices(subject: &Subject) -> Vec<String> {
    let allocated = subject.claims.iter().filter_map(|claim| match &claim.state {
        ClaimState::Allocated(allocated) => Some(allocated.devices.clone()),
        ClaimState::Missing { .. } | ClaimState::Unallocated(_) => None,
    });
    allocated.flatten().collect()
}

fn conditions(subject: &Subject) -> Vec<String> {
    let allocated = subject.claims.iter().filter_map(|claim| match &claim.state {
        ClaimState::Allocated(allocated) => Some(allocated.conditions.clone()),
        ClaimState::Missing { .. } | ClaimState::Unallocated(_) => None,
    });
    allocated.flatten().collect()
}

/// What the scheduler said last.
fn scheduler(subject: &Subject) -> Option<String> {
    subject.event("FailedScheduling").map(|event| format!("{}: {}", event.reason, event.message))
}

fn unallocated(subject: &Subject, claims: &[ClaimSpec], seen: Seen<'_>, mut why: Why) -> Why {
    let selectors = Selectors::default();
    let cluster = Cluster { pools: seen.pools, classes: seen.classes, selectors: &selectors };
    let undecided = Cell::new(0);
    let ask = |node| {
        if undecided.get() >= MAX_UNDECIDED {
            return Answer::Undecided;
        }
        let answer = explain(&cluster, &NodeView::new(node, seen.pools, seen.usage), claims);
        undecided.set(undecided.get() + usize::from(answer == Answer::Undecided));
        answer
    };
    let answers: Vec<(&NodeFacts, NodeAnswer)> = seen
        .nodes
        .iter()
        .map(|node| match exclusion(subject, node) {
            Some(exclusion) => (node, NodeAnswer::Excluded(exclusion)),
            None => (node, NodeAnswer::Asked(ask(node))),
        })
        .collect();
    why.nodes = groups(&answers, seen.usage);
    if let Some(fault) = answers.iter().find_map(|(_, answer)| answer.fault()) {
        return failing(subject, fault, why);
    }
    let asked = answers.into_iter().filter_map(|(node, answer)| match answer {
        NodeAnswer::Asked(answer) => Some((node, answer)),
        NodeAnswer::Excluded(_) => None,
    });
    let asked: Vec<(&NodeFacts, Answer)> = asked.collect();
    if why.nodes.iter().any(|group| group.fits) {
        why.verdict = Verdict::Fits;
        why.summary = fitting(subject);
        why.messages.extend(scheduler(subject));
        return why;
    }
    if undecided.get() > 0 {
        why.verdict = Verdict::Undecided;
        why.summary =
            format!("{} may fit: there are too many combinations of devices to try all of them", subject.what);
        why.changes = vec!["ask for fewer devices at once: the scheduler may time out, too".to_owned().into()];
        return why;
    }
    let could = |node: &NodeFacts| may_change(subject, node) && fits_on_emptied(&cluster, node, claims);
    let is_possible = seen.nodes.iter().any(could);
    why.verdict = if is_possible { Verdict::Waits } else { Verdict::Never };
    why.summary = refused(subject, seen.nodes.len(), is_possible);
    let question = Question { cluster: &cluster, usage: seen.usage, claims, nodes: &asked };
    let proposal = |change: &Change| Proposal {
        text: sentences::change(change, seen.usage),
        names_claims: matches!(change.kind, ChangeKind::Wait { .. }),
    };
    why.changes = changes(&question).iter().map(proposal).collect();
    why.changes.extend(other_node(subject, seen, ask).map(Proposal::from));
    why
}

/// An expression fails, which keeps the pod from all nodes, or this program cannot evaluate it.
fn failing(subject: &Subject, fault: &SelectorFault, why: Why) -> Why {
    let (verdict, summary) = match fault.error {
        SelectorError::Unknown(_) => (Verdict::Undecided, "is not judged: this program cannot evaluate an expression"),
        SelectorError::Syntax(_)
        | SelectorError::Missing { .. }
        | SelectorError::Failed(_)
        | SelectorError::NotBool => (Verdict::Never, "is scheduled on no node: an expression fails"),
    };
    let (messages, changes) = sentences::fault(fault);
    let changes = changes.into_iter().map(Proposal::from).collect();
    Why { verdict, summary: format!("{} {summary}", subject.what), messages, changes, nodes: Vec::new(), ..why }
}

fn fitting(subject: &Subject) -> String {
    let what = &subject.what;
    match subject.pod {
        Some(_) => format!("{what} fits now: the scheduler tries it again when it is informed of a change"),
        None => format!("{what} fits now: it is allocated when a pod that uses it is scheduled"),
    }
}

fn refused(subject: &Subject, nodes: usize, is_possible: bool) -> String {
    let what = &subject.what;
    match (nodes, is_possible) {
        (0, _) => format!("{what} waits: no node has devices of a DRA driver"),
        (1, true) => format!("{what} waits: the only node cannot give it what it asks for now"),
        (_, true) => format!("{what} waits: none of {nodes} nodes can give it what it asks for now"),
        (_, false) => {
            format!("{what} can never fit as it is: no node has what it asks for, even if nothing were in use")
        }
    }
}

/// The first rule of the pod, or of a claim that is allocated already, that excludes a node.
fn exclusion(subject: &Subject, node: &NodeFacts) -> Option<Exclusion> {
    let elsewhere = subject.claims.iter().find_map(|claim| match &claim.state {
        ClaimState::Allocated(found) if found.nodes.as_ref().is_some_and(|nodes| !nodes.matches(node)) => {
            Some(Exclusion::ClaimElsewhere { claim: claim.label.clone() })
        }
        ClaimState::Allocated(_) | ClaimState::Missing { .. } | ClaimState::Unallocated(_) => None,
    });
    elsewhere.or_else(|| subject.pod.as_ref().and_then(|pod| pod.rules.exclusion(node)))
}

/// Whether a node may take the pod without a change of the pod: taints of nodes end.
fn may_change(subject: &Subject, node: &NodeFacts) -> bool {
    match exclusion(subject, node) {
        None | Some(Exclusion::Cordoned | Exclusion::Taint { .. }) => true,
        Some(Exclusion::Label { .. } | Exclusion::Affinity | Exclusion::ClaimElsewhere { .. }) => false,
    }
}

/// A node that fits, but that the pod does not accept.
fn other_node<'a>(subject: &Subject, seen: Seen<'a>, ask: impl Fn(&'a NodeFacts) -> Answer) -> Option<String> {
    let excluded = seen.nodes.iter().filter_map(|node| Some((node, exclusion(subject, node)?)));
    let (node, exclusion) = excluded.into_iter().find(|(node, _)| matches!(ask(node), Answer::Fits(_)))?;
    Some(format!("let the pod run on node {}, where it fits now: {exclusion}", node.name))
}
