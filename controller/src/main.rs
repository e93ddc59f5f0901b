// SPDX-License-Identifier: Apache-2.0
//! `gpu-controller`: publishes the GPUs of a node as ResourceSlices.

use std::process::ExitCode;

use clap::Parser;
use dra_controller::{app, args::Args};
use dra_model::explain;
use dra_runtime::logging;
use tracing::error;

fn main() -> ExitCode {
    let args = Args::parse();
    logging::start(args.log_format);
    let api_server = args.api_server.clone();
    let config = match args.into_config() {
        Ok(config) => config,
        Err(refused) => {
            error!(error = explain(&refused), "invalid arguments");
            return ExitCode::from(2);
        }
    };
    match app::run(config, &api_server) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            error!(error = explain(&failed), "failed");
            ExitCode::FAILURE
        }
    }
}
