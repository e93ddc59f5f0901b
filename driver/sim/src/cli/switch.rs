// SPDX-License-Identifier: Apache-2.0
//! The commands that change a running machine: faults, delays, reset, reboot, driver.
//!
//! In: arguments. Out: one change of the shared state, and the tree redrawn where the kernel would change it.

use std::path::{Path, PathBuf};

use dra_sim::state::{self, Fault};
use dra_sim::store::Store;
use dra_sim::tree::driver_files;
use dra_sim::{Code, State, tree};

use super::error::CliError;

#[derive(Debug, clap::Args)]
pub(super) struct Xid {
    dir: PathBuf,
    #[arg(short, long)]
    gpu: usize,
    /// XID in NVIDIA's catalogue.
    number: u64,
    /// GPU instance it is attributed to.
    #[arg(long)]
    gi: Option<u32>,
    /// Compute instance it is attributed to.
    #[arg(long)]
    ci: Option<u32>,
    /// Also sets the recovery action that field 230 reports: 0 none, 1 reset, 2 reboot, 3 drain, 4 drain and reset.
    #[arg(long)]
    recovery: Option<u32>,
}

#[derive(Debug, clap::Args)]
pub(super) struct OneGpu {
    dir: PathBuf,
    #[arg(short, long)]
    gpu: usize,
}

#[derive(Debug, clap::Args)]
pub(super) struct Clients {
    dir: PathBuf,
    #[arg(short, long)]
    gpu: usize,
    count: u32,
}

#[derive(Debug, clap::Args)]
pub(super) struct Process {
    dir: PathBuf,
    /// Index.
    #[arg(short, long)]
    gpu: usize,
    pid: u32,
    /// GPU instance.
    #[arg(long)]
    gi: Option<u32>,
    /// Memory it uses.
    #[arg(long)]
    memory_mib: Option<u64>,
    /// The process ends.
    #[arg(long)]
    end: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Delay {
    dir: PathBuf,
    /// NVML function, or prefix*.
    call: String,
    /// Milliseconds; 0 takes the delay back.
    millis: u64,
    /// Only calls about this GPU.
    #[arg(short, long)]
    gpu: Option<usize>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Fail {
    dir: PathBuf,
    /// NVML function, or prefix*.
    call: String,
    /// NVML return code.
    #[arg(long, required_unless_present = "forgets")]
    code: Option<u32>,
    /// Instead of a failure: the call sets nothing and answers success.
    #[arg(long, conflicts_with = "code")]
    forgets: bool,
    /// Only calls about this GPU.
    #[arg(short, long)]
    gpu: Option<usize>,
    /// The first call that fails.
    #[arg(long, default_value_t = 1)]
    at: u64,
    /// How many calls fail [default: all].
    #[arg(long)]
    times: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub(super) struct RestoreDriver {
    dir: PathBuf,
    /// Another version, as after an upgrade.
    #[arg(long)]
    driver_version: Option<String>,
}

pub(super) fn xid(args: &Xid) -> Result<String, CliError> {
    change(&args.dir, &format!("raise XID {} on GPU {}", args.number, args.gpu), |state| {
        state.raise_xid(args.gpu, args.number, (args.gi, args.ci))?;
        if let (Some(action), Some(gpu)) = (args.recovery, state.gpus.get_mut(args.gpu)) {
            gpu.recovery_action = action;
        }
        Ok(())
    })
}

pub(super) fn lose(args: &OneGpu) -> Result<String, CliError> {
    change(&args.dir, &format!("lose GPU {}", args.gpu), |state| state.lose_gpu(args.gpu))
}

pub(super) fn reset(args: &OneGpu) -> Result<String, CliError> {
    change(&args.dir, &format!("reset GPU {}", args.gpu), |state| state.reset_gpu(args.gpu))
}

pub(super) fn clients(args: &Clients) -> Result<String, CliError> {
    change(&args.dir, &format!("set the clients of GPU {}", args.gpu), |state| {
        state.gpus.get_mut(args.gpu).ok_or(Code::INVALID_ARGUMENT)?.clients = args.count;
        Ok(())
    })
}

pub(super) fn process(args: &Process) -> Result<String, CliError> {
    change(&args.dir, &format!("change the processes of GPU {}", args.gpu), |state| {
        let gpu = state.gpus.get_mut(args.gpu).ok_or(Code::INVALID_ARGUMENT)?;
        gpu.processes.retain(|process| process.pid != args.pid);
        if !args.end {
            gpu.processes.push(state::Process { pid: args.pid, gpu_instance: args.gi, memory_mib: args.memory_mib });
        }
        Ok(())
    })
}

pub(super) fn delay(args: &Delay) -> Result<String, CliError> {
    change(&args.dir, "delay calls", |state| {
        state.delays.retain(|delay| (&delay.call, delay.gpu) != (&args.call, args.gpu));
        if args.millis > 0 {
            state.delays.push(state::Delay { call: args.call.clone(), gpu: args.gpu, millis: args.millis });
        }
        Ok(())
    })
}

pub(super) fn fail(args: &Fail) -> Result<String, CliError> {
    change(&args.dir, "make calls fail", |state| {
        let (call, gpu, times) = (args.call.clone(), args.gpu, args.times);
        let code = args.code.map_or(Code::SUCCESS, Code);
        state.faults.push(Fault { call, gpu, skip: args.at.saturating_sub(1), times, code });
        Ok(())
    })
}

pub(super) fn heal(dir: &Path) -> Result<String, CliError> {
    change(dir, "remove faults", |state| {
        state.faults.clear();
        state.delays.clear();
        Ok(())
    })
}

pub(super) fn reboot(dir: &Path) -> Result<String, CliError> {
    change(dir, "reboot", |state| {
        state.reboot();
        Ok(())
    })?;
    redraw(dir)
}

pub(super) fn remove_driver(dir: &Path) -> Result<String, CliError> {
    change(dir, "unload the driver", |state| {
        state.unload_driver();
        Ok(())
    })?;
    redraw(dir)
}

/// Restores the driver; with another version its libraries replace the old ones.
pub(super) fn restore_driver(args: &RestoreDriver) -> Result<String, CliError> {
    let store = Store::new(&args.dir);
    let before = store.read().map_err(|source| CliError::Store { source })?;
    if let Some(version) = args.driver_version.as_ref().filter(|version| **version != before.driver_version) {
        driver_files::upgrade(&args.dir, &before.driver_version, version)
            .map_err(|source| CliError::Tree { source })?;
    }
    change(&args.dir, "load the driver", |state| {
        state.load_driver(args.driver_version.as_deref());
        Ok(())
    })?;
    redraw(&args.dir)
}

pub(super) fn change(
    dir: &Path,
    action: &str,
    change: impl FnOnce(&mut State) -> Result<(), Code>,
) -> Result<String, CliError> {
    let answer = Store::new(dir).update(change).map_err(|source| CliError::Store { source })?;
    answer.map_err(|source| CliError::Refused { action: action.to_owned(), source })?;
    Ok(String::new())
}

fn redraw(dir: &Path) -> Result<String, CliError> {
    let state = Store::new(dir).read().map_err(|source| CliError::Store { source })?;
    tree::redraw_driver(dir, &state).map_err(|source| CliError::Tree { source })?;
    Ok(String::new())
}
