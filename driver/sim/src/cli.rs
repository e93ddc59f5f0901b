// SPDX-License-Identifier: Apache-2.0
//! The command line of `gpu-sim`.
//!
//! In: arguments. Out: text for standard output, or an error. Every command but `init` and `status` is one change
//! of the shared state, so running programs see it at their next call.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

mod error;
mod init;
mod load;
mod mig;
mod status;
mod switch;

use error::CliError;

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
    /// Resets a GPU: instances are removed, a pending MIG mode becomes active, a lost GPU works again.
    Reset(switch::OneGpu),
    /// Declares processes that use a GPU, so that resets and MIG mode changes wait.
    Clients(switch::Clients),
    /// Starts a process with a compute context on a GPU or GPU instance, or ends it.
    Process(switch::Process),
    /// Sets what a GPU is busy with.
    Load(load::Load),
    /// Sets what happened to the memory of a GPU.
    MemoryErrors(load::MemoryErrors),
    /// Sets whether a GPU is registered with its NVLink fabric.
    Fabric(load::Fabric),
    /// Sets what happened to the NVLinks of a GPU.
    Nvlink(load::Nvlink),
    /// Reboots the machine: another boot ID, the state of the driver is lost.
    Reboot(Place),
    /// Makes calls slow.
    Delay(switch::Delay),
    /// Makes calls fail.
    Fail(switch::Fail),
    /// Removes all delays and faults.
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

/// Runs a command and returns its output.
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
        Command::Process(process) => switch::process(&process),
        Command::Load(load) => load::load(&load),
        Command::MemoryErrors(errors) => load::memory_errors(&errors),
        Command::Fabric(fabric) => load::fabric(&fabric),
        Command::Nvlink(nvlink) => load::nvlink(&nvlink),
        Command::Reboot(place) => switch::reboot(&place.dir),
        Command::Delay(delay) => switch::delay(&delay),
        Command::Fail(fail) => switch::fail(&fail),
        Command::Heal(place) => switch::heal(&place.dir),
        Command::RemoveDriver(place) => switch::remove_driver(&place.dir),
        Command::RestoreDriver(restore) => switch::restore_driver(&restore),
    }
}
