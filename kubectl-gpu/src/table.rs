// SPDX-License-Identifier: Apache-2.0
//! Text in columns, with colours where a terminal reads it.

use std::fmt::Write as _;

/// The colour of a cell; its meaning is also in the text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Style {
    #[default]
    Plain,
    Good,
    Warning,
    Bad,
    Faint,
    Heading,
}

impl Style {
    /// The parameter of an ANSI escape sequence (ECMA-48, SGR).
    const fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("32"),
            Self::Warning => Some("33"),
            Self::Bad => Some("31"),
            Self::Faint => Some("2"),
            Self::Heading => Some("1"),
        }
    }
}

/// Whether escape sequences are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    On,
    Off,
}

/// One cell of a row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cell {
    pub text: String,
    pub style: Style,
}

impl Cell {
    pub fn new(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into(), style }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Style::Plain)
    }
}

/// `text` in a style.
pub fn painted(text: &str, style: Style, colours: Colours) -> String {
    match (colours, style.code()) {
        (Colours::On, Some(code)) => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        (Colours::On, None) | (Colours::Off, _) => text.to_owned(),
    }
}

/// The first row of a table.
pub fn headings(names: &[&str]) -> Vec<Cell> {
    names.iter().map(|name| Cell::new(*name, Style::Heading)).collect()
}

/// A number with its noun.
pub fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Rows as lines. Columns are as wide as their widest cell, and the last one ends where its text does.
pub fn lines(rows: &[Vec<Cell>], indent: usize, colours: Colours) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter(|row| column + 1 < row.len()).filter_map(|row| row.get(column));
        cells.map(|cell| cell.text.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = " ".repeat(indent);
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let is_last = at + 1 == row.len();
            let padding = if is_last { 0 } else { width.saturating_sub(cell.text.chars().count()) + 2 };
            line += &painted(&cell.text, cell.style, colours);
            line += &" ".repeat(padding);
        }
        writeln!(text, "{}", line.trim_end()).ok();
    }
    text
}

/// `text` in lines of at most `width` characters, if no word is longer. A command between backticks is one word.
pub fn wrapped(text: &str, width: usize) -> String {
    let mut lines = vec![String::new()];
    for word in words(text) {
        let used = lines.last().map_or(0, |line| line.chars().count());
        match lines.last_mut() {
            Some(line) if used == 0 => line.push_str(word),
            Some(line) if used + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

fn words(text: &str) -> Vec<&str> {
    let mut is_command = false;
    let ends_word = |c: char| {
        is_command ^= c == '`';
        c == ' ' && !is_command
    };
    text.split(ends_word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_with_and_without_colours() {
        let rows = [vec![Cell::new("NODE", Style::Heading), "USE".into()], vec!["a-long-name".into(), "░█".into()]];
        assert_eq!(lines(&rows, 2, Colours::Off), "  NODE         USE\n  a-long-name  ░█\n");
        assert!(lines(&rows, 0, Colours::On).starts_with("\u{1b}[1mNODE\u{1b}[0m         USE\n"));
    }

    #[test]
    fn long_texts_are_wrapped() {
        assert_eq!(wrapped("one two three", 7), "one two\nthree");
        assert_eq!(wrapped("run `a b c` now", 7), "run\n`a b c`\nnow");
    }
}
