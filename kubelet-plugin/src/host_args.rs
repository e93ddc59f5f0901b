// SPDX-License-Identifier: Apache-2.0
//! Flags of the subcommands that read this host. The container of the plugin has all of them as environment variables, so that
//! `kubectl exec` needs none.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use dra_hardware::{Host, NvmlMachine, ProcessRoots, Roots};

/// Where this process finds the driver and the kernel.
#[derive(Debug, Args)]
pub struct HostArgs {
    /// Name of the driver in ResourceSlices and DeviceClasses
    #[arg(long, env = "DRIVER_NAME", default_value = "gpu.nvidia.com")]
    pub driver_name: String,
    /// Root of the NVIDIA driver installation, as path for this process
    #[arg(long, env = "DRIVER_ROOT", default_value = "/driver-root")]
    pub driver_root: PathBuf,
    /// Root of the NVIDIA driver installation, as path on the host
    #[arg(long, env = "DRIVER_ROOT_HOST", default_value = "/")]
    pub driver_root_host: PathBuf,
    /// /proc of the host, as path for this process
    #[arg(long, env = "PROC_ROOT", default_value = "/proc")]
    pub proc_root: PathBuf,
    /// /sys of the host, as path for this process
    #[arg(long, env = "SYS_ROOT", default_value = "/sys")]
    pub sys_root: PathBuf,
}

/// Where this process finds the state of the plugin.
#[derive(Debug, Args)]
pub struct StateArgs {
    /// Root directory of the kubelet
    #[arg(long, env = "KUBELET_ROOT_DIR", default_value = "/var/lib/kubelet")]
    pub kubelet_root_dir: PathBuf,
    /// Directory of CDI specs
    #[arg(long, env = "CDI_ROOT", default_value = "/var/run/cdi")]
    pub cdi_root: PathBuf,
}

impl HostArgs {
    pub fn host(&self) -> Host {
        let processes = ProcessRoots { proc: self.proc_root.clone(), pod_logs: PathBuf::new() };
        let roots = Roots {
            driver: self.driver_root.clone(),
            driver_on_host: self.driver_root_host.clone(),
            proc: self.proc_root.clone(),
            sys: self.sys_root.clone(),
            processes,
        };
        Host::new(Arc::new(NvmlMachine::new(&roots.driver, &roots.proc)), roots)
    }
}

impl StateArgs {
    /// The directory of the plugin, with its records.
    pub fn plugin_dir(&self, driver_name: &str) -> PathBuf {
        plugin_dir(&self.kubelet_root_dir, driver_name)
    }
}

/// The directory of the plugin below that of the kubelet.
pub(crate) fn plugin_dir(kubelet_root_dir: &Path, driver_name: &str) -> PathBuf {
    kubelet_root_dir.join("plugins").join(driver_name)
}
