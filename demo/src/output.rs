// SPDX-License-Identifier: Apache-2.0
//! What is printed, and how: plain text, times at the end of what took them.

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
        // A reader that closes its end wants no more; the work goes on to clean up.
        writeln!(out, "{:indent$}{line}", "").ok();
    }
    out.flush().ok();
}

/// Prints an empty line.
pub(crate) fn print_gap() {
    writeln!(io::stdout()).ok();
}

/// Says what begins, does it, and says how long it took.
pub(crate) fn step<T, E>(what: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    print(0, format!("{what} ..."));
    let begun = Instant::now();
    let done = work()?;
    print(4, seconds(begun.elapsed()));
    Ok(done)
}

/// A duration as people read it.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f32())
}
