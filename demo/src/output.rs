// SPDX-License-Identifier: Apache-2.0
//! Prints plain text and the duration of steps.

use std::{
    fmt::Display,
    io::{self, Write},
    time::{Duration, Instant},
};

/// Prints lines with an indentation.
pub(crate) fn print(indent: usize, text: impl Display) {
    let text = text.to_string();
    let mut out = io::stdout().lock();
    for line in text.lines() {
        // If the reader closed standard output, the program continues to clean up.
        writeln!(out, "{:indent$}{line}", "").ok();
    }
    out.flush().ok();
}

/// Prints an empty line.
pub(crate) fn print_gap() {
    writeln!(io::stdout()).ok();
}

/// Prints a step, runs it and prints its duration.
pub(crate) fn step<T, E>(what: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    print(0, format!("{what} ..."));
    let begun = Instant::now();
    let done = work()?;
    print(4, seconds(begun.elapsed()));
    Ok(done)
}

pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f32())
}
