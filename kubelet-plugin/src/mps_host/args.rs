// SPDX-License-Identifier: Apache-2.0
//! Flags and environment of the MPS host.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use dra_runtime::logging::LogFormat;

/// Runs the MPS daemons of this node: the kubelet plugin asks for them, containers talk to them.
#[derive(Debug, Parser)]
#[command(name = "gpu-mps-host", version)]
pub struct Args {
    /// Directory of the daemons, the same path in this container as on the host
    #[arg(long, env = "MPS_ROOT", default_value = "/run/gpu-dra/mps")]
    pub root: PathBuf,
    /// Socket for the kubelet plugin [default: host.sock in --root]
    #[arg(long, env = "MPS_SOCKET")]
    pub socket: Option<PathBuf>,
    /// End and remove every daemon in --root and exit, instead of running them: for an uninstall
    #[arg(long)]
    pub remove: bool,
    /// After --remove, whatever came of it, run this program with these arguments; it is a failure if either fails
    #[arg(last = true, value_name = "PROGRAM", requires = "remove")]
    pub then: Vec<OsString>,
    /// Where this process sees the root of the NVIDIA driver installation
    #[arg(long, env = "DRIVER_ROOT", default_value = "/driver-root")]
    pub driver_root: PathBuf,
    /// Size of the shared memory of the clients of one daemon [default: half of the machine's memory]
    #[arg(long, env = "MPS_SHM_BYTES")]
    pub shm_bytes: Option<u64>,
    /// Address of /healthz, /readyz and /metrics
    #[arg(long, env = "HTTP_ADDRESS", default_value = "0.0.0.0:8082")]
    pub http_address: SocketAddr,
    /// How log lines look
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

impl Args {
    /// Where the kubelet plugin is listened for.
    pub fn socket_path(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.root.join("host.sock"))
    }
}
