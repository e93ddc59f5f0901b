// SPDX-License-Identifier: Apache-2.0
//! Flags of the program.

use std::path::PathBuf;

use clap::Parser;
use dra_import::limits::MAX_TIME_SLICES;
use dra_model::Bytes;
use dra_model::quantity::parse_bytes;
use dra_resource::DriverName;

/// Converts a sharing configuration of NVIDIA's device plugin to DeviceClasses and ResourceClaimTemplates with the same
/// shares, or a configuration of mig-parted to those of its MIG profiles.
///
/// Objects are printed to standard output. Warnings about keys that have no effect, or another effect than their name
/// suggests, are printed to standard error and as comments. Nothing is applied and no request is sent to a cluster.
#[derive(Debug, Parser)]
#[command(name = "gpu-import", version, after_help = EXIT_CODES)]
pub(crate) struct Args {
    /// The ConfigMap of the plugin or of mig-parted, one file of it, or the Helm values of the plugin or the GPU operator;
    /// `-` is standard input.
    #[arg(default_value = "-")]
    pub(crate) file: PathBuf,
    /// Name of the configuration, if the input has several.
    #[arg(long, value_name = "NAME")]
    pub(crate) config: Option<String>,
    /// Name of a configuration of mig-parted, in `mig-configs`. Default: all of them.
    #[arg(long, value_name = "NAME")]
    pub(crate) mig_config: Option<String>,
    /// Memory of a GPU as the driver publishes it for shares, such as 81047Mi, so that templates request an amount of memory.
    #[arg(long, value_name = "QUANTITY", value_parser = memory, conflicts_with = "slices")]
    pub(crate) memory: Option<Bytes>,
    /// Read the memory from a file with the output of `kubectl get resourceslices -o json`.
    #[arg(long, value_name = "FILE")]
    pub(crate) slices: Option<PathBuf>,
    /// Use this `sharing.timeSlicing.maxShares` and request several of them for each share. Default: the number of
    /// replicas.
    #[arg(long, value_name = "NUMBER", value_parser = max_shares)]
    pub(crate) max_shares: Option<u32>,
    /// Print only the values for the chart.
    #[arg(long)]
    pub(crate) values: bool,
    /// Name of the DRA driver.
    #[arg(long, value_name = "NAME", default_value = "gpu.nvidia.com")]
    pub(crate) driver_name: DriverName,
}

const EXIT_CODES: &str = "Exit codes:
  0  printed, with or without warnings
  1  the input cannot be imported; the error names the key
  2  bad arguments";

fn memory(text: &str) -> Result<Bytes, String> {
    let enough = |bytes: &Bytes| bytes.mib() > 0;
    parse_bytes(text).filter(enough).ok_or_else(|| "expected an amount of 1Mi or more, such as 81559Mi".to_owned())
}

fn max_shares(text: &str) -> Result<u32, String> {
    let (start, end) = (MAX_TIME_SLICES.start(), MAX_TIME_SLICES.end());
    text.parse()
        .ok()
        .filter(|number| MAX_TIME_SLICES.contains(number))
        .ok_or_else(|| format!("expected {start} to {end}"))
}
