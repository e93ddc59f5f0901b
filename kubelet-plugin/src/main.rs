// SPDX-License-Identifier: Apache-2.0
//! The process of the kubelet plugin: arguments, logging, then [`dra_kubelet_plugin::app::run`]; or a
//! subcommand, which prints.

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use dra_hardware::NvmlMachine;
use dra_kubelet_plugin::args::{Args, Config};
use dra_kubelet_plugin::cdi_print::CdiCommand;
use dra_kubelet_plugin::claim_print::ClaimCommand;
use dra_kubelet_plugin::health::clear::ClearRequests;
use dra_kubelet_plugin::node_doctor::DoctorCommand;
use dra_kubelet_plugin::{app, restore};
use dra_model::{Advice, chain, explain};
use dra_runtime::{heap, stop_on_signals};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

fn main() -> ExitCode {
    heap::limit_heaps();
    let first = std::env::args_os().nth(1);
    let words = || std::env::args_os().skip(1);
    match first.as_deref().and_then(OsStr::to_str) {
        Some("cdi") => return show(CdiCommand::parse_from(words()).run()),
        Some("claim") => return show(ClaimCommand::parse_from(words()).run()),
        Some("doctor") => return show(DoctorCommand::parse_from(words()).run()),
        Some(_) | None => {}
    }
    let args = Args::parse();
    dra_runtime::logging::start(args.log_format);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    // Idle threads for blocking work use memory; a short time is enough for a burst of claims.
    let runtime = match builder.enable_all().thread_keep_alive(Duration::from_millis(500)).build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "failed to start the runtime");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(run(args));
    // A call of the NVIDIA driver that hangs must not delay the exit.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error, "the plugin failed");
            ExitCode::FAILURE
        }
    }
}

fn show<E: std::error::Error + Advice>((text, complete): (String, Result<(), E>)) -> ExitCode {
    let written = std::io::stdout().write_all(text.as_bytes());
    match (written, complete) {
        (Ok(()), Ok(())) => ExitCode::SUCCESS,
        (_, Err(error)) => {
            eprintln!("error: {}", explain(&error));
            ExitCode::FAILURE
        }
        // The reader has closed the pipe.
        (Err(_), Ok(())) => ExitCode::FAILURE,
    }
}

async fn run(args: Args) -> Result<(), String> {
    let stop = CancellationToken::new();
    stop_on_signals(stop.clone()).map_err(|error| chain(&error).to_string())?;
    let (restore, api_server, clear) = (args.restore, args.api_server.clone(), args.clear_health.clone());
    let config = Config::try_from(args).map_err(|error| explain(&error))?;
    if let Some(clear) = clear {
        ClearRequests::new(&config.paths.plugin_dir).add(&clear).map_err(|error| chain(&error).to_string())?;
        info!(
            "requested; the running plugin clears the faults it knows at its next poll, and records the Event GpuCleared for each GPU"
        );
        return Ok(());
    }
    let machine = Arc::new(NvmlMachine::new(&config.roots.driver, &config.roots.proc));
    if restore {
        return restore::run(&config, machine, &stop).await.map_err(|error| explain(&error));
    }
    let client = api_server.client(concat!("gpu-kubelet-plugin/", env!("CARGO_PKG_VERSION")));
    let client = client.map_err(|error| explain(&error))?;
    app::run(config, machine, client, stop).await.map_err(|error| explain(&error))
}
