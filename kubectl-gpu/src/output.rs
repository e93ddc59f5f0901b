// SPDX-License-Identifier: Apache-2.0
//! Writes answers in the form that the user chose.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use crate::args::Form;
use crate::table::Colours;

/// The answer cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    #[error("failed to encode the answer as JSON")]
    Json(#[source] serde_json::Error),
    #[error("failed to encode the answer as YAML")]
    Yaml(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("failed to read the confirmation")]
    Input(#[source] io::Error),
    #[error("failed to write to standard output")]
    Write(#[source] io::Error),
}

/// Colours only for a terminal, and not with NO_COLOR (no-color.org).
pub fn colours() -> Colours {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if io::stdout().is_terminal() && !unwanted { Colours::On } else { Colours::Off }
}

pub fn json(answer: &impl Serialize) -> Result<String, OutputError> {
    serde_json::to_string_pretty(answer).map(|text| text + "\n").map_err(OutputError::Json)
}

pub fn yaml(answer: &impl Serialize) -> Result<String, OutputError> {
    serde_saphyr::to_string(answer).map_err(|error| OutputError::Yaml(Box::new(error)))
}

/// Replaces control characters, which objects of the cluster may have and a terminal would obey. Line ends and colours stay.
fn harmless(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let colour = colour_length(rest);
        let (part, after) = rest.split_at(colour.unwrap_or_else(|| first.len_utf8()));
        let is_harmless = colour.is_some() || !first.is_control() || matches!(first, '\n' | '\t');
        safe.push_str(if is_harmless { part } else { "\u{fffd}" });
        rest = after;
    }
    safe
}

/// Bytes of the colour sequence (`ESC [ numbers m`) at the start of the text.
fn colour_length(text: &str) -> Option<usize> {
    let numbers = text.strip_prefix("\u{1b}[")?;
    let end = numbers.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    numbers.get(end..)?.starts_with('m').then_some(end + 3)
}

/// Asks on a terminal whether to go on; without one nothing is confirmed.
pub fn confirmed() -> Result<bool, OutputError> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Ok(false);
    }
    print("Continue? [y/N] ")?;
    io::stdout().flush().map_err(OutputError::Write)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(OutputError::Input)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// How much of an answer was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    Whole,
    /// The reader closed the pipe, as `head` does when it has what it wants.
    Part,
}

pub fn print(text: &str) -> Result<(), OutputError> {
    write(&harmless(text)).map(|_written| ())
}

/// Prints an answer that replaces the one before: on a terminal in its place, else after it.
pub fn repaint(text: &str, form: Form) -> Result<Written, OutputError> {
    let before = match form {
        Form::Yaml => "---\n",
        Form::Table | Form::Wide if io::stdout().is_terminal() => CLEAR,
        Form::Table | Form::Wide | Form::Json => "",
    };
    write(&format!("{before}{}\n", harmless(text)))
}

/// Clears the screen and what scrolled out of it, and goes to its first line (ECMA-48, ED and CUP; xterm).
const CLEAR: &str = "\u{1b}[H\u{1b}[2J\u{1b}[3J";

fn write(text: &str) -> Result<Written, OutputError> {
    let mut stdout = io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Written::Whole),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Written::Part),
        Err(error) => Err(OutputError::Write(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_no_text_of_the_cluster() {
        for (text, expect) in [
            ("a\n\u{1b}[1;31mred\u{1b}[0m ü", "a\n\u{1b}[1;31mred\u{1b}[0m ü"),
            ("\u{1b}]0;title\u{7}", "\u{fffd}]0;title\u{fffd}"),
            ("\u{1b}[2J\r\u{9b}1m", "\u{fffd}[2J\u{fffd}\u{fffd}1m"),
            ("\u{1b}[", "\u{fffd}["),
        ] {
            assert_eq!(harmless(text), expect, "{text:?}");
        }
    }
}
