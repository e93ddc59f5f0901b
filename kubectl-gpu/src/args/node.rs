// SPDX-License-Identifier: Apache-2.0
//! Flags of the commands that ask the plugin on a node.

use std::path::PathBuf;

use clap::ValueHint;

use super::form::Form;

/// Where the pods of the driver are looked for.
#[derive(Debug, Clone, clap::Args)]
pub struct Driver {
    /// Namespace of the driver, for users who may not list the pods of all namespaces
    #[arg(long, value_name = "NAME", default_value = "gpu-dra-driver")]
    pub driver_namespace: String,
}

/// Flags of `verify`.
#[derive(Debug, Clone, clap::Args)]
pub struct Verify {
    /// Name of a pod or a claim in the namespace; pod/NAME or claim/NAME if both have it
    #[arg(value_name = "POD|CLAIM")]
    pub name: String,
    #[command(flatten)]
    pub driver: Driver,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Form::Table)]
    pub output: Form,
}

/// Flags of `doctor`.
#[derive(Debug, Clone, clap::Args)]
pub struct Doctor {
    /// Checks one node only [default: all nodes with a pod of the driver]
    pub node: Option<String>,
    #[command(flatten)]
    pub driver: Driver,
    /// Also writes all that was read, without secrets, into a new file for a bug report
    #[arg(long, value_name = "FILE.tar.gz", value_hint = ValueHint::FilePath)]
    pub archive: Option<PathBuf>,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Form::Table)]
    pub output: Form,
}

/// Flags of `clear`.
#[derive(Debug, Clone, clap::Args)]
pub struct Clear {
    /// Name of a device of any form, as `kubectl gpu status` lists them, or UUID of a GPU; the whole GPU is meant
    #[arg(value_name = "DEVICE")]
    pub device: String,
    /// Node of the GPU; needed if devices of several nodes have the name
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
    #[command(flatten)]
    pub driver: Driver,
    /// Does it without asking
    #[arg(short, long)]
    pub yes: bool,
}
