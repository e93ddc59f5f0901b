// SPDX-License-Identifier: Apache-2.0
//! `gpu-explain`: reports in Events why pods wait for devices, which the scheduler does not. One process for a cluster.
//!
//! ```text
//! pods that the scheduler refused ── reported: which of them are due ──> dra_explain ──> brief ──> Events on pod and claims
//! ```
//!
//! Reading order: [`args`], [`reported`], [`election`], [`event`], [`round`], [`app`].

mod app;
mod args;
mod election;
mod event;
mod reported;
mod round;

use std::process::ExitCode;

use clap::Parser;
use dra_model::explain;
use dra_runtime::logging;
use tracing::error;

fn main() -> ExitCode {
    let args = args::Args::parse();
    logging::start(args.log_format);
    match app::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            error!(error = explain(&failed), "failed");
            ExitCode::FAILURE
        }
    }
}
