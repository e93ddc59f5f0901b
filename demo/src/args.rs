// SPDX-License-Identifier: Apache-2.0
//! The command line.

use clap::{Parser, Subcommand};

/// Shows the driver on a real Kubernetes cluster with simulated GPUs.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Start a cluster, install the driver, run all scenes, and remove the cluster.
    Run,
    /// Start a cluster with the driver that keeps running; `gpu-cluster down` removes it.
    Up(Up),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Up {
    /// GPUs of each node, nodes separated by spaces; "none" for a node without GPUs.
    #[arg(long, default_value = "h100:8 a100-40:2,t4:2")]
    pub(crate) nodes: String,
    /// Name of the cluster.
    #[arg(long, default_value = "gpu")]
    pub(crate) name: String,
    /// Start a Prometheus with the rules of the chart, too.
    #[arg(long)]
    pub(crate) monitoring: bool,
}
