// SPDX-License-Identifier: Apache-2.0
//! What `migrate` prints.

use std::fmt::Write as _;

use super::moving::{Direction, Labels};
use super::plan::{ComponentPlan, NodePlan, Plan};
use super::{ENABLED, LABEL, Node, Owner, User};
use crate::table::{Cell, Colours, Style, counted, headings, lines, painted, wrapped};

const WIDTH: usize = 110;

/// The plan for the cluster.
pub fn table(plan: &Plan, colours: Colours) -> String {
    let count = |owner| plan.nodes.iter().filter(|node| node.owner == owner).count();
    let (theirs, ours) = (count(Owner::Theirs), count(Owner::Ours));
    let both = match count(Owner::Both) {
        0 => String::new(),
        both => format!(", {both} of both"),
    };
    let nodes = counted(plan.nodes.len(), "node");
    let mut text = format!("{nodes} with GPUs: {theirs} of NVIDIA's components, {ours} of this driver{both}\n");
    if !plan.components.is_empty() {
        text += &section("NVIDIA's components, and what they become", colours);
        let heading = headings(&["COMPONENT", "DAEMONSET", "NODES", "BECOMES"]);
        let rows: Vec<Vec<Cell>> = std::iter::once(heading).chain(plan.components.iter().map(component)).collect();
        text += &lines(&rows, 2, colours);
    }
    if !plan.nodes.is_empty() {
        text += &section("Nodes", colours);
        let heading = headings(&["NODE", "OWNER", "BY", "PODS", "NEXT"]);
        let rows: Vec<Vec<Cell>> = std::iter::once(heading).chain(plan.nodes.iter().map(node)).collect();
        text += &lines(&rows, 2, colours);
    }
    let prepare = plan.components.iter().filter_map(|one| one.prepare.as_ref()).chain(&plan.prepare);
    text += &list("Once, before the first node", prepare, colours);
    text += &list("Left by NVIDIA's DRA driver", plan.leftovers.iter(), colours);
    for note in &plan.notes {
        writeln!(text, "{}", painted(&wrapped(&format!("note: {note}"), WIDTH), Style::Faint, colours)).ok();
    }
    text
}

fn section(title: &str, colours: Colours) -> String {
    format!("\n{}\n", painted(title, Style::Heading, colours))
}

fn list<'a>(title: &str, items: impl Iterator<Item = &'a String>, colours: Colours) -> String {
    let items: Vec<String> =
        items.enumerate().map(|(at, item)| format!("  {}. {}\n", at + 1, indented(item))).collect();
    if items.is_empty() { String::new() } else { section(title, colours) + &items.concat() }
}

fn indented(item: &str) -> String {
    wrapped(item, WIDTH).replace('\n', "\n     ")
}

fn component(one: &ComponentPlan) -> Vec<Cell> {
    let ComponentPlan { kind, daemon_set, nodes, becomes, .. } = one;
    vec![kind.name().into(), daemon_set.clone().into(), nodes.to_string().into(), becomes.clone().into()]
}

fn node(one: &NodePlan) -> Vec<Cell> {
    let NodePlan { node, owner, by, their_pods, our_pods, next } = one;
    let (owner, style) = match owner {
        Owner::Theirs => ("theirs", Style::Plain),
        Owner::Ours => ("ours", Style::Good),
        Owner::Both => ("both", Style::Bad),
        Owner::None => ("none", Style::Warning),
    };
    let by = if by.is_empty() { "-".to_owned() } else { by.join(", ") };
    let pods = match (their_pods, our_pods) {
        (0, 0) => "-".to_owned(),
        (theirs, 0) => format!("{theirs} theirs"),
        (0, ours) => format!("{ours} ours"),
        (theirs, ours) => format!("{theirs} theirs, {ours} ours"),
    };
    vec![node.clone().into(), Cell::new(owner, style), by.into(), pods.into(), next.clone().into()]
}

/// The pods that use GPUs of the side that leaves.
pub fn users(node: &Node, users: &[User], colours: Colours) -> String {
    let row = |user: &User| vec![user.namespace.clone().into(), user.pod.clone().into(), user.by.clone().into()];
    let heading = headings(&["NAMESPACE", "POD", "HAS"]);
    let rows: Vec<Vec<Cell>> = std::iter::once(heading).chain(users.iter().map(row)).collect();
    format!("Pods with GPUs of node {}:\n{}", node.name(), lines(&rows, 2, colours))
}

/// What is changed, before it is.
pub fn announcement(node: &Node, direction: Direction, first: &Labels) -> String {
    let (subject, last) = match direction {
        Direction::ToUs => ("to this driver", format!("When NVIDIA's components have left: {LABEL}={ENABLED}.")),
        Direction::Back => (
            "back to NVIDIA's components",
            format!(
                "When this driver has left, {LABEL} is removed and the labels of NVIDIA's operator have their values again."
            ),
        ),
    };
    let mut text = format!("Node {} moves {subject}. Labels of the node are changed, nothing else.\n", node.name());
    for (key, value) in first {
        let before = node.label(key).unwrap_or("none");
        writeln!(text, "  {key}: {before} -> {}", value.as_deref().unwrap_or("none")).ok();
    }
    text + &wrapped(&last, WIDTH) + "\n"
}

/// Why a node is not moved.
pub fn refusal(node: &Node, reasons: &[String], colours: Colours) -> String {
    let title = format!("Node {} is not moved. First, once for all nodes", node.name());
    list(&title, reasons.iter(), colours).trim_start().to_owned()
}
