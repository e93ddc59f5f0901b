// SPDX-License-Identifier: Apache-2.0
//! The flags and environment variables, and the [`Config`] of valid values that is made of them once.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use dra_cdi::HookSettings;
use dra_hardware::{ProcessRoots, Roots};
use dra_health::{Policy, Replacement};
use dra_model::NodeName;
use dra_runtime::ApiServer;
use dra_runtime::logging::LogFormat;

use crate::health::clear::Clear;
use crate::sockets::{SocketError, SocketPaths};
use crate::static_mig_file::StaticMigFile;

/// Prepares claims for GPUs of this node: the kubelet calls it, containers get CDI devices.
#[derive(Debug, Parser)]
#[command(
    name = "gpu-kubelet-plugin",
    version,
    after_help = "`gpu-kubelet-plugin cdi print` shows what containers get on this host, and which files of the driver are missing."
)]
pub struct Args {
    /// Name of the Node of this process
    #[arg(long, env = "NODE_NAME")]
    node_name: NodeName,
    /// UID of the pod of this process; distinguishes two instances during an upgrade
    #[arg(long, env = "POD_UID")]
    pod_uid: String,
    /// Name of the driver in ResourceSlices and DeviceClasses
    #[arg(long, env = "DRIVER_NAME", default_value = "gpu.nvidia.com")]
    driver_name: String,
    /// Namespace of this pod, which has the Leases that count the evicting nodes
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    namespace: String,
    /// Root directory of the kubelet, the same path in this container as on the host
    #[arg(long, env = "KUBELET_ROOT_DIR", default_value = "/var/lib/kubelet")]
    kubelet_root_dir: PathBuf,
    /// Directory for CDI specs; the container runtime must read it
    #[arg(long, env = "CDI_ROOT", default_value = "/var/run/cdi")]
    cdi_root: PathBuf,
    /// Directory for the hook program that CDI specs name, the same path in this container as on the host; without it they have no
    /// hook
    #[arg(long, env = "CDI_HOOK_DIR", value_name = "DIR")]
    cdi_hook_dir: Option<PathBuf>,
    /// The hook program to install there
    #[arg(long, env = "CDI_HOOK_PROGRAM", value_name = "FILE", default_value = "/usr/bin/gpu-cdi-hook")]
    cdi_hook_program: PathBuf,
    /// Root of the NVIDIA driver installation, as path in this container
    #[arg(long, env = "DRIVER_ROOT", default_value = "/driver-root")]
    driver_root: PathBuf,
    /// Root of the NVIDIA driver installation, as path on the host
    #[arg(long, env = "DRIVER_ROOT_HOST", default_value = "/")]
    driver_root_host: PathBuf,
    /// /dev of the host, as path in this container, where device files for pods with hostUsers: false are created
    #[arg(long, env = "HOST_DEV_DIR", value_name = "DIR")]
    host_dev_dir: Option<PathBuf>,
    /// /proc of the host, as path in this container
    #[arg(long, env = "PROC_ROOT", default_value = "/proc")]
    proc_root: PathBuf,
    /// /sys of the host, as path in this container
    #[arg(long, env = "SYS_ROOT", default_value = "/sys")]
    sys_root: PathBuf,
    /// /proc of the PID namespace of the host, as path in this container, to name processes that hold a GPU
    #[arg(long, env = "HOST_PROC", default_value = "/proc")]
    host_proc: PathBuf,
    /// Log directory of the kubelet's pods, as path in this container, to name the pods of these processes
    #[arg(long, env = "POD_LOGS", default_value = "/var/log/pods")]
    pod_logs: PathBuf,
    /// Runtime directory (locks; mps/ for the MPS host), cleared at reboot; same path in container and host, shared by all
    /// instances on the node
    #[arg(long, env = "RUN_DIR", default_value = "/run/gpu-dra")]
    run_dir: PathBuf,
    /// Socket for the controller in the same pod
    #[arg(long, env = "NODE_SOCKET", default_value = "/run/gpu-node/node.sock")]
    node_socket: PathBuf,
    /// Configuration of mig-parted with static MIG devices, which are created at the start and stay
    #[arg(long, env = "STATIC_MIG_FILE", value_name = "FILE")]
    static_mig_file: Option<PathBuf>,
    /// Name of the configuration in `mig-configs` of the file, if it has several
    #[arg(long, env = "STATIC_MIG_CONFIG", value_name = "NAME", requires = "static_mig_file")]
    static_mig_config: Option<String>,
    /// Rules about faults of GPUs instead of the defaults, such as needsReset=NoExecute:600 or lost=Off
    #[arg(long, env = "HEALTH_RULES", value_name = "FAULT=EFFECT[:GRACE]", value_delimiter = ',')]
    health_rules: Vec<Replacement>,
    /// Share of the GPUs of the node whose pods may be evicted at a time, in percent; at least one GPU
    #[arg(long, env = "HEALTH_EVICTION_PERCENT", default_value_t = 20, value_parser = clap::value_parser!(u8).range(0..=100))]
    health_eviction_percent: u8,
    /// How many nodes of the cluster may evict pods at a time; 0: any number
    #[arg(long, env = "HEALTH_EVICTION_NODES", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
    health_eviction_nodes: u32,
    /// How often the GPUs are asked for what has no event, and requests of administrators are read, in seconds
    #[arg(long, env = "HEALTH_POLL_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60))]
    health_poll_seconds: u64,
    /// Whether the metrics name claims and pods
    #[arg(long, env = "CLAIM_METRICS", default_value_t = true, action = clap::ArgAction::Set)]
    claim_metrics: bool,
    /// Declare a GPU well, or `all`, whatever was judged before, and exit; the running plugin does it at its next poll
    #[arg(long, value_name = "UUID")]
    pub clear_health: Option<Clear>,
    /// Restore the original settings of all GPUs, stop the MPS daemons, and exit; for the uninstallation of this driver
    #[arg(long)]
    pub restore: bool,
    /// Address of /healthz, /readyz and /metrics
    #[arg(long, env = "HTTP_ADDRESS", default_value = "0.0.0.0:8080")]
    http_address: SocketAddr,
    /// Format of log lines
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
    #[command(flatten)]
    pub api_server: ApiServer,
}

/// The valid settings of the process.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node, which is also the name of its pool.
    pub node_name: NodeName,
    pub pod_uid: String,
    /// Of this pod.
    pub namespace: String,
    pub driver_name: String,
    pub paths: SocketPaths,
    pub cdi_root: PathBuf,
    /// Absent: CDI specs have no hook.
    pub hook: Option<HookSettings>,
    pub roots: Roots,
    /// Absent: no device file is created.
    pub host_dev_dir: Option<PathBuf>,
    /// Cleared at reboot.
    pub run_dir: PathBuf,
    /// For the controller.
    pub node_socket: PathBuf,
    /// Static MIG devices to create at the start.
    pub static_mig: Option<StaticMigFile>,
    /// What faults of GPUs do.
    pub health: Policy,
    pub eviction_percent: u8,
    /// How many nodes of the cluster may evict pods at a time. Absent: any number.
    pub eviction_nodes: Option<NonZeroU32>,
    /// Between two polls of the condition of the GPUs.
    pub health_poll_interval: Duration,
    /// Whether the metrics name claims and pods.
    pub claim_metrics: bool,
    pub http_address: SocketAddr,
}

impl TryFrom<Args> for Config {
    type Error = SocketError;

    fn try_from(args: Args) -> Result<Self, SocketError> {
        let Args {
            node_name,
            pod_uid,
            driver_name,
            namespace,
            kubelet_root_dir,
            cdi_root,
            cdi_hook_dir,
            cdi_hook_program,
            driver_root,
            driver_root_host,
            host_dev_dir,
            proc_root,
            sys_root,
            host_proc,
            pod_logs,
            run_dir,
            node_socket,
            static_mig_file,
            static_mig_config,
            health_rules,
            health_eviction_percent,
            health_eviction_nodes,
            health_poll_seconds,
            claim_metrics,
            clear_health: _,
            restore: _,
            http_address,
            log_format: _,
            api_server: _,
        } = args;
        let paths = SocketPaths::new(&kubelet_root_dir, &driver_name, &pod_uid)?;
        let processes = ProcessRoots { proc: host_proc, pod_logs };
        let roots =
            Roots { driver: driver_root, driver_on_host: driver_root_host, proc: proc_root, sys: sys_root, processes };
        let hook = cdi_hook_dir.map(|dir| hook_settings(cdi_hook_program, &dir, &driver_name, &pod_uid));
        let static_mig = static_mig_file.map(|path| StaticMigFile { path, config: static_mig_config });
        Ok(Self {
            node_name,
            pod_uid,
            driver_name,
            namespace,
            paths,
            cdi_root,
            hook,
            roots,
            host_dev_dir,
            run_dir,
            node_socket,
            static_mig,
            health: Policy::new(health_rules),
            eviction_percent: health_eviction_percent,
            eviction_nodes: NonZeroU32::new(health_eviction_nodes),
            health_poll_interval: Duration::from_secs(health_poll_seconds),
            claim_metrics,
            http_address,
        })
    }
}

/// In a directory of this driver: another one on the node would remove what none of its own specs names.
pub(crate) fn hook_settings(program: PathBuf, dir: &Path, driver_name: &str, pod_uid: &str) -> HookSettings {
    HookSettings { program, dir: dir.join(driver_name), instance: pod_uid.to_owned() }
}

impl Config {
    /// The directory of the MPS host, with its socket and its daemons.
    pub fn mps_root(&self) -> PathBuf {
        self.run_dir.join("mps")
    }
}
