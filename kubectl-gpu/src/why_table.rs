// SPDX-License-Identifier: Apache-2.0
//! The answer as text: the summary, what is asked for, the nodes by reason, and what would help.

use std::fmt::Write as _;

use dra_explain::text::shortened;
use dra_explain::why::{Group, HeldBy, Proposal, Verdict, Why};

use crate::age::Clock;
use crate::table::{Cell, Colours, Style, lines, painted, wrapped};

/// Columns of a text that is not a table.
const WIDTH: usize = 100;

/// Columns beside the names of nodes.
const COLUMN: usize = 76;

/// The whole text; `clock` gives the age of what is in use.
pub fn table(why: &Why, clock: Clock, colours: Colours) -> String {
    let style = match why.verdict {
        Verdict::Fits => Style::Good,
        Verdict::Waits | Verdict::Undecided => Style::Warning,
        Verdict::Never => Style::Bad,
    };
    let mut text = painted(&wrapped(&why.summary, WIDTH), style, colours) + "\n";
    for ask in &why.asks {
        for line in ask.lines() {
            writeln!(text, "  {line}").ok();
        }
    }
    for message in &why.messages {
        writeln!(text, "\n{}", wrapped(message, WIDTH)).ok();
    }
    if !why.nodes.is_empty() {
        text += "\n";
        text += &nodes(&why.nodes, clock, colours);
    }
    text += &changes(&why.changes, colours);
    for note in &why.incomplete {
        writeln!(text, "\n{}", painted(&wrapped(&format!("note: {note}"), WIDTH), Style::Warning, colours)).ok();
    }
    text
}

fn changes(changes: &[Proposal], colours: Colours) -> String {
    if changes.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{}\n", painted("What would help, the smallest change first:", Style::Heading, colours));
    for (number, change) in changes.iter().enumerate() {
        let wrapped = wrapped(&change.text, WIDTH - 5).replace('\n', "\n     ");
        writeln!(text, "  {}. {wrapped}", number + 1).ok();
    }
    text
}

/// A block for each reason: long sentences and names of claims do not fit beside each other.
fn nodes(groups: &[Group], clock: Clock, colours: Colours) -> String {
    let heading = ["NODE", "WHY"].map(|name| Cell::new(name, Style::Heading));
    let mut rows = vec![heading.to_vec()];
    for group in groups {
        let style = if group.fits { Style::Good } else { Style::Plain };
        let lines_of = |text: &str| wrapped(text, COLUMN).lines().map(str::to_owned).collect::<Vec<_>>();
        let mut about: Vec<Cell> = lines_of(&group.reason).into_iter().map(|line| Cell::new(line, style)).collect();
        if !group.devices.is_empty() {
            let label = if group.fits { "it gets" } else { "closest" };
            about.push(Cell::new(format!("{label}: {}", shortened(&group.devices.join(", "), 64)), Style::Faint));
        }
        about.extend(group.held_by.iter().take(3).map(|held| held_by(held, clock)));
        if group.held_by.len() > 3 {
            about.push(Cell::new(format!("and {} claims more", group.held_by.len() - 3), Style::Faint));
        }
        let also = group.also.iter().take(2).flat_map(|also| lines_of(&format!("also {also}")));
        about.extend(also.map(|line| Cell::new(line, Style::Faint)));
        for (line, cell) in about.into_iter().enumerate() {
            let name = if line == 0 { named(&group.nodes) } else { String::new() };
            rows.push(vec![name.into(), cell]);
        }
    }
    lines(&rows, 0, colours)
}

fn held_by(held: &HeldBy, clock: Clock) -> Cell {
    let pods = if held.pods.is_empty() { "no pod".to_owned() } else { format!("pod {}", held.pods.join(", ")) };
    let age = held.since.as_ref().and_then(|since| clock.age(since)).map(|age| format!(" for {age}"));
    let text = format!("in use by claim {} ({}){}", held.claim, shortened(&pods, 32), age.unwrap_or_default());
    Cell::new(text, Style::Faint)
}

/// One name, or the first one and how many there are.
fn named(nodes: &[String]) -> String {
    match nodes {
        [] => String::new(),
        [one] => shortened(one, 20),
        [first, rest @ ..] => format!("{} +{}", shortened(first, 16), rest.len()),
    }
}
