// SPDX-License-Identifier: Apache-2.0
//! The status as text: a section for each node with a line for each GPU, or a line for each node if there are many.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use dra_allocation::Amount;
use dra_explain::text::shortened;

use super::{Claim, Form, Gpu, Node, Status};
use crate::bar::LEGEND;
use crate::table::{Cell, Colours, Style, counted, headings, lines, painted, wrapped};

/// Columns of a text that is not a table.
const WIDTH: usize = 100;

/// Nodes up to which every GPU has a line.
const MAX_SECTIONS: usize = 12;

/// Characters for the profiles that fit and for a product name.
const SHORT: usize = 44;

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// Within 100 columns.
    Short,
    Wide,
}

/// The whole text.
pub fn table(status: &Status, view: View, colours: Colours) -> String {
    let mut text = summary(status, colours);
    let is_long = view == View::Short && status.nodes.len() > MAX_SECTIONS;
    if is_long {
        text += &nodes(&status.nodes, colours);
        text += "\nkubectl gpu status NODE shows the GPUs of a node, -o wide those of all nodes.\n";
    } else {
        for node in &status.nodes {
            text += "\n";
            text += &section(node, view, colours);
        }
    }
    if !status.nodes.is_empty() {
        writeln!(text, "\n{}", painted(LEGEND, Style::Faint, colours)).ok();
    }
    if !status.claims.is_empty() {
        text += "\n";
        text += &claims(&status.claims, colours);
    }
    for missing in &status.incomplete {
        let note = wrapped(&format!("note: {missing}"), WIDTH);
        writeln!(text, "\n{}", painted(&note, Style::Warning, colours)).ok();
    }
    text
}

/// One line about the cluster, and one about what waits.
fn summary(status: &Status, colours: Colours) -> String {
    let gpus = || status.nodes.iter().flat_map(|node| &node.gpus);
    if status.nodes.is_empty() {
        return "No GPUs: no node has a ResourceSlice of the driver. Is it installed, and ready on the GPU nodes?\n"
            .to_owned();
    }
    let mut forms: BTreeMap<Form, usize> = BTreeMap::new();
    for gpu in gpus() {
        *forms.entry(gpu.form).or_default() += 1;
    }
    let forms = forms.into_iter().map(|(form, count)| format!("{count} {}", form.name())).collect::<Vec<_>>();
    let tainted = gpus().filter(|gpu| gpu.is_tainted).count();
    let forms = if forms.is_empty() { String::new() } else { format!(": {}", forms.join(", ")) };
    let (nodes, count) = (counted(status.nodes.len(), "node"), counted(gpus().count(), "GPU"));
    let mut text = format!("{nodes} and {count}{forms}  (Kubernetes {})\n", status.server_version);
    if tainted > 0 {
        let note = format!(
            "{} not well: new claims do not get {}; kubectl gpu faults explains why",
            counted(tainted, "GPU"),
            if tainted == 1 { "it" } else { "them" }
        );
        writeln!(text, "{}", painted(&note, Style::Bad, colours)).ok();
    }
    if !status.waiting_pods.is_empty() {
        let pods = shortened(&status.waiting_pods.join(" "), 60);
        let note = format!("{} for devices: {pods}", waiting(status.waiting_pods.len()));
        writeln!(text, "{}", painted(&note, Style::Warning, colours)).ok();
    }
    text
}

fn waiting(pods: usize) -> String {
    if pods == 1 { "1 pod waits".to_owned() } else { format!("{pods} pods wait") }
}

fn nodes(nodes: &[Node], colours: Colours) -> String {
    let heading = ["NODE", "GPUS", "USE", "FREE", "MODEL", "DRIVER", "HEALTH"];
    let row = |node: &Node| {
        let free = node.gpus.iter().filter(|gpu| gpu.form == Form::Free && !gpu.is_tainted).count();
        vec![
            shortened(&node.name, 24).into(),
            node.gpus.len().to_string().into(),
            node.bar().to_string().into(),
            free.to_string().into(),
            shortened(&models(node), 24).into(),
            node.driver_version.clone().unwrap_or_default().into(),
            node_health(node),
        ]
    };
    let rows: Vec<Vec<Cell>> = std::iter::once(headings(&heading)).chain(nodes.iter().map(row)).collect();
    format!("\n{}", lines(&rows, 0, colours))
}

/// Product names without the maker.
fn models(node: &Node) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for gpu in &node.gpus {
        let product = gpu.product.as_deref().unwrap_or("unknown model");
        *counts.entry(product.strip_prefix("NVIDIA ").unwrap_or(product)).or_default() += 1;
    }
    counts.into_iter().map(|(model, count)| format!("{count} × {model}")).collect::<Vec<_>>().join(", ")
}

fn node_health(node: &Node) -> Cell {
    let tainted = node.gpus.iter().filter(|gpu| gpu.is_tainted).count();
    match (&node.fault, tainted) {
        (Some(fault), _) => Cell::new(fault.clone(), Style::Bad),
        (None, 0) => Cell::new("ok", Style::Good),
        (None, tainted) => Cell::new(format!("{} tainted", counted(tainted, "GPU")), Style::Bad),
    }
}

fn section(node: &Node, view: View, colours: Colours) -> String {
    let version = |label: &str, version: Option<&String>| {
        version.map(|version| format!("  {label} {version}")).unwrap_or_default()
    };
    let mut text = painted(&node.name, Style::Heading, colours);
    text += "  ";
    text += &if node.gpus.is_empty() { "no GPUs".to_owned() } else { models(node) };
    text += &version("driver", node.driver_version.as_ref());
    text += &version("CUDA", node.cuda_version.as_ref());
    text.push('\n');
    if let Some(fault) = &node.fault {
        writeln!(text, "  {}", painted(&format!("not used for new claims: {fault}"), Style::Bad, colours)).ok();
    }
    if node.gpus.is_empty() {
        return text;
    }
    let mut heading = headings(&["GPU", "USE", "FORM", "CLAIMS", "FREE", "HEALTH"]);
    if view == View::Wide {
        heading.insert(5, Cell::new("FRAGMENTED", Style::Heading));
        heading.push(Cell::new("UUID", Style::Heading));
    }
    let rows = std::iter::once(heading).chain(node.gpus.iter().map(|gpu| row(gpu, view)));
    text + &lines(&rows.collect::<Vec<_>>(), 2, colours)
}

fn row(gpu: &Gpu, view: View) -> Vec<Cell> {
    let free = if view == View::Wide { free(gpu, usize::MAX) } else { shortened(&free(gpu, 3), SHORT) };
    let health = if gpu.taints.is_empty() {
        Cell::new("ok", Style::Good)
    } else {
        Cell::new(gpu.taints.join(" "), if gpu.is_tainted { Style::Bad } else { Style::Warning })
    };
    let mut row: Vec<Cell> = vec![
        gpu.name.clone().into(),
        gpu.bar.to_string().into(),
        gpu.form.name().into(),
        gpu.claims.to_string().into(),
        free.into(),
        health,
    ];
    if view == View::Wide {
        let percent = gpu.partitions.fragmented_percent.map(|percent| format!("{percent}%"));
        row.insert(5, percent.unwrap_or_else(|| "-".to_owned()).into());
        row.push(gpu.uuid.clone().unwrap_or_default().into());
    }
    row
}

/// What a claim can still get, at most so many profiles.
fn free(gpu: &Gpu, profiles: usize) -> String {
    match gpu.form {
        Form::Free if gpu.is_whole => format!("{}, as any form", gpu.memory.map_or_else(|| "all".to_owned(), rounded)),
        Form::Gpu => "-".to_owned(),
        Form::Mps | Form::TimeSlicing => {
            let shares = gpu.shares.iter().flatten().map(|share| match share.capacity.as_str() {
                "activeThreadPercentage" => format!("{}% of threads", share.free),
                "shares" => format!("{} of {} shares", share.free, share.total),
                _ => rounded(share.free),
            });
            shares.rev().collect::<Vec<_>>().join(", ")
        }
        Form::Free | Form::Mig if gpu.partitions.free.is_empty() => "no partition fits".to_owned(),
        Form::Free | Form::Mig => {
            // Profiles with media engines differ from others in nothing that a list of sizes shows.
            let listed = gpu.partitions.free.iter().filter(|fitting| profiles > 3 || !fitting.profile.contains('+'));
            let fitting = listed.take(profiles).map(|fitting| match fitting.count {
                1 => fitting.profile.clone(),
                count => format!("{count} × {}", fitting.profile),
            });
            fitting.collect::<Vec<_>>().join(" or ")
        }
    }
}

/// An amount of memory with at most one decimal, rounded down.
fn rounded(memory: Amount) -> String {
    let tenths = |unit: i64| memory.times(10).parts(Amount::whole(unit));
    let (tenths, unit) = match tenths(1 << 30) {
        0..10 => (tenths(1 << 20), "Mi"),
        tenths => (tenths, "Gi"),
    };
    if tenths % 10 == 0 { format!("{}{unit}", tenths / 10) } else { format!("{}.{}{unit}", tenths / 10, tenths % 10) }
}

fn claims(claims: &[Claim], colours: Colours) -> String {
    let heading = headings(&["NAMESPACE", "CLAIM", "PODS", "NODE", "DEVICE", "FORM", "SINCE"]);
    let row = |claim: &Claim| {
        let pods = if claim.pods.is_empty() { "-".to_owned() } else { shortened(&claim.pods.join(","), 24) };
        let since = claim.since.clone().unwrap_or_else(|| "-".to_owned());
        let texts = [claim.namespace.clone(), claim.name.clone(), pods, claim.node.clone(), claim.device.clone()];
        let cells = texts.into_iter().chain([claim.form.to_owned(), since]);
        cells.map(Cell::from).collect()
    };
    lines(&std::iter::once(heading).chain(claims.iter().map(row)).collect::<Vec<_>>(), 0, colours)
}
