// SPDX-License-Identifier: Apache-2.0
//! Flags and environment of the MPS host.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use dra_model::{Bytes, IdError};
use dra_runtime::logging::LogFormat;

/// A server makes files of some KiB in shared memory.
const MIN_SHM: Bytes = Bytes::from_mib(1);

/// Supervises the MPS daemons of this node on behalf of the kubelet plugin
#[derive(Debug, Parser)]
#[command(name = "gpu-mps-host", version)]
pub struct Args {
    /// Directory of the MPS daemons, the same path in this container as on the host
    #[arg(long, env = "MPS_ROOT", default_value = "/run/gpu-dra/mps")]
    pub root: PathBuf,
    /// Socket for the kubelet plugin [default: host.sock in --root]
    #[arg(long, env = "MPS_SOCKET")]
    pub socket: Option<PathBuf>,
    /// Terminate and remove every MPS daemon in --root and exit, for an uninstall
    #[arg(long)]
    pub remove: bool,
    /// Program to run after --remove, even if that failed; exits nonzero if either fails
    #[arg(last = true, value_name = "PROGRAM", requires = "remove")]
    pub after_removal: Vec<OsString>,
    /// Root of the NVIDIA driver installation as this process sees it
    #[arg(long, env = "DRIVER_ROOT", default_value = "/driver-root")]
    pub driver_root: PathBuf,
    /// Size of the shared memory of one MPS daemon and all its clients, in bytes or as a quantity
    #[arg(long, env = "MPS_SHM_BYTES", default_value = "64Mi", value_parser = shm_bytes)]
    pub shm_bytes: Bytes,
    /// Seconds that claims wait for the clients of an MPS daemon that exited; then their server is ended
    #[arg(long, env = "MPS_CLIENTS_TIMEOUT", default_value_t = 300)]
    pub clients_timeout: u64,
    /// Address of /healthz, /readyz and /metrics
    #[arg(long, env = "HTTP_ADDRESS", default_value = "0.0.0.0:8082")]
    pub http_address: SocketAddr,
    /// Format of the log lines
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

impl Args {
    /// The socket of the kubelet plugin: `host.sock` in the root unless `--socket` is set.
    pub fn socket_path(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.root.join("host.sock"))
    }
}

/// At least [`MIN_SHM`], because zero means no limit for a tmpfs.
fn shm_bytes(text: &str) -> Result<Bytes, String> {
    let bytes: Bytes = text.parse().map_err(|error: IdError| error.to_string())?;
    if bytes < MIN_SHM { Err("less than 1Mi".to_owned()) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_has_a_limit() {
        let given = |arguments: &[&str]| Args::try_parse_from([&["gpu-mps-host"], arguments].concat());
        assert_eq!(given(&[]).unwrap().shm_bytes, Bytes::from_mib(64));
        assert_eq!(given(&["--shm-bytes=1073741824"]).unwrap().shm_bytes, Bytes::from_mib(1024));
        assert_eq!(given(&["--shm-bytes=1.5Gi"]).unwrap().shm_bytes, Bytes::from_mib(1536));
        for refused in ["0", "1000", "-1", "half"] {
            assert!(given(&[&format!("--shm-bytes={refused}")]).is_err(), "{refused}");
        }
    }
}
