// SPDX-License-Identifier: Apache-2.0
//! The short form of an answer, for an Event. Who reads the Events of a namespace need not know the claims of another one, so claims of
//! other namespaces are counted and not named. Pure.

use crate::text::within;
use crate::why::{Group, HeldBy, Proposal, Verdict, Why};

/// Limit of the note of an Event in bytes.
pub const MAX_BYTES: usize = 1024;

/// Reasons that are named.
const MAX_REASONS: usize = 3;

/// What a namespace may read of an answer; nothing where the scheduler goes on by itself, or where its own Events say the same.
pub fn brief(why: &Why, namespace: &str) -> Option<String> {
    match why.verdict {
        Verdict::Waits | Verdict::Never => {}
        Verdict::Fits | Verdict::Undecided => return None,
    }
    if why.nodes.is_empty() && why.changes.is_empty() {
        return None;
    }
    let reasons = why.nodes.iter().take(MAX_REASONS).map(|group| reason(group, namespace)).collect::<Vec<_>>();
    let rest: usize = why.nodes.iter().skip(MAX_REASONS).map(|group| group.nodes.len()).sum();
    let rest = (rest > 0).then(|| format!("{rest} more nodes for other reasons"));
    let messages = why.messages.iter().filter(|_| why.nodes.is_empty()).cloned();
    let parts = messages.chain(reasons).chain(rest).collect::<Vec<_>>().join("; ");
    let change = why.changes.iter().find(|change| !change.names_claims).map(proposal);
    let text = [Some(why.summary.clone()), Some(parts).filter(|parts| !parts.is_empty()), change];
    let text = text.into_iter().flatten().collect::<Vec<_>>().join(". ");
    Some(within(&text, MAX_BYTES).to_owned())
}

fn reason(group: &Group, namespace: &str) -> String {
    let nodes = match group.nodes.as_slice() {
        [] => String::new(),
        [node] => node.clone(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    };
    let closest = group.devices.first().map(|device| format!("closest {device}"));
    let about = closest.into_iter().chain(holders(&group.held_by, namespace)).collect::<Vec<_>>().join(", ");
    let about = if about.is_empty() { about } else { format!(" ({about})") };
    format!("{nodes}: {}{about}", group.reason)
}

/// `in use by claims a, b and 2 of other namespaces`
fn holders(held_by: &[HeldBy], namespace: &str) -> Option<String> {
    let own: Vec<&str> =
        held_by.iter().filter_map(|held| held.claim.strip_prefix(namespace)?.strip_prefix('/')).collect();
    let others = held_by.len() - own.len();
    match (own.as_slice(), others) {
        ([], 0) => None,
        ([], 1) => Some("in use by a claim of another namespace".to_owned()),
        ([], others) => Some(format!("in use by {others} claims of other namespaces")),
        (own, 0) => Some(format!("in use by claim {}", own.join(", "))),
        (own, others) => Some(format!("in use by claim {} and {others} of other namespaces", own.join(", "))),
    }
}

fn proposal(proposal: &Proposal) -> String {
    format!("What would help: {}", proposal.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(node: &str, reason: &str, held_by: &[&str]) -> Group {
        let held =
            |claim: &&str| HeldBy { claim: (*claim).to_owned(), pods: vec!["pod-of-it".to_owned()], since: None };
        Group {
            nodes: vec![node.to_owned()],
            fits: false,
            reason: reason.to_owned(),
            devices: vec![format!("gpu-of-{node}")],
            held_by: held_by.iter().map(held).collect(),
            also: vec!["gpu-x: the devices that match are in use: other/secret (pod secret-0)".to_owned()],
        }
    }

    fn why(nodes: Vec<Group>) -> Why {
        let wait =
            Proposal { text: "wait until claim other/secret (pod secret-0) ends".to_owned(), names_claims: true };
        Why {
            subject: "pod ml/train".to_owned(),
            verdict: Verdict::Waits,
            summary: "pod ml/train waits".to_owned(),
            asks: Vec::new(),
            messages: Vec::new(),
            nodes,
            changes: vec![wait, "ask for 1 device in request gpu: node a fits now".to_owned().into()],
            incomplete: Vec::new(),
        }
    }

    #[test]
    fn claims_of_other_namespaces_are_counted_and_never_named() {
        let nodes = vec![
            group("a", "the devices that match are in use", &["ml/own", "other/secret"]),
            group("b", "the devices that match are in use", &["ml2/secret", "other/secret"]),
            group("c", "no device is of class x", &[]),
            group("d", "has no devices", &[]),
        ];
        let text = brief(&why(nodes), "ml").unwrap();
        assert_eq!(
            text,
            "pod ml/train waits. a: the devices that match are in use (closest gpu-of-a, in use by claim own and 1 of other \
             namespaces); b: the devices that match are in use (closest gpu-of-b, in use by 2 claims of other namespaces); \
             c: no device is of class x (closest gpu-of-c); 1 more nodes for other reasons. What would help: ask for 1 \
             device in request gpu: node a fits now"
        );
    }

    #[test]
    fn a_long_answer_fits_an_event_and_one_without_a_cause_is_none() {
        let long = brief(&why(vec![group("a", &"é".repeat(2000), &[])]), "ml").unwrap();
        assert!(long.len() <= MAX_BYTES && long.len() >= MAX_BYTES - 1, "{}", long.len());
        for verdict in [Verdict::Fits, Verdict::Undecided] {
            assert_eq!(brief(&Why { verdict, ..why(vec![group("a", "x", &[])]) }, "ml"), None);
        }
        assert_eq!(brief(&Why { changes: Vec::new(), ..why(Vec::new()) }, "ml"), None);
    }
}
