// SPDX-License-Identifier: Apache-2.0
//! The sentences about rules, requests and changes. They are interface: one for each cause, in the words of Kubernetes.

use std::fmt::Write as _;

use dra_allocation::candidates::SelectorFault;
use dra_allocation::capacity::CapacityRefusal;
use dra_allocation::changes::{Change, ChangeKind};
use dra_allocation::device::Valid;
use dra_allocation::pool::PoolFault;
use dra_allocation::request::{Ask, ConstraintRule, Count};
use dra_allocation::selector::SelectorError;
use dra_allocation::{Blocked, ClaimSpec, Holder, Rule, Usage};

use crate::text::shortened;

/// Characters of a CEL expression in a sentence.
const EXPRESSION: usize = 80;

/// A line for each way to satisfy a request.
pub(super) fn asks(claim: &ClaimSpec) -> Vec<String> {
    let requests = claim.requests.iter().flat_map(|request| {
        request.asks.iter().map(move |ask| {
            let name =
                ask.name.as_ref().map_or_else(|| request.name.clone(), |name| format!("{}/{name}", request.name));
            format!("claim {}, request {name}: {}", claim.label, wanted(ask))
        })
    });
    requests.collect()
}

fn wanted(ask: &Ask) -> String {
    let count = match ask.count {
        Count::Exactly(1) => "1 device".to_owned(),
        Count::Exactly(count) => format!("{count} devices"),
        Count::All => "all devices".to_owned(),
    };
    let mut text = format!("{count} of class {}", ask.class);
    for (name, amount) in &ask.capacity {
        write!(text, " with {amount} of {name}").ok();
    }
    if ask.is_admin {
        text += " with admin access";
    }
    for expression in &ask.selectors {
        write!(text, "\n  where {}", one_line(expression)).ok();
    }
    text
}

fn one_line(expression: &str) -> String {
    shortened(&expression.split_whitespace().collect::<Vec<_>>().join(" "), EXPRESSION)
}

/// Why a node does not give what a request asks for.
pub(super) fn rule(rule: &Rule, blocked: &Blocked) -> String {
    let class = &blocked.class;
    match rule {
        Rule::NoDevices => "has no devices".to_owned(),
        Rule::Pool(PoolFault::Incomplete { found, expected }) => {
            format!("{found} of {expected} ResourceSlices are there: the driver is starting or replacing them")
        }
        Rule::Pool(PoolFault::Duplicate(device)) => format!("two devices have the name {device}"),
        Rule::NoClass => format!("DeviceClass {class} does not exist"),
        Rule::Class { .. } => format!("no device is of class {class}"),
        Rule::Selector { at, .. } => format!("no device of class {class} matches selector {}", at + 1),
        Rule::InUse { .. } => "the devices that match are in use".to_owned(),
        Rule::Capacity { refusal, .. } => capacity(refusal),
        Rule::Counters { .. } => "the GPUs that match are in use in another form or partition".to_owned(),
        Rule::Taint(taint) => format!("the devices that are free have the taint {taint}"),
        Rule::Constraint(ConstraintRule::Match(name)) => format!("no devices that are free have the same {name}"),
        Rule::Constraint(ConstraintRule::Distinct(name)) => {
            format!("not enough devices with different {name} are free")
        }
        Rule::Together => match blocked.needed {
            Count::Exactly(count) if count > 1 => {
                format!("{} devices fit one by one, but not {count} of them beside each other", blocked.usable)
            }
            Count::Exactly(_) | Count::All => "each request fits alone, but not beside the others".to_owned(),
        },
        Rule::TooMany => "a claim cannot have more than 32 devices".to_owned(),
    }
}

fn capacity(refusal: &CapacityRefusal) -> String {
    match refusal {
        CapacityRefusal::Missing { name } => format!("no device has the capacity {name}"),
        CapacityRefusal::Invalid { name, requested, policy } => {
            format!("the driver gives no {requested} of {}: {}", name.id, valid(policy))
        }
        CapacityRefusal::TooLarge { name, requested, total } => {
            format!("{requested} of {} is asked for, and a device has {total}", name.id)
        }
        CapacityRefusal::Taken { name, requested, free } => {
            format!("{requested} of {} is asked for, and {free} is free", name.id)
        }
    }
}

fn valid(policy: &Valid) -> String {
    match policy {
        Valid::Any => "the default is not valid".to_owned(),
        Valid::Values(values) => {
            let values = values.iter().map(ToString::to_string).collect::<Vec<_>>();
            format!("it gives {}", values.join(", "))
        }
        Valid::Range { min, max: Some(max), .. } => format!("it gives {min} to {max}"),
        Valid::Range { min, max: None, .. } => format!("it gives {min} or more"),
    }
}

/// `namespace/name (pod a, b)`
pub(super) fn holder(holder: &Holder) -> String {
    let claim = format!("{}/{}", holder.namespace, holder.name);
    if holder.consumers.is_empty() {
        return format!("{claim} (no pod)");
    }
    let pods = holder.consumers.iter().map(AsRef::as_ref).collect::<Vec<_>>();
    format!("{claim} (pod {})", shortened(&pods.join(", "), 40))
}

/// One change, with the node that then fits.
pub(super) fn change(change: &Change, usage: &Usage) -> String {
    let Change { kind, node } = change;
    match kind {
        ChangeKind::Wait { claims } => {
            let names = claims.iter().filter_map(|at| usage.claim(*at)).map(holder).collect::<Vec<_>>();
            let (claim, ends) = if names.len() == 1 { ("claim", "ends") } else { ("claims", "end") };
            format!("wait until {claim} {} {ends}: then node {node} fits", names.join(" and "))
        }
        ChangeKind::Class { request, class } => {
            format!("ask for class {class} in request {request}: node {node} fits now")
        }
        ChangeKind::Capacity { request, name, amount } => {
            format!("ask for {amount} of {name} at most in request {request}: node {node} fits now")
        }
        ChangeKind::Count { request, count } => {
            let noun = if *count == 1 { "device" } else { "devices" };
            format!("ask for {count} {noun} in request {request}: node {node} fits now")
        }
        ChangeKind::Tolerate(taint) => {
            format!("tolerate {taint} in the request, if its cause does no harm to the work: node {node} fits now")
        }
        ChangeKind::Selector { request, at, expression } => {
            format!("leave out selector {at} of request {request} ({}): node {node} fits now", one_line(expression))
        }
        ChangeKind::Constraint(ConstraintRule::Match(name)) => {
            format!("leave out the constraint that {name} is the same: node {node} fits now")
        }
        ChangeKind::Constraint(ConstraintRule::Distinct(name)) => {
            format!("leave out the constraint that {name} differs: node {node} fits now")
        }
    }
}

/// An expression that fails: what is said about it, and what helps.
pub(super) fn fault(fault: &SelectorFault) -> (Vec<String>, Vec<String>) {
    let SelectorFault { class, expression, device, error } = fault;
    let of = class.as_ref().map_or_else(|| "a selector of the claim".to_owned(), |class| format!("class {class}"));
    let message = format!("{of} on device {device}: {error}: {}", one_line(expression));
    let help = match error {
        SelectorError::Missing { key } => format!(
            "test that a device has {key} before it is read: has(device.attributes[\"{}\"].{key}) && …",
            device.driver
        ),
        SelectorError::Syntax(_) | SelectorError::Failed(_) | SelectorError::NotBool => {
            format!("correct the expression of {of}")
        }
        SelectorError::Unknown(name) => {
            format!("ask the scheduler (`kubectl describe pod`): it may know `{name}`, which this program does not")
        }
    };
    (vec![message], vec![help])
}
