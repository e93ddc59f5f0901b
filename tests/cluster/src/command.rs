// SPDX-License-Identifier: Apache-2.0
//! Runs programs; a failure becomes an error with the output of the program.

use crate::error::{ClusterError, Result};
use std::{
    fs,
    io::Write,
    iter,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
};

/// Runs a program to its end and returns its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    output_with_own_input(command.stdin(Stdio::null()))
}

/// Runs a program to its end, with the standard input that the command names.
pub(crate) fn output_with_own_input(command: &mut Command) -> Result<String> {
    let output = command.output().map_err(|source| start_error(command, source))?;
    text_of(command, &output)
}

/// Runs a program to its end with this text on its standard input.
pub(crate) fn output_with_input(command: &mut Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| start_error(command, source))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that stops reading prints the reason to its standard error.
        stdin.write_all(input.as_bytes()).ok();
    }
    let output = child.wait_with_output().map_err(|source| start_error(command, source))?;
    text_of(command, &output)
}

/// Starts a program in its own session with a log file, and reaps it in the background.
pub(crate) fn start(command: &Command, log_path: &Path) -> Result<()> {
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log_path)
        .map_err(crate::files::error("open", log_path))?;
    let error_log = log.try_clone().map_err(crate::files::error("open", log_path))?;
    let mut session = Command::new("setsid");
    session.arg(command.get_program()).args(command.get_args());
    let mut child = session
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(error_log)
        .spawn()
        .map_err(|source| start_error(&session, source))?;
    thread::spawn(move || child.wait());
    Ok(())
}

/// The command line, without the text of scripts.
pub(crate) fn line_of(command: &Command) -> String {
    let words = iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    let words: Vec<_> = words.iter().map(|word| if word.contains('\n') { "<script>" } else { word }).collect();
    words.join(" ")
}

pub(crate) fn start_error(command: &Command, source: std::io::Error) -> ClusterError {
    ClusterError::Start { program: command.get_program().to_string_lossy().into_owned(), source }
}

pub(crate) fn text_of(command: &Command, output: &Output) -> Result<String> {
    let stdout = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        return Ok(stdout.into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let message = if stderr.trim().is_empty() { stdout.trim() } else { stderr.trim() };
    Err(ClusterError::Failed { command: line_of(command), status: output.status, message: message.to_owned() })
}
