// SPDX-License-Identifier: Apache-2.0
//! `gpu-sim init`.
//!
//! In: GPUs by model, versions, and the directory of NVIDIA's programs. Out: the whole tree. In an existing tree foreign files
//! stay and the machine is replaced.

use std::path::{Path, PathBuf};

use dra_sim::catalog::{self, Model};
use dra_sim::store::Store;
use dra_sim::tree::devices::NodeKind;
use dra_sim::tree::driver_files;
use dra_sim::{Setup, State, tree};

use super::error::CliError;

/// The default driver version.
const DRIVER_VERSION: &str = "580.95.05";

#[derive(Debug, clap::Args)]
pub(super) struct Init {
    dir: PathBuf,
    /// Boards in order, for example h100:8,t4:2.
    #[arg(long)]
    gpus: String,
    /// All identities are computed from it [default: the name of the directory].
    #[arg(long)]
    seed: Option<String>,
    #[arg(long, default_value = DRIVER_VERSION)]
    driver_version: String,
    /// Unpacked Debian packages with NVIDIA's own nvidia-smi and nvidia-cuda-mps programs.
    #[arg(long)]
    nvidia_smi: Option<PathBuf>,
    /// The simulated library [default: libnvidia_ml.so beside this program].
    #[arg(long)]
    library: Option<PathBuf>,
    /// Gives a recreated MIG instance a new UUID instead of its former one.
    #[arg(long)]
    fresh_mig_uuids: bool,
}

pub(super) fn run(args: &Init) -> Result<String, CliError> {
    let Init { dir, gpus, seed, driver_version, nvidia_smi, library, fresh_mig_uuids } = args;
    let gpus = parse_gpus(gpus)?;
    let library_path = library.clone().map_or_else(own_library, Ok)?;
    if !library_path.is_file() {
        return Err(CliError::Library { path: library_path });
    }
    let failed = |source| CliError::Tree { source };
    tree::clear(dir).map_err(failed)?;
    let installed = driver_files::install(dir, &library_path, driver_version, nvidia_smi.as_deref()).map_err(failed)?;
    let seed = seed.clone().unwrap_or_else(|| name_of(dir));
    let mut state = State::new(&Setup { seed, gpus, driver_version: driver_version.clone() });
    state.tree_dir = std::path::absolute(dir).ok();
    if *fresh_mig_uuids {
        state.mig_uuids = dra_sim::state::MigUuids::Fresh;
    }
    Store::new(dir).create(&state).map_err(|source| CliError::Store { source })?;
    let kind = tree::draw(dir, &state).map_err(failed)?;
    Ok(summary(dir, &state, &installed, kind))
}

fn summary(dir: &Path, state: &State, installed: &[&str], kind: NodeKind) -> String {
    let programs = if installed.is_empty() { "no NVIDIA programs".to_owned() } else { installed.join(", ") };
    let nodes = match kind {
        NodeKind::Character => "character device nodes",
        NodeKind::PlainFile => "plain files instead of device nodes, which only root can make",
    };
    let (count, version) = (state.gpus.len(), &state.driver_version);
    format!("{}: {count} GPUs, driver {version}, {nodes}, {programs}\n", dir.display())
}

fn parse_gpus(text: &str) -> Result<Vec<&'static Model>, CliError> {
    let mut gpus = Vec::new();
    for part in text.split(',') {
        let wrong = || CliError::Gpus { text: part.to_owned(), known: known_models() };
        let (name, count) = part.split_once(':').unwrap_or((part, "1"));
        let model = catalog::model(name).ok_or_else(wrong)?;
        let count: usize = count.parse().map_err(|_not_a_number| wrong())?;
        gpus.extend(std::iter::repeat_n(model, count));
    }
    Ok(gpus)
}

fn known_models() -> String {
    let names = catalog::models().iter().flat_map(|model| [&model.id].into_iter().chain(&model.aliases));
    names.map(String::as_str).collect::<Vec<_>>().join(" ")
}

fn own_library() -> Result<PathBuf, CliError> {
    let program = std::env::current_exe().map_err(|source| CliError::OwnPath { source })?;
    Ok(program.with_file_name("libnvidia_ml.so"))
}

fn name_of(dir: &Path) -> String {
    dir.file_name().map_or_else(|| "node".to_owned(), |name| name.to_string_lossy().into_owned())
}
