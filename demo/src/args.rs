// SPDX-License-Identifier: Apache-2.0
//! The command line.

use clap::{Parser, Subcommand};

/// Shows the driver on a real Kubernetes with simulated GPUs.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Start a cluster, install the driver, play all scenes, and remove everything.
    Run,
    /// Leave a cluster with the driver running; `gpu-cluster down` removes it.
    Up(Up),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Up {
    /// The GPUs of each node, nodes separated by spaces; "none" for a node without.
    #[arg(long, default_value = "h100:8 a100-40:2,t4:2")]
    pub(crate) nodes: String,
    /// The cluster's name.
    #[arg(long, default_value = "gpu")]
    pub(crate) name: String,
}
