// SPDX-License-Identifier: Apache-2.0
//! What the nodes answer, by their reason.

use std::collections::BTreeMap;

use dra_allocation::candidates::SelectorFault;
use dra_allocation::request::Count;
use dra_allocation::{Answer, Blocked, Exclusion, Holder, NodeFacts, Usage};
use serde::Serialize;

use super::sentences;

/// Nodes up to which those with claims have blocks of their own.
const MAX_ALONE: usize = 12;

/// Nodes with the same reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    pub nodes: Vec<String>,
    pub fits: bool,
    pub reason: String,
    /// The device that came furthest, or the devices that the claims would get, on the first of the nodes.
    pub devices: Vec<String>,
    /// The claims that have what is missing there.
    pub held_by: Vec<HeldBy>,
    /// Other devices there that are in use for another reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldBy {
    /// `namespace/name`
    pub claim: String,
    pub pods: Vec<String>,
    /// RFC 3339; absent if the scheduler wrote no time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

impl HeldBy {
    fn of(holder: &Holder) -> Self {
        Self {
            claim: format!("{}/{}", holder.namespace, holder.name),
            pods: holder.consumers.iter().map(ToString::to_string).collect(),
            since: holder.since.as_deref().map(str::to_owned),
        }
    }
}

/// What one node answers.
pub(super) enum NodeAnswer {
    Excluded(Exclusion),
    Asked(Answer),
}

impl NodeAnswer {
    /// An expression that fails.
    pub(super) fn fault(&self) -> Option<&SelectorFault> {
        match self {
            Self::Asked(Answer::Aborted(fault)) => Some(fault),
            Self::Asked(Answer::Fits(_) | Answer::Blocked(_) | Answer::Undecided) | Self::Excluded(_) => None,
        }
    }
}

/// Nodes with equal reasons. On a small cluster, nodes where claims have what is missing stand alone; on a large one the first node of
/// a group is the one where the fewest claims have it.
pub(super) fn groups(answers: &[(&NodeFacts, NodeAnswer)], usage: &Usage) -> Vec<Group> {
    let mut found: BTreeMap<(bool, String, Option<&str>), Group> = BTreeMap::new();
    for (node, answer) in answers {
        let group = match answer {
            NodeAnswer::Excluded(exclusion) => reason(node, exclusion.to_string()),
            NodeAnswer::Asked(answer) => of_answer(node, answer, usage),
        };
        let stands_alone = answers.len() <= MAX_ALONE && (group.fits || !group.held_by.is_empty());
        let key = (!group.fits, group.reason.clone(), stands_alone.then_some(node.name.as_ref()));
        let known = found.entry(key).or_insert_with(|| Group { nodes: Vec::new(), ..group.clone() });
        if group.held_by.len() < known.held_by.len() {
            known.nodes.insert(0, node.name.to_string());
            (known.devices, known.held_by, known.also) = (group.devices, group.held_by, group.also);
        } else {
            known.nodes.push(node.name.to_string());
        }
    }
    found.into_values().collect()
}

fn reason(node: &NodeFacts, reason: String) -> Group {
    Group {
        nodes: vec![node.name.to_string()],
        fits: false,
        reason,
        devices: Vec::new(),
        held_by: Vec::new(),
        also: Vec::new(),
    }
}

fn of_answer(node: &NodeFacts, answer: &Answer, usage: &Usage) -> Group {
    match answer {
        Answer::Fits(devices) => Group {
            fits: true,
            devices: devices.iter().map(|found| found.device.device.to_string()).collect(),
            ..reason(node, "fits now".to_owned())
        },
        Answer::Undecided => reason(node, "too many combinations of devices to try all of them".to_owned()),
        Answer::Aborted(_) => reason(node, "an expression fails".to_owned()),
        Answer::Blocked(blocked) => of_blocked(node, blocked, usage),
    }
}

fn of_blocked(node: &NodeFacts, blocked: &Blocked, usage: &Usage) -> Group {
    let some = match blocked.needed {
        Count::Exactly(count) if blocked.usable > 0 && blocked.usable < count => {
            format!("{} of {count} devices are free; ", blocked.usable)
        }
        Count::Exactly(_) | Count::All => String::new(),
    };
    let holders = blocked.rule.holders().iter().filter_map(|at| usage.claim(*at)).map(HeldBy::of);
    let others = blocked.others.iter().filter(|(_, rule)| !rule.holders().is_empty());
    let others = others.map(|(device, rule)| {
        let claims = rule.holders().iter().filter_map(|at| usage.claim(*at)).map(sentences::holder);
        let claims = claims.collect::<Vec<_>>().join(" and ");
        format!("{}: {}: {claims}", device.device, sentences::rule(rule, blocked))
    });
    Group {
        devices: blocked.device.iter().map(|device| device.device.to_string()).collect(),
        held_by: holders.collect(),
        also: others.collect(),
        ..reason(node, some + &sentences::rule(&blocked.rule, blocked))
    }
}
