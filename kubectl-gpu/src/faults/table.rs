// SPDX-License-Identifier: Apache-2.0
//! The faults as text: a paragraph for each, or a line for each GPU if there are many.

use std::fmt::Write as _;

use super::{By, Claim, Fault, Faults, Gpu, Node, Share, Total};
use crate::age::Clock;
use crate::status::View;
use crate::table::{Cell, Colours, Style, counted, headings, lines, painted, wrapped};
use dra_explain::subject::Event;
use dra_explain::text::shortened;

const WIDTH: usize = 100;

/// GPUs up to which every fault is explained.
const MAX_PARAGRAPHS: usize = 12;

/// Columns before the text of a paragraph.
const INDENT: usize = 12;

/// The whole text.
pub fn table(faults: &Faults, view: View, clock: Clock, colours: Colours) -> String {
    let mut text = summary(faults, colours);
    let gpus: usize = faults.nodes.iter().map(|node| node.gpus.len()).sum();
    if view == View::Short && gpus > MAX_PARAGRAPHS {
        text += &short(&faults.nodes, clock, colours);
        text += "\nkubectl gpu faults NODE explains the faults of a node, -o wide those of all nodes.\n";
    } else {
        for found in &faults.nodes {
            text += &node(found, clock, colours);
        }
    }
    for missing in &faults.incomplete {
        let note = wrapped(&format!("note: {missing}"), WIDTH);
        writeln!(text, "\n{}", painted(&note, Style::Warning, colours)).ok();
    }
    text
}

fn summary(faults: &Faults, colours: Colours) -> String {
    let Total { nodes, gpus } = faults.total;
    let of = format!("{} on {}", counted(gpus, "GPU"), counted(nodes, "node"));
    let all = || faults.nodes.iter().flat_map(|node| &node.gpus);
    let is_drained = |gpu: &&Gpu| gpu.faults.iter().all(|fault| matches!(fault.by, By::Drain { .. }));
    let drained = all().filter(is_drained).count();
    let failed = all().count().saturating_sub(drained);
    if faults.nodes.is_empty() {
        let note = format!("No faults: {of}");
        return format!("{}\n", painted(&note, Style::Good, colours));
    }
    let mut parts = Vec::new();
    if failed > 0 {
        parts.push(format!("{} with faults", counted(failed, "GPU")));
    }
    if drained > 0 {
        parts.push(format!("{} out of service by hand", counted(drained, "GPU")));
    }
    let silent = faults.nodes.iter().filter(|node| node.gpus.is_empty()).count();
    if silent > 0 {
        parts.push(format!("{} with warnings", counted(silent, "node")));
    }
    let style = if failed > 0 { Style::Bad } else { Style::Warning };
    format!("{}\n", painted(&format!("{}; {of}", parts.join(", ")), style, colours))
}

/// A line for each fault.
fn short(nodes: &[Node], clock: Clock, colours: Colours) -> String {
    let mut rows = vec![headings(&["NODE", "GPU", "FAULT", "SINCE", "CLAIMS"])];
    for node in nodes {
        for gpu in &node.gpus {
            let row = |fault: &Fault| -> Vec<Cell> {
                vec![
                    shortened(&node.name, 24).into(),
                    gpu.name.clone().into(),
                    Cell::new(shortened(title(fault), 44), Style::Bad),
                    since(fault, clock).into(),
                    gpu.claims.len().to_string().into(),
                ]
            };
            rows.extend(gpu.faults.iter().map(row));
        }
    }
    format!("\n{}", lines(&rows, 0, colours))
}

fn title(fault: &Fault) -> &str {
    if fault.taint.is_empty() { "condition Healthy" } else { &fault.taint }
}

fn since(fault: &Fault, clock: Clock) -> String {
    fault.since.as_deref().and_then(|time| clock.age(time)).unwrap_or_else(|| "-".to_owned())
}

fn node(node: &Node, clock: Clock, colours: Colours) -> String {
    let mut text = format!("\n{}\n", painted(&format!("node {}", node.name), Style::Heading, colours));
    if let Some(fault) = &node.fault {
        text += &line("", fault, Style::Bad, colours);
    }
    for found in &node.gpus {
        text += &gpu(found, clock, colours);
    }
    for event in &node.events {
        text += &line("warning", &event_text(event, clock), Style::Warning, colours);
    }
    text
}

fn gpu(gpu: &Gpu, clock: Clock, colours: Colours) -> String {
    let known: Vec<&str> = [&gpu.product, &gpu.uuid].into_iter().flatten().map(String::as_str).collect();
    let mut text = format!("  {}  {}\n", painted(&gpu.name, Style::Heading, colours), known.join(", "));
    for found in &gpu.faults {
        text += &fault(found, clock, colours);
    }
    for event in &gpu.events {
        text += &line("event", &event_text(event, clock), Style::Plain, colours);
    }
    for found in &gpu.claims {
        text += &line("claim", &claim(found), Style::Plain, colours);
        for condition in &found.conditions {
            let condition = format!("  {} is {}: {}", condition.kind, condition.status, condition.message);
            text += &line("", &condition, Style::Warning, colours);
        }
    }
    text
}

fn fault(fault: &Fault, clock: Clock, colours: Colours) -> String {
    let Share { tainted, all } = fault.devices;
    let part = if tainted < all { format!(", {tainted} of its {all} devices") } else { String::new() };
    let age = fault.since.as_deref().and_then(|time| clock.age(time)).map(|age| format!(", for {age}"));
    let title = format!("{}{}{part}", title(fault), age.unwrap_or_default());
    let mut text = line("fault", &title, Style::Bad, colours);
    text += &line("means", &fault.explained.meaning, Style::Plain, colours);
    text += &line("by", &source(&fault.by), Style::Plain, colours);
    text += &line("ends", &fault.explained.ends, Style::Plain, colours);
    for (at, step) in fault.explained.next.iter().enumerate() {
        let label = if at == 0 { "next" } else { "" };
        let step = if fault.explained.next.len() > 1 { format!("{}. {step}", at + 1) } else { step.clone() };
        text += &line(label, &step, Style::Plain, colours);
    }
    if let Some(runbook) = fault.explained.runbook {
        text += &line("more", &format!("docs/runbooks.md, section {runbook}"), Style::Faint, colours);
    }
    text
}

fn source(by: &By) -> String {
    let named = |rules: &[String]| match rules {
        [rule] => format!("DeviceTaintRule {rule}"),
        [rule, ..] => format!("{} DeviceTaintRules, the first is {rule}", rules.len()),
        [] => "DeviceTaintRules".to_owned(),
    };
    match by {
        By::Driver => "the driver".to_owned(),
        By::Drain { rules, reason: None } => format!("`kubectl gpu drain`: {}", named(rules)),
        By::Drain { rules, reason: Some(reason) } => {
            format!("`kubectl gpu drain`, because of \"{reason}\": {}", named(rules))
        }
        By::Rules { rules } => named(rules),
        By::Claims => "the driver, in the status of claims".to_owned(),
    }
}

fn claim(claim: &Claim) -> String {
    let pods = match claim.pods.len() {
        0 => "no pod".to_owned(),
        1 => format!("pod {}", claim.pods.join("")),
        _ => format!("pods {}", claim.pods.join(", ")),
    };
    format!("{}/{} ({pods}) has {}: {}", claim.namespace, claim.name, claim.device, claim.then)
}

fn event_text(event: &Event, clock: Clock) -> String {
    let age = clock.age(&event.time).map(|age| format!(" {age} ago")).unwrap_or_default();
    format!("{}{age}: {}", event.reason, event.message)
}

/// A label and a text beside it, in as many lines as it needs.
fn line(label: &str, text: &str, style: Style, colours: Colours) -> String {
    let indent = " ".repeat(INDENT);
    let wrapped = wrapped(text, WIDTH - INDENT);
    let mut out = String::new();
    for (at, part) in wrapped.lines().enumerate() {
        let before = if at == 0 { format!("    {label:<8}") } else { indent.clone() };
        let part = painted(part, style, colours);
        writeln!(out, "{}", format!("{before}{part}").trim_end()).ok();
    }
    out
}
