// SPDX-License-Identifier: Apache-2.0
//! `gpu-sim`: makes a node's tree, shows it and changes it while it is in use.

use std::process::ExitCode;

use clap::Parser as _;

mod cli;

fn main() -> ExitCode {
    match cli::run(cli::Args::parse()) {
        Ok(text) => print(&text),
        Err(error) => {
            let mut line = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(next) = cause {
                line = format!("{line}: {next}");
                cause = next.source();
            }
            eprintln!("gpu-sim: {line}");
            ExitCode::FAILURE
        }
    }
}

/// A reader that closes the pipe early needs no more output.
fn print(text: &str) -> ExitCode {
    use std::io::Write as _;
    std::io::stdout().write_all(text.as_bytes()).ok();
    ExitCode::SUCCESS
}
