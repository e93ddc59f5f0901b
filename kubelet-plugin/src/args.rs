// SPDX-License-Identifier: Apache-2.0
//! Flags and environment, read once and turned into a [`Config`] of valid values.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use dra_hardware::Roots;
use dra_model::NodeName;
use dra_runtime::ApiServer;
use dra_runtime::logging::LogFormat;

use crate::sockets::{SocketError, SocketPaths};

/// Prepares claims for GPUs of this node: the kubelet calls it, containers get CDI devices.
#[derive(Debug, Parser)]
#[command(name = "gpu-kubelet-plugin", version)]
pub struct Args {
    /// Name of the Node this process runs on
    #[arg(long, env = "NODE_NAME")]
    node_name: NodeName,
    /// UID of the pod this process runs in; keeps two instances apart during an upgrade
    #[arg(long, env = "POD_UID")]
    pod_uid: String,
    /// Name of the driver in ResourceSlices and DeviceClasses
    #[arg(long, env = "DRIVER_NAME", default_value = "gpu.nvidia.com")]
    driver_name: String,
    /// Root directory of the kubelet, the same path in this container as on the host
    #[arg(long, env = "KUBELET_ROOT_DIR", default_value = "/var/lib/kubelet")]
    kubelet_root_dir: PathBuf,
    /// Directory for CDI specs; the container runtime must read it
    #[arg(long, env = "CDI_ROOT", default_value = "/var/run/cdi")]
    cdi_root: PathBuf,
    /// Where this process sees the root of the NVIDIA driver installation
    #[arg(long, env = "DRIVER_ROOT", default_value = "/driver-root")]
    driver_root: PathBuf,
    /// What the host calls the root of the NVIDIA driver installation
    #[arg(long, env = "DRIVER_ROOT_HOST", default_value = "/")]
    driver_root_host: PathBuf,
    /// Where this process sees the host's /proc
    #[arg(long, env = "PROC_ROOT", default_value = "/proc")]
    proc_root: PathBuf,
    /// Where this process sees the host's /sys
    #[arg(long, env = "SYS_ROOT", default_value = "/sys")]
    sys_root: PathBuf,
    /// Directory for what must not outlive a reboot, the same path in this container as on the host, the same for every
    /// instance on the node; the MPS host has its place in `mps` there
    #[arg(long, env = "RUN_DIR", default_value = "/run/gpu-dra")]
    run_dir: PathBuf,
    /// Socket for the controller beside this process
    #[arg(long, env = "NODE_SOCKET", default_value = "/run/gpu-node/node.sock")]
    node_socket: PathBuf,
    /// Give every GPU back as it was found, end the MPS daemons, and exit. For when the driver is uninstalled
    #[arg(long)]
    pub restore: bool,
    /// Address of /healthz, /readyz and /metrics
    #[arg(long, env = "HTTP_ADDRESS", default_value = "0.0.0.0:8080")]
    http_address: SocketAddr,
    /// How log lines look
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// The API server.
    #[command(flatten)]
    pub api_server: ApiServer,
}

/// What the process works with.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node, which is also its pool.
    pub node_name: NodeName,
    /// The pod of this process.
    pub pod_uid: String,
    /// Driver name.
    pub driver_name: String,
    /// Sockets and state of this instance.
    pub paths: SocketPaths,
    /// CDI spec directory.
    pub cdi_root: PathBuf,
    /// Where the driver and the kernel's files are.
    pub roots: Roots,
    /// What must not outlive a reboot.
    pub run_dir: PathBuf,
    /// Socket for the controller.
    pub node_socket: PathBuf,
    /// Address of the probes.
    pub http_address: SocketAddr,
}

impl TryFrom<Args> for Config {
    type Error = SocketError;

    fn try_from(args: Args) -> Result<Self, SocketError> {
        let Args {
            node_name,
            pod_uid,
            driver_name,
            kubelet_root_dir,
            cdi_root,
            driver_root,
            driver_root_host,
            proc_root,
            sys_root,
            run_dir,
            node_socket,
            restore: _,
            http_address,
            log_format: _,
            api_server: _,
        } = args;
        let paths = SocketPaths::new(&kubelet_root_dir, &driver_name, &pod_uid)?;
        let roots = Roots { driver: driver_root, driver_on_host: driver_root_host, proc: proc_root, sys: sys_root };
        Ok(Self { node_name, pod_uid, driver_name, paths, cdi_root, roots, run_dir, node_socket, http_address })
    }
}

impl Config {
    /// Where the MPS host has its socket and its daemons.
    pub fn mps_root(&self) -> PathBuf {
        self.run_dir.join("mps")
    }
}
