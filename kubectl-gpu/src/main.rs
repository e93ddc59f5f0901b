// SPDX-License-Identifier: Apache-2.0
//! `kubectl-gpu`, which kubectl runs for `kubectl gpu`.

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use dra_kubectl_gpu::app::{self, Answer};
use dra_kubectl_gpu::args::Args;
use dra_model::explain;

fn main() -> ExitCode {
    if let Some(completed) = app::complete(std::env::args_os()) {
        return if completed.is_ok() { ExitCode::SUCCESS } else { Answer::None.exit_code() };
    }
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let is_question = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // Standard output may be closed, which changes nothing.
            error.print().ok();
            return if is_question { ExitCode::SUCCESS } else { Answer::None.exit_code() };
        }
    };
    match app::run(&args) {
        Ok(answer) => answer.exit_code(),
        Err(failed) => {
            eprintln!("error: {}", explain(&failed));
            Answer::None.exit_code()
        }
    }
}
