// SPDX-License-Identifier: Apache-2.0
//! `gpu-sim mig`: what `nvidia-smi mig` and `nvidia-smi -mig` do, for machines without NVIDIA's program.
//!
//! In: the same words as nvidia-smi takes. Out: the same sentences where nvidia-smi has one.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Subcommand;

use dra_sim::catalog::{GpuProfile, Placement};
use dra_sim::engine::InstanceRef;
use dra_sim::store::Store;
use dra_sim::{Code, State};

use super::error::CliError;

#[derive(Debug, clap::Args)]
pub(super) struct Mig {
    dir: PathBuf,
    /// GPUs by index [default: every GPU with MIG].
    #[arg(short = 'i', long = "gpu", value_delimiter = ',', global = true)]
    gpus: Vec<usize>,
    #[command(subcommand)]
    command: MigCommand,
}

#[derive(Debug, Subcommand)]
enum MigCommand {
    /// Switches MIG mode.
    Mode { wanted: Switch },
    /// Lists GPU instance profiles.
    Lgip,
    /// Lists GPU instances.
    Lgi,
    /// Creates GPU instances by profile name or id, with an optional start: 19,14 or 1g.10gb:3.
    Cgi {
        #[arg(value_delimiter = ',')]
        profiles: Vec<String>,
        /// Also creates a compute instance that takes the whole GPU instance.
        #[arg(short = 'C')]
        compute: bool,
    },
    /// Destroys compute instances.
    Dci {
        /// Only those of this GPU instance.
        #[arg(long)]
        gi: Option<u32>,
    },
    /// Destroys GPU instances.
    Dgi {
        /// Only this GPU instance.
        #[arg(long)]
        gi: Option<u32>,
    },
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Switch {
    On,
    Off,
}

pub(super) fn run(args: &Mig) -> Result<String, CliError> {
    let Mig { dir, gpus, command } = args;
    let store = Store::new(dir);
    let done = store.update(|state| {
        let gpus = if gpus.is_empty() { gpus_with_mig(state) } else { gpus.clone() };
        let mut text = String::new();
        for gpu in gpus {
            state.gpu(gpu).map_err(|_index| CliError::NoGpu { gpu })?;
            text += &one_gpu(state, gpu, command)?;
        }
        Ok(text)
    });
    done.map_err(|source| CliError::Store { source })?
}

fn gpus_with_mig(state: &State) -> Vec<usize> {
    let gpus = state.gpus.iter().enumerate();
    gpus.filter(|(_, gpu)| gpu.mig.is_some() && !gpu.lost).map(|(index, _)| index).collect()
}

fn one_gpu(state: &mut State, gpu: usize, command: &MigCommand) -> Result<String, CliError> {
    match command {
        MigCommand::Mode { wanted } => mode(state, gpu, *wanted),
        MigCommand::Lgip => Ok(list_profiles(state, gpu)),
        MigCommand::Lgi => list_instances(state, gpu),
        MigCommand::Cgi { profiles, compute } => create(state, gpu, profiles, *compute),
        MigCommand::Dci { gi } => destroy_compute(state, gpu, *gi),
        MigCommand::Dgi { gi } => destroy(state, gpu, *gi),
    }
}

fn mode(state: &mut State, gpu: usize, wanted: Switch) -> Result<String, CliError> {
    let on = matches!(wanted, Switch::On);
    let word = if on { "Enabled" } else { "Disabled" };
    let reason = state.set_mig_mode(gpu, on).map_err(refused(&format!("switch MIG mode of GPU {gpu}")))?;
    Ok(match reason {
        None => format!("{word} MIG Mode for GPU {gpu}\n"),
        Some(code) => format!("Warning: MIG mode of GPU {gpu} is pending: {}\n", code.text()),
    })
}

fn list_profiles(state: &State, gpu: usize) -> String {
    let mut text = String::new();
    for profile in profiles(state, gpu) {
        let free = state.remaining(gpu, profile.id).unwrap_or(0);
        let starts: Vec<String> = profile.placements.starts.iter().map(u32::to_string).collect();
        writeln!(
            text,
            "GPU {gpu} MIG {:<11} id {:<3} {free}/{} {:>6} MiB {:>3} SM placements {{{}}}:{}",
            profile.name,
            profile.id,
            profile.max_instances,
            profile.memory_mib,
            profile.multiprocessors,
            starts.join(","),
            profile.placements.size
        )
        .ok();
    }
    text
}

fn list_instances(state: &State, gpu: usize) -> Result<String, CliError> {
    let mut text = String::new();
    for target in every_instance(state, gpu) {
        let failed = refused(&format!("list GPU {gpu}"));
        let profile = state.profile_of(target).map_err(&failed)?;
        let at = state.gpu_instance(target).map_err(&failed)?.placement;
        writeln!(
            text,
            "GPU {gpu} MIG {:<11} profile {:<3} instance {:<3} {}:{}",
            profile.name, profile.id, target.id, at.start, at.size
        )
        .ok();
    }
    Ok(text)
}

fn create(state: &mut State, gpu: usize, wanted: &[String], compute: bool) -> Result<String, CliError> {
    let mut text = String::new();
    for name in wanted {
        let (profile, placement) = parse_profile(state, gpu, name)?;
        let failed = refused(&format!("create {name} on GPU {gpu}"));
        let target = state.create_gpu_instance(gpu, profile.id, placement).map_err(&failed)?;
        let id = target.id;
        writeln!(
            text,
            "Successfully created GPU instance ID {id:>2} on GPU {gpu:>2} using profile MIG {} (ID {:>2})",
            profile.name, profile.id
        )
        .ok();
        let whole = profile.compute.iter().find(|candidate| compute && candidate.slices == profile.slices);
        if let Some(whole) = whole {
            let made = state.create_compute_instance(target, whole.id, None).map_err(&failed)?;
            writeln!(
                text,
                "Successfully created compute instance ID {:>2} on GPU {gpu:>2} GPU instance ID {id:>2} using profile MIG {} (ID {:>2})",
                made.id, profile.name, whole.id
            )
            .ok();
        }
    }
    Ok(text)
}

fn parse_profile(state: &State, gpu: usize, text: &str) -> Result<(&'static GpuProfile, Option<Placement>), CliError> {
    let wrong = || CliError::Profile { text: text.to_owned(), gpu };
    let (name, start) = text.split_once(':').map_or((text, None), |(name, start)| (name, Some(start)));
    let is_it = |profile: &&GpuProfile| profile.name == name || name.parse() == Ok(profile.id);
    let profile = profiles(state, gpu).into_iter().find(is_it).ok_or_else(wrong)?;
    let start = start.map(str::parse).transpose().map_err(|_not_a_number| wrong())?;
    Ok((profile, start.map(|start| Placement { start, size: profile.placements.size })))
}

fn profiles(state: &State, gpu: usize) -> Vec<&'static GpuProfile> {
    (0..32).filter_map(|kind| state.gpu_profile(gpu, kind).ok()).collect()
}

fn destroy_compute(state: &mut State, gpu: usize, only: Option<u32>) -> Result<String, CliError> {
    let mut text = String::new();
    let devices = state.mig_devices(gpu).map_err(refused(&format!("list GPU {gpu}")))?;
    for target in devices.into_iter().filter(|target| only.is_none_or(|id| id == target.instance.id)) {
        let (id, instance) = (target.id, target.instance.id);
        state
            .destroy_compute_instance(target)
            .map_err(refused(&format!("destroy compute instance {id} of {instance}")))?;
        writeln!(
            text,
            "Successfully destroyed compute instance ID {id:>2} from GPU {gpu:>2} GPU instance ID {instance:>2}"
        )
        .ok();
    }
    Ok(text)
}

fn destroy(state: &mut State, gpu: usize, only: Option<u32>) -> Result<String, CliError> {
    let mut text = String::new();
    for target in every_instance(state, gpu).into_iter().filter(|target| only.is_none_or(|id| id == target.id)) {
        let id = target.id;
        state.destroy_gpu_instance(target).map_err(refused(&format!("destroy GPU instance {id} of GPU {gpu}")))?;
        writeln!(text, "Successfully destroyed GPU instance ID {id:>2} from GPU {gpu:>2}").ok();
    }
    Ok(text)
}

fn every_instance(state: &State, gpu: usize) -> Vec<InstanceRef> {
    let ids = state.gpus.get(gpu).into_iter().flat_map(|gpu| gpu.instances.keys());
    ids.filter_map(|&id| state.gpu_instance_by_id(gpu, id).ok()).collect()
}

fn refused(action: &str) -> impl Fn(Code) -> CliError + use<> {
    let action = action.to_owned();
    move |source| CliError::Refused { action: action.clone(), source }
}
