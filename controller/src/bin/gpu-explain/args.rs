// SPDX-License-Identifier: Apache-2.0
//! Flags and their environment variables.

use std::net::SocketAddr;

use clap::Parser;
use dra_resource::DriverName;
use dra_runtime::ApiServer;
use dra_runtime::logging::LogFormat;

/// Writes Events that say why pods wait for the devices of a DRA driver.
#[derive(Debug, Parser)]
#[command(name = "gpu-explain", version)]
pub(crate) struct Args {
    /// Name of the DRA driver; pods that ask for devices of others only are left to those.
    #[arg(long, env = "DRIVER_NAME", default_value = "gpu.nvidia.com")]
    pub(crate) driver_name: DriverName,
    /// Namespace of the Lease.
    #[arg(long, env = "POD_NAMESPACE")]
    pub(crate) namespace: String,
    /// Name of the Lease, which exists. Its holder writes the Events of the cluster.
    #[arg(long)]
    pub(crate) lease: String,
    /// Name of this process in the Lease and in Events.
    #[arg(long, env = "POD_NAME")]
    pub(crate) identity: String,
    /// A pod that waits for less time, in seconds, is not explained.
    #[arg(long, default_value_t = 30)]
    pub(crate) after_seconds: u64,
    /// Listen address of /healthz, /readyz and /metrics.
    #[arg(long, env = "HTTP_ADDRESS", default_value = "0.0.0.0:8084")]
    pub(crate) http_address: SocketAddr,
    /// Format of the log.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
    #[command(flatten)]
    pub(crate) api_server: ApiServer,
}
