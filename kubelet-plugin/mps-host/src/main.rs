// SPDX-License-Identifier: Apache-2.0
//! The process `gpu-mps-host`: arguments, logging, then [`dra_mps_host::run`]. With other arguments it becomes a daemon, see
//! [`dra_mps_host::become_daemon`].

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use dra_model::{chain, explain};
use dra_mps_host::{Args, become_daemon, run_after_removal};
use dra_runtime::stop_on_signals;
use tokio_util::sync::CancellationToken;
use tracing::error;

fn main() -> ExitCode {
    if let Some(failure) = become_daemon(std::env::args_os()) {
        eprintln!("{}", explain(&failure));
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
    // Reading /proc of a process that hangs may hang too; the program does not wait for it.
    runtime.shutdown_background();
    code
}

async fn run(args: Args) -> ExitCode {
    let stop = CancellationToken::new();
    if let Err(failure) = stop_on_signals(stop.clone()) {
        error!(error = %chain(&failure), "MPS host failed");
        return ExitCode::FAILURE;
    }
    let after_removal = args.after_removal.clone();
    let ended = dra_mps_host::run(args, stop.clone()).await;
    if let Err(failure) = &ended {
        error!(error = %explain(failure), "MPS host failed");
    }
    let followed = run_after_removal(&after_removal, &stop).await;
    if let Err(failure) = &followed {
        error!(error = %explain(failure), "program after the removal failed");
    }
    if ended.is_ok() && followed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
