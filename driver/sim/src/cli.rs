// SPDX-License-Identifier: Apache-2.0
//! The command line of `gpu-sim`.
//!
//! In: arguments. Out: text for standard output, or the reason why not. Every command but `init` and `status` is one change
//! of the shared state, so running programs see it at their next call.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

mod init;
mod mig;
mod status;
mod switch;

use dra_sim::Code;
use dra_sim::store::StoreError;
use dra_sim::tree::TreeError;

/// Makes and changes the tree of a simulated GPU node.
#[derive(Debug, Parser)]
#[command(name = "gpu-sim", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a machine below DIR.
    Init(init::Init),
    /// Shows the machine.
    Status(Place),
    /// Lists and changes MIG mode and instances, like nvidia-smi mig.
    Mig(mig::Mig),
    /// Raises an XID on a GPU.
    Xid(switch::Xid),
    /// Makes a GPU fall off the bus.
    Lose(switch::OneGpu),
    /// Resets a GPU: instances go, a pending MIG mode becomes active, a lost GPU comes back.
    Reset(switch::OneGpu),
    /// Says that processes hold a GPU, so that resets and MIG mode changes wait.
    Clients(switch::Clients),
    /// Starts the machine anew: another boot id, nothing left that lived in the driver.
    Reboot(Place),
    /// Makes calls slow.
    Delay(switch::Delay),
    /// Makes calls fail.
    Fail(switch::Fail),
    /// Takes back all delays and faults.
    Heal(Place),
    /// Unloads the driver: NVML cannot be initialised.
    RemoveDriver(Place),
    /// Loads the driver again.
    RestoreDriver(switch::RestoreDriver),
}

/// The directory of a machine.
#[derive(Debug, clap::Args)]
struct Place {
    dir: PathBuf,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("{text} is not MODEL:COUNT with one of the models {known}")]
    Gpus { text: String, known: String },
    #[error("{path} is missing; build it with cargo build -p dra-sim-library or name it with --library", path = path.display())]
    Library { path: PathBuf },
    #[error("failed to find the program's own directory; name the library with --library")]
    OwnPath { source: std::io::Error },
    #[error("failed to use the machine")]
    Store { source: StoreError },
    #[error("failed to draw the tree")]
    Tree { source: TreeError },
    #[error("failed to {action}")]
    Refused { action: String, source: Code },
    #[error("{text} is not a profile of GPU {gpu}; see gpu-sim mig DIR lgip")]
    Profile { text: String, gpu: usize },
    #[error("there is no GPU {gpu}")]
    NoGpu { gpu: usize },
}

/// Runs a command and returns what it has to say.
pub(crate) fn run(args: Args) -> Result<String, CliError> {
    let Args { command } = args;
    match command {
        Command::Init(init) => init::run(&init),
        Command::Status(place) => status::run(&place.dir),
        Command::Mig(mig) => mig::run(&mig),
        Command::Xid(xid) => switch::xid(&xid),
        Command::Lose(gpu) => switch::lose(&gpu),
        Command::Reset(gpu) => switch::reset(&gpu),
        Command::Clients(clients) => switch::clients(&clients),
        Command::Reboot(place) => switch::reboot(&place.dir),
        Command::Delay(delay) => switch::delay(&delay),
        Command::Fail(fail) => switch::fail(&fail),
        Command::Heal(place) => switch::heal(&place.dir),
        Command::RemoveDriver(place) => switch::remove_driver(&place.dir),
        Command::RestoreDriver(restore) => switch::restore_driver(&restore),
    }
}
