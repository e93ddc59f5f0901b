// SPDX-License-Identifier: Apache-2.0
//! The kubelet plugin's process: arguments, logging, then [`dra_kubelet_plugin::app::run`].

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use dra_hardware::NvmlMachine;
use dra_kubelet_plugin::args::{Args, Config};
use dra_kubelet_plugin::{app, restore};
use dra_model::chain;
use dra_runtime::stop_on_signals;
use tokio_util::sync::CancellationToken;
use tracing::error;

fn main() -> ExitCode {
    let args = Args::parse();
    dra_runtime::logging::start(args.log_format);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    // Threads that wait for blocking work cost memory; a short life is long enough to serve a burst of claims.
    let runtime = match builder.enable_all().thread_keep_alive(Duration::from_millis(500)).build() {
        Ok(runtime) => runtime,
        Err(failure) => {
            error!(error = %failure, "failed to start the runtime");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(run(args));
    // A question to the driver that hangs must not keep a stopped process alive.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!(error = %chain(failure.as_ref()), "the plugin ended");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let stop = CancellationToken::new();
    stop_on_signals(stop.clone())?;
    let (restore, api_server) = (args.restore, args.api_server.clone());
    let config = Config::try_from(args)?;
    let machine = Arc::new(NvmlMachine::new(&config.roots.driver));
    if restore {
        return Ok(restore::run(&config, machine, &stop).await?);
    }
    let client = api_server.client(concat!("gpu-kubelet-plugin/", env!("CARGO_PKG_VERSION")))?;
    Ok(app::run(config, machine, client, stop).await?)
}
