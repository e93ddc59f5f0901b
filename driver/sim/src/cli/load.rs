// SPDX-License-Identifier: Apache-2.0
//! The commands that set what a GPU measures.
//!
//! In: arguments. Out: one change of the shared state. What is not named becomes that of an idle, undamaged board again.

use std::path::PathBuf;

use dra_sim::Code;
use dra_sim::state;

use super::error::CliError;
use super::switch::change;

#[derive(Debug, clap::Args)]
pub(super) struct Load {
    dir: PathBuf,
    #[arg(short, long)]
    gpu: usize,
    /// Percent; power, temperature and clocks follow it.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=100))]
    utilization: u32,
    /// Memory in use beside that of the processes.
    #[arg(long, default_value_t = 0)]
    memory_mib: u64,
    /// Degrees Celsius.
    #[arg(long)]
    temperature: Option<u32>,
    #[arg(long)]
    watts: Option<u32>,
    /// Sum of NVML's clocks event reasons, such as 0x20 for software thermal slowdown.
    #[arg(long, default_value = "0", value_parser = bits)]
    throttle: u64,
}

#[derive(Debug, clap::Args)]
pub(super) struct MemoryErrors {
    dir: PathBuf,
    #[arg(short, long)]
    gpu: usize,
    /// ECC errors that were corrected.
    #[arg(long, default_value_t = 0)]
    corrected: u64,
    /// ECC errors that were not.
    #[arg(long, default_value_t = 0)]
    uncorrected: u64,
    /// Rows that were replaced for correctable errors.
    #[arg(long, default_value_t = 0)]
    rows_corrected: u32,
    /// Rows that were replaced for uncorrectable errors.
    #[arg(long, default_value_t = 0)]
    rows_uncorrected: u32,
    /// A row is replaced at the next reset.
    #[arg(long)]
    remap_pending: bool,
    /// No spare row was left.
    #[arg(long)]
    remap_failed: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Fabric {
    dir: PathBuf,
    #[arg(short, long)]
    gpu: usize,
    /// The GPU is not registered.
    #[arg(long)]
    pending: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Nvlink {
    dir: PathBuf,
    #[arg(short, long)]
    gpu: usize,
    /// Links that are down.
    #[arg(long, default_value_t = 0)]
    down: u32,
    /// Damaged packets.
    #[arg(long, default_value_t = 0)]
    crc_errors: u64,
    /// Packets that were sent again.
    #[arg(long, default_value_t = 0)]
    replays: u64,
    /// Links that were trained again.
    #[arg(long, default_value_t = 0)]
    recoveries: u64,
}

pub(super) fn nvlink(args: &Nvlink) -> Result<String, CliError> {
    change(&args.dir, &format!("set the NVLinks of GPU {}", args.gpu), |state| {
        let gpu = state.gpus.get_mut(args.gpu).ok_or(Code::INVALID_ARGUMENT)?;
        let Nvlink { down, crc_errors, replays, recoveries, .. } = *args;
        gpu.nvlink_faults = state::NvLinkFaults { down, crc_errors, replays, recoveries };
        Ok(())
    })
}

pub(super) fn fabric(args: &Fabric) -> Result<String, CliError> {
    let fabric = if args.pending { state::Fabric::Pending } else { state::Fabric::Completed };
    change(&args.dir, &format!("set the fabric of GPU {}", args.gpu), |state| {
        state.gpus.get_mut(args.gpu).ok_or(Code::INVALID_ARGUMENT)?.fabric = fabric;
        Ok(())
    })
}

pub(super) fn load(args: &Load) -> Result<String, CliError> {
    change(&args.dir, &format!("load GPU {}", args.gpu), |state| {
        let gpu = state.gpus.get_mut(args.gpu).ok_or(Code::INVALID_ARGUMENT)?;
        let Load { utilization, memory_mib, temperature, watts, throttle, .. } = *args;
        gpu.load = state::Load { utilization, memory_mib, temperature, watts, throttle };
        Ok(())
    })
}

pub(super) fn memory_errors(args: &MemoryErrors) -> Result<String, CliError> {
    change(&args.dir, &format!("set the memory errors of GPU {}", args.gpu), |state| {
        let gpu = state.gpus.get_mut(args.gpu).ok_or(Code::INVALID_ARGUMENT)?;
        let MemoryErrors {
            corrected, uncorrected, rows_corrected, rows_uncorrected, remap_pending, remap_failed, ..
        } = *args;
        gpu.memory_errors = state::MemoryErrors {
            corrected,
            uncorrected,
            rows_corrected,
            rows_uncorrected,
            remap_pending,
            remap_failed,
        };
        Ok(())
    })
}

/// Decimal, or hexadecimal after `0x`.
fn bits(text: &str) -> Result<u64, std::num::ParseIntError> {
    text.strip_prefix("0x").map_or_else(|| text.parse(), |digits| u64::from_str_radix(digits, 16))
}
