// SPDX-License-Identifier: Apache-2.0
//! `gpu-import`: converts the sharing configuration of NVIDIA's device plugin, or the MIG layouts of mig-parted, to DeviceClasses and
//! ResourceClaimTemplates.
//!
//! The program reads files and prints; it sends no request to a cluster.

mod args;

use std::borrow::Cow;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use dra_import::import::{self, ImportError, Imported, Selection};
use dra_import::plan::{Cluster, Memory};
use dra_import::published;
use dra_model::{Advice, explain};
use dra_resource::published::PublishedError;

use crate::args::Args;

#[derive(Debug, thiserror::Error)]
enum MainError {
    #[error("failed to read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("failed to read ResourceSlices from {}", path.display())]
    Slices { path: PathBuf, source: PublishedError },
    #[error("failed to import {}", path.display())]
    Import { path: PathBuf, source: ImportError },
    #[error("failed to write to standard output")]
    Write(#[source] io::Error),
}

impl Advice for MainError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Slices { source, .. } => source.advice(),
            Self::Import { source, .. } => source.advice(),
            Self::Read { .. } | Self::Write(_) => None,
        }
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("error: {}", explain(&failed));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), MainError> {
    let input = text(&args.file)?;
    let cluster = cluster(args)?;
    let selection = Selection { file: args.config.as_deref(), mig_config: args.mig_config.as_deref() };
    let imported = import::import(&input, selection, &cluster, &args.driver_name);
    let Imported { objects, values, warnings } =
        imported.map_err(|source| MainError::Import { path: args.file.clone(), source })?;
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    let printed = if args.values { values } else { objects };
    io::stdout().write_all(printed.as_bytes()).map_err(MainError::Write)
}

/// The flags about the cluster.
fn cluster(args: &Args) -> Result<Cluster, MainError> {
    let mut cluster = Cluster { max_shares: args.max_shares, ..Cluster::default() };
    if let Some(memory) = args.memory {
        cluster.memory = Memory::Flag(memory);
    }
    if let Some(path) = &args.slices {
        let published = published::read(&text(path)?, &args.driver_name);
        let published = published.map_err(|source| MainError::Slices { path: path.clone(), source })?;
        cluster.memory = Memory::Published(published);
    }
    Ok(cluster)
}

fn text(path: &Path) -> Result<String, MainError> {
    let read = if path == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(path)
    };
    read.map_err(|source| MainError::Read { path: path.to_owned(), source })
}
