// SPDX-License-Identifier: Apache-2.0
//! The diagnosis as text. Pure.

use std::fmt::Write as _;

use dra_model::node_check::{Check, Problem, Severity};

use super::Diagnosis;
use crate::table::{Colours, Style, painted, wrapped};

const WIDTH: usize = 100;
/// Of the words before a line.
const INDENT: usize = 9;

/// One line for each check, and cause and fix of each problem.
pub fn table(diagnosis: &Diagnosis, colours: Colours) -> String {
    let mut text = section("Cluster", &diagnosis.cluster, colours);
    for node in &diagnosis.nodes {
        text += "\n";
        text += &section(&format!("Node {}", node.name), &node.checks, colours);
    }
    if !diagnosis.notes.is_empty() {
        text += "\n";
    }
    for note in &diagnosis.notes {
        writeln!(text, "note: {note}").ok();
    }
    let (verdict, style) = match diagnosis.worst() {
        None => ("Nothing was found.", Style::Good),
        Some(Severity::Warning) => ("There are warnings.", Style::Warning),
        Some(Severity::Error) => ("There are errors.", Style::Bad),
    };
    writeln!(text, "\n{}", painted(verdict, style, colours)).ok();
    text
}

fn section(title: &str, checks: &[Check], colours: Colours) -> String {
    let mut text = format!("{}\n", painted(title, Style::Heading, colours));
    for check in checks {
        if check.problems.is_empty() {
            let line = indented(&format!("{}: {}", check.subject, check.found));
            writeln!(text, "{}  {line}", painted("  ok   ", Style::Good, colours)).ok();
        }
        for problem in &check.problems {
            text += &lines(check, problem, colours);
        }
    }
    text
}

fn lines(check: &Check, problem: &Problem, colours: Colours) -> String {
    let (word, style) = match problem.severity {
        Severity::Warning => ("  warn ", Style::Warning),
        Severity::Error => ("  error", Style::Bad),
    };
    let cause = indented(&format!("{}: {}", check.subject, problem.cause));
    let fix = indented(&format!("fix: {}", problem.fix));
    format!("{}  {cause}\n{}{fix}\n", painted(word, style, colours), " ".repeat(INDENT))
}

fn indented(text: &str) -> String {
    wrapped(text, WIDTH - INDENT).replace('\n', &format!("\n{}", " ".repeat(INDENT)))
}
