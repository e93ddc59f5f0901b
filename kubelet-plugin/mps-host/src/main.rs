// SPDX-License-Identifier: Apache-2.0
//! The MPS host's process: arguments, logging, then [`dra_mps_host::run`]. Started again by itself it becomes
//! a daemon.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use dra_model::chain;
use dra_mps_host::{Args, become_daemon, run_after_removal};
use dra_runtime::stop_on_signals;
use tokio_util::sync::CancellationToken;
use tracing::error;

fn main() -> ExitCode {
    if let Some(failure) = become_daemon(std::env::args_os()) {
        eprintln!("{}", chain(&failure));
        return ExitCode::FAILURE;
    }
    let args = Args::parse();
    dra_runtime::logging::start(args.log_format);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = match builder.enable_all().thread_keep_alive(Duration::from_millis(500)).build() {
        Ok(runtime) => runtime,
        Err(failure) => {
            error!(error = %failure, "failed to start the runtime");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run(args));
    // A look at a process that hangs may hang too, and is not waited for.
    runtime.shutdown_background();
    code
}

async fn run(args: Args) -> ExitCode {
    let stop = CancellationToken::new();
    if let Err(failure) = stop_on_signals(stop.clone()) {
        error!(error = %chain(&failure), "the MPS host ended");
        return ExitCode::FAILURE;
    }
    let then = args.then.clone();
    let ended = dra_mps_host::run(args, stop.clone()).await;
    if let Err(failure) = &ended {
        error!(error = %chain(failure), "the MPS host ended");
    }
    let followed = run_after_removal(&then, &stop).await;
    if let Err(failure) = &followed {
        error!(error = %chain(failure), "what follows was not done");
    }
    if ended.is_ok() && followed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
