// SPDX-License-Identifier: Apache-2.0
//! The answer as text: a sentence for each workload, the nodes with room, and why the rest waits.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use dra_explain::text::shortened;
use dra_explain::why::Verdict;

use super::{Fit, Room};
use crate::age::Clock;
use crate::table::{Cell, Colours, Style, lines, painted};
use crate::why_table;

/// Nodes that are listed by name.
const MAX_NODES: usize = 12;

/// The whole text.
pub fn table(fits: &[Fit], notes: &[String], clock: Clock, colours: Colours) -> String {
    let mut text = fits.iter().map(|fit| workload(fit, clock, colours)).collect::<Vec<_>>().join("\n");
    for note in notes {
        writeln!(text, "\n{}", painted(&format!("note: {note}"), Style::Warning, colours)).ok();
    }
    text
}

fn workload(fit: &Fit, clock: Clock, colours: Colours) -> String {
    let style = match fit.verdict {
        Verdict::Fits => Style::Good,
        Verdict::Waits | Verdict::Undecided => Style::Warning,
        Verdict::Never => Style::Bad,
    };
    let mut text = painted(&sentence(fit), style, colours);
    let (now, emptied) = (counted(&fit.now), counted(&fit.emptied));
    writeln!(text, "\n  room for {now} now, for {emptied} on the emptied cluster").ok();
    text += &nodes(fit, colours);
    if let Some(why) = &fit.why {
        text += "\n";
        text += &why_table::table(why, clock, colours);
    }
    text
}

fn sentence(fit: &Fit) -> String {
    let Fit { workload, replicas, now, .. } = fit;
    match (fit.verdict, *replicas) {
        (Verdict::Fits, 1) => format!("{workload} fits now"),
        (Verdict::Fits, replicas) => format!("{workload} fits now with all {replicas} replicas"),
        (Verdict::Waits, 1) => format!("{workload} waits: it would fit on the emptied cluster"),
        (Verdict::Waits, replicas) => format!("{workload} waits: {} of {replicas} replicas fit now", now.replicas),
        (Verdict::Undecided, _) => format!("{workload} is not judged: this program cannot decide it"),
        (Verdict::Never, 1) => format!("{workload} can never fit as it is"),
        (Verdict::Never, replicas) => {
            let most = fit.emptied.replicas;
            format!(
                "{workload} can never fit as it is: at most {most} of {replicas} replicas fit on the emptied cluster"
            )
        }
    }
}

fn counted(room: &Room) -> String {
    format!("{}{}", room.replicas, if room.or_more { " or more" } else { "" })
}

fn nodes(fit: &Fit, colours: Colours) -> String {
    let mut found: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for node in &fit.now.nodes {
        found.entry(&node.node).or_default().0 = node.replicas;
    }
    for node in &fit.emptied.nodes {
        found.entry(&node.node).or_default().1 = node.replicas;
    }
    if found.is_empty() {
        return String::new();
    }
    let heading = ["NODE", "NOW", "EMPTIED"].map(|name| Cell::new(name, Style::Heading)).to_vec();
    let mut rows = vec![heading];
    // A node that counting did not reach has no number.
    let number = |count: usize, room: &Room| {
        if count == 0 && room.or_more { "-".to_owned() } else { count.to_string() }
    };
    for (node, (now, emptied)) in found.iter().take(MAX_NODES) {
        rows.push(vec![
            shortened(node, 40).into(),
            number(*now, &fit.now).into(),
            number(*emptied, &fit.emptied).into(),
        ]);
    }
    if found.len() > MAX_NODES {
        rows.push(vec![format!("and {} nodes more", found.len() - MAX_NODES).into()]);
    }
    lines(&rows, 2, colours)
}
