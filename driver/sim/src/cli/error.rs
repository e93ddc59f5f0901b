// SPDX-License-Identifier: Apache-2.0
//! Why a command of `gpu-sim` fails.

use std::path::PathBuf;

use dra_sim::Code;
use dra_sim::store::StoreError;
use dra_sim::tree::TreeError;

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
