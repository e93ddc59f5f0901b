// SPDX-License-Identifier: Apache-2.0
//! Subcommands and flags. Those that kubectl has are spelled as kubectl spells them.

pub mod form;

pub mod migrate;

pub mod node;

pub mod service;

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueHint};
use clap_complete::Shell;

pub use form::Form;

/// Shows what the GPUs of a cluster do, and why a pod waits for one.
///
/// Only `drain`, `undrain`, `clear` and `migrate NODE` change anything, and each names first what it changes. The command has the rights of its user and names those that are missing.
#[derive(Debug, Parser)]
#[command(name = "kubectl-gpu", bin_name = "kubectl gpu", version, after_help = EXIT_CODES)]
pub struct Args {
    #[command(flatten)]
    pub connection: Connection,
    #[command(subcommand)]
    pub command: Command,
}

/// The cluster and what is asked about it.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Connection {
    /// Path of the kubeconfig [default: as kubectl]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: the current one]
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Namespace [default: that of the context]
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Name of the DRA driver
    #[arg(long, global = true, value_name = "NAME", default_value = "gpu.nvidia.com")]
    pub driver_name: String,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Shows nodes and GPUs: what each is used for, what is free of it, and whether it is well
    Status(Status),
    /// Explains why a pod or a claim waits for devices: what each node lacks, who has it, and what would help
    Why(Why),
    /// Judges whether the claims, pods and Deployments of a manifest would fit, how many replicas and where
    Fit(Fit),
    /// Compares what a pod's claims are allocated with what the driver reports and what the node has: record, CDI spec and NVML
    Verify(node::Verify),
    /// Finds what keeps GPUs from pods: versions, rights, the driver on each node; each finding with cause and fix
    Doctor(node::Doctor),
    /// Declares a GPU well, so that the driver forgets its faults. Lists them first and asks
    Clear(node::Clear),
    /// Explains what is wrong with GPUs: since when, who is affected, what ends it, and what to do
    Faults(service::Faults),
    /// Shows what GPUs, claims and pods use: utilization, memory, temperature and power
    Top(service::Top),
    /// Takes a GPU out of service: no new claim gets it, and its pods are evicted. Lists them first and asks
    Drain(service::Drain),
    /// Returns a GPU to service that `drain` took out
    Undrain(service::Gpus),
    /// Finds what of NVIDIA's device plugin, operator and DRA driver is on the cluster, and moves a node to this driver or back. Names first what it changes and asks
    Migrate(migrate::Migrate),
    /// Prints the completion script of a shell for `kubectl-gpu`; kubectl itself asks a link `kubectl_complete-gpu` to the program
    Completion {
        /// The shell that reads the script
        shell: Shell,
    },
}

/// Flags of `status`.
#[derive(Debug, Clone, clap::Args)]
pub struct Status {
    /// Shows one node only, and the claims on it
    pub node: Option<String>,
    /// Lists the claims of all namespaces that hold GPUs, not only those of the namespace
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Prints the answer again when it changes
    #[arg(short, long)]
    pub watch: bool,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Form::Table)]
    pub output: Form,
}

/// Flags of `why`.
#[derive(Debug, Clone, clap::Args)]
pub struct Why {
    /// Name of a pod or a claim in the namespace; pod/NAME or claim/NAME if both have it
    #[arg(value_name = "POD|CLAIM")]
    pub name: String,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Form::Table)]
    pub output: Form,
}

/// Flags of `fit`.
#[derive(Debug, Clone, clap::Args)]
pub struct Fit {
    /// Manifest with ResourceClaims, ResourceClaimTemplates, Pods or objects that make pods; `-` is standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Form::Table)]
    pub output: Form,
}

const EXIT_CODES: &str = "Exit codes:
  0  the question is answered; what was asked about fits, agrees or has no finding
  1  it waits: it fits when something that is in use becomes free; `doctor` has warnings
  2  it can never fit as it is; `verify` found a difference, `doctor` errors; `migrate` needs a change first
  3  no answer: bad arguments, a missing right, no connection, or an expression that is not known";
