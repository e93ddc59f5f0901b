// SPDX-License-Identifier: Apache-2.0
//! Flags of `migrate`.

use std::time::Duration;

use super::form::Form;
use super::service::duration;

/// Flags of `migrate`.
#[derive(Debug, Clone, clap::Args)]
pub struct Migrate {
    /// Moves this node to this driver; without it the plan for the cluster is printed
    pub node: Option<String>,
    /// Moves the node back to NVIDIA's components
    #[arg(long, requires = "node")]
    pub back: bool,
    #[command(flatten)]
    pub consent: Consent,
    #[command(flatten)]
    pub conversion: Conversion,
    /// Waits until pods that use GPUs of the node end, at most so long [default: 5m]; the device plugin gives none to new pods meanwhile
    #[arg(long, value_name = "TIME", requires = "node", num_args = 0..=1, require_equals = true, default_missing_value = "5m", value_parser = duration)]
    pub wait: Option<Duration>,
    /// Form of the plan
    #[arg(short, long, value_enum, default_value_t = Form::Table, conflicts_with = "node")]
    pub output: Form,
}

/// What is printed of the configurations of NVIDIA's components.
#[derive(Debug, Clone, clap::Args)]
pub struct Conversion {
    /// Prints the values of the chart that give the same shares
    #[arg(long, conflicts_with_all = ["node", "output"])]
    pub values: bool,
    /// Prints DeviceClasses and ResourceClaimTemplates that give the same parts of GPUs
    #[arg(long, conflicts_with_all = ["node", "output", "values"])]
    pub objects: bool,
    /// With --values or --objects: the name of the configuration of the device plugin, if it has several
    #[arg(long, value_name = "NAME", conflicts_with = "node")]
    pub config: Option<String>,
    /// With --values or --objects: the name of a configuration of mig-parted [default: all of them]
    #[arg(long, value_name = "NAME", conflicts_with = "node")]
    pub mig_config: Option<String>,
}

/// Whether labels are changed, and who agreed.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Consent {
    /// Prints what would be done, and changes nothing
    #[arg(long, requires = "node", conflicts_with = "yes")]
    pub dry_run: bool,
    /// Does it without asking
    #[arg(short, long, requires = "node")]
    pub yes: bool,
}
