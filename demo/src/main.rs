// SPDX-License-Identifier: Apache-2.0
//! `gpu-demo`: shows the driver on a real cluster. See `gpu-demo --help`.

mod args;
mod output;
mod show;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match args::Args::parse().command {
        args::Verb::Run => show::run(),
        args::Verb::Up(up) => show::up(&up),
    }
}
