// SPDX-License-Identifier: Apache-2.0
//! What `drain` and `undrain` print.

use std::fmt::Write as _;

use dra_allocation::node::Effect;

use super::{Change, Drain, Left, Undrain, User, label};
use crate::holders::Eviction;
use crate::rules::effect_name;
use crate::table::{Cell, Colours, Style, counted, headings, lines, painted, wrapped};

const WIDTH: usize = 100;

/// The GPUs, and who uses them.
pub fn drain_text(drain: &Drain, colours: Colours) -> String {
    let mut text = String::new();
    for gpu in &drain.gpus {
        let product = gpu.product.as_deref().unwrap_or("unknown model");
        let uuid = gpu.uuid.as_deref().unwrap_or("unknown UUID");
        let line = format!("{}: {product}, {uuid}, {}", label(gpu), counted(gpu.devices.len(), "device"));
        writeln!(text, "{}", painted(&line, Style::Heading, colours)).ok();
    }
    if drain.users.is_empty() {
        text += "\nNo claim holds it.\n";
        return text;
    }
    let heading = ["NAMESPACE", "CLAIM", "PODS", "DEVICE", "THEN"];
    let row = |user: &User| -> Vec<Cell> {
        let holder = &user.holder;
        let pods = if holder.pods.is_empty() { "-".to_owned() } else { holder.pods.join(",") };
        let device = format!("{}/{}", holder.pool, holder.device);
        vec![
            holder.namespace.clone().into(),
            holder.claim.clone().into(),
            pods.into(),
            device.into(),
            fate(user, drain.taint.effect),
        ]
    };
    let rows: Vec<Vec<Cell>> = std::iter::once(headings(&heading)).chain(drain.users.iter().map(row)).collect();
    text + "\n" + &lines(&rows, 0, colours)
}

fn fate(user: &User, effect: Effect) -> Cell {
    match (effect, user.eviction) {
        (Effect::NoExecute, eviction @ (Eviction::AtOnce | Eviction::After(_))) => {
            Cell::new(eviction.to_string(), Style::Bad)
        }
        (Effect::NoExecute, Eviction::Never) => Cell::new(Eviction::Never.to_string(), Style::Warning),
        (Effect::NoSchedule | Effect::None, _) => "stays".into(),
    }
}

/// What is done next, in one sentence for the pods and one for the rules.
pub fn announcement(drain: &Drain) -> String {
    let pods = drain.pods();
    let evicted = pods.values().filter(|eviction| **eviction != Eviction::Never).count();
    let stay = match pods.len().saturating_sub(evicted) {
        1 => "1 pod stays".to_owned(),
        count => format!("{count} pods stay"),
    };
    let count = counted(evicted, "pod");
    let leave = if evicted == 1 { "is" } else { "are" };
    let budgets = if evicted > 0 { ", without asking PodDisruptionBudgets" } else { "" };
    let closed = if drain.gpus.len() == 1 { "No new claim gets the GPU" } else { "No new claim gets the GPUs" };
    let of_pods = match drain.taint.effect {
        Effect::NoExecute => format!("{closed}, {count} {leave} evicted{budgets}, {stay}."),
        Effect::NoSchedule | Effect::None => format!("{closed}, {stay}."),
    };
    format!("{}\n{}\n", wrapped(&of_pods, WIDTH), wrapped(&of_rules(drain), WIDTH))
}

fn of_rules(drain: &Drain) -> String {
    let created = drain.changes.iter().filter(|change| matches!(change, Change::Create(_))).count();
    let replaced: Vec<String> = drain.changes.iter().filter_map(replaced).collect();
    let made = (created > 0).then(|| format!("{} made", counted(created, "DeviceTaintRule")));
    let changed = (!replaced.is_empty()).then(|| format!("{} changed", replaced.join(", ")));
    let all: Vec<String> = made.into_iter().chain(changed).collect();
    if all.is_empty() {
        return format!("The DeviceTaintRules with the taint {} exist already.", drain.taint);
    }
    format!("Rules with the taint {}: {}.", drain.taint, all.join(", "))
}

fn replaced(change: &Change) -> Option<String> {
    match change {
        Change::Create(_) => None,
        Change::Replace { rule, before, selector: _ } => Some(format!("{rule} (was {})", effect_name(*before))),
    }
}

/// The rules that are removed, and what stays.
pub fn undrain_text(undrain: &Undrain, colours: Colours) -> String {
    let Undrain { subject, removed, left } = undrain;
    let mut text = match removed.len() {
        0 => format!("{subject}: `kubectl gpu drain` made no DeviceTaintRule for it\n"),
        count => format!("{subject}: {} removed\n", counted(count, "DeviceTaintRule")),
    };
    for rule in removed {
        writeln!(text, "  {} ({})", rule.name, rule.taint).ok();
    }
    for left in left {
        let note = wrapped(&format!("still closed by {}", reason(left)), WIDTH);
        writeln!(text, "{}", painted(&note, Style::Warning, colours)).ok();
    }
    if left.is_empty() && !removed.is_empty() {
        text += "New claims get it again.\n";
    }
    text
}

fn reason(left: &Left) -> String {
    match left {
        Left::OfNode { rule, node } => {
            format!("DeviceTaintRule {rule} for the whole node: `kubectl gpu undrain --node {node} --all` removes it")
        }
        Left::Other { rule, taint } => format!(
            "DeviceTaintRule {rule} ({taint}), which `kubectl gpu drain` did not make: `kubectl delete devicetaintrule {rule}` removes it"
        ),
        Left::OfDriver(taint) => format!("the driver with the taint {taint}: `kubectl gpu faults` explains it"),
    }
}
