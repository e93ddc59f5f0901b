// SPDX-License-Identifier: Apache-2.0
//! The character devices a container gets.
//!
//! In come a device and the roots; out come nodes whose numbers were read from the node itself, or, for MIG capabilities,
//! from procfs. A capability node need not exist: a container runtime makes it from its numbers. Any other node that is
//! missing is an error here and now, not a container without a GPU later (kubernetes-sigs/dra-driver-nvidia-gpu #1380).

use std::io;
use std::path::{Path, PathBuf};

use dra_model::{Device, DeviceNode, Gpu, MigDevice};
use rustix::fs::{FileType, Stat, major, minor};

use crate::driver_root::Root;
use crate::procfs::{self, Capability, ProcError};

/// A device node is not as it has to be.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The driver root cannot be opened.
    #[error("unable to open the driver root {}", path.display())]
    Root {
        /// Driver root.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not there.
    #[error("no device node {path} on the node: run `{remedy}` or `nvidia-smi` there, which makes it")]
    Missing {
        /// Path in the container.
        path: String,
        /// Command that makes it.
        remedy: String,
    },
    /// It cannot be looked at.
    #[error("unable to look at the device node {path}")]
    Unreadable {
        /// Path in the container.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error("{path} on the node is not a character device: remove it and run `{remedy}` there")]
    NotADevice {
        /// Path in the container.
        path: String,
        /// Command that makes it.
        remedy: String,
    },
    /// It is the node of another GPU.
    #[error("{path} on the node has minor number {found}: remove it and run `{remedy}` there")]
    WrongMinor {
        /// Path in the container.
        path: String,
        /// The number it has.
        found: u32,
        /// Command that makes it.
        remedy: String,
    },
    /// The numbers of a MIG capability are not known.
    #[error("unable to find the capability nodes of MIG device {device}")]
    Capability {
        /// UUID of the MIG device.
        device: String,
        /// Why.
        #[source]
        source: ProcError,
    },
}

/// Where device nodes are looked for.
struct DevRoot {
    root: Root,
    on_host: PathBuf,
}

/// Paths in the container and the command that makes the node (nvidia-modprobe(1)).
const NVIDIACTL: (&str, &str) = ("/dev/nvidiactl", "nvidia-modprobe -c 255");
const UVM: (&str, &str) = ("/dev/nvidia-uvm", "nvidia-modprobe -u -c 0");
/// For profilers and for display; a driver without them works.
const OPTIONAL: [&str; 2] = ["/dev/nvidia-uvm-tools", "/dev/nvidia-modeset"];

/// The nodes of one device: that of its GPU, and for a MIG device its two capabilities.
pub fn device_nodes(
    device: Device<'_>,
    driver_root: &Path,
    driver_on_host: &Path,
    proc_root: &Path,
) -> Result<Vec<DeviceNode>, NodeError> {
    let dev = DevRoot::open(driver_root, driver_on_host)?;
    let mut nodes = vec![gpu_node(&dev, device.gpu())?];
    if let Device::Mig(gpu, mig) = device {
        let failed = |source| NodeError::Capability { device: mig.uuid.to_string(), source };
        nodes.extend(capability_nodes(&dev, gpu, mig, proc_root).map_err(failed)?);
    }
    Ok(nodes)
}

/// The nodes every container with a GPU needs.
pub fn control_nodes(driver_root: &Path, driver_on_host: &Path) -> Result<Vec<DeviceNode>, NodeError> {
    let dev = DevRoot::open(driver_root, driver_on_host)?;
    let mut nodes = Vec::new();
    for (path, remedy) in [NVIDIACTL, UVM] {
        nodes.push(dev.node(path, remedy)?);
    }
    for path in OPTIONAL {
        nodes.extend(dev.node(path, UVM.1).ok());
    }
    Ok(nodes)
}

fn gpu_node(dev: &DevRoot, gpu: &Gpu) -> Result<DeviceNode, NodeError> {
    let path = format!("/dev/nvidia{}", gpu.minor);
    let remedy = format!("nvidia-modprobe -c {}", gpu.minor);
    let node = dev.node(&path, &remedy)?;
    if node.minor == gpu.minor { Ok(node) } else { Err(NodeError::WrongMinor { path, found: node.minor, remedy }) }
}

fn capability_nodes(dev: &DevRoot, gpu: &Gpu, mig: &MigDevice, proc_root: &Path) -> Result<[DeviceNode; 2], ProcError> {
    let major = procfs::char_major(proc_root, procfs::MIG_CAPABILITIES)?;
    let node = |compute_instance| {
        let capability = Capability { gpu_minor: gpu.minor, gpu_instance: mig.gpu_instance, compute_instance };
        let minor = procfs::capability_minor(proc_root, capability)?;
        let path = format!("/dev/nvidia-caps/nvidia-cap{minor}");
        Ok(DeviceNode { host_path: dev.host_path(&path), path, major, minor })
    };
    Ok([node(None)?, node(Some(mig.compute_instance))?])
}

impl DevRoot {
    /// `<driver root>/dev` is a directory ? driver root : `/`, as in every component of NVIDIA.
    fn open(driver_root: &Path, driver_on_host: &Path) -> Result<Self, NodeError> {
        let open = |path: &Path| Root::open(path).map_err(|source| NodeError::Root { path: path.to_owned(), source });
        let root = open(driver_root)?;
        let has_dev = root.find("dev").is_ok_and(|dev| FileType::from_raw_mode(dev.stat.st_mode).is_dir());
        if has_dev {
            return Ok(Self { root, on_host: driver_on_host.to_owned() });
        }
        Ok(Self { root: open(Path::new("/"))?, on_host: PathBuf::from("/") })
    }

    fn node(&self, path: &str, remedy: &str) -> Result<DeviceNode, NodeError> {
        let (path, remedy) = (path.to_owned(), remedy.to_owned());
        match self.stat(&path) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_char_device() => {
                let (major, minor) = (major(stat.st_rdev), minor(stat.st_rdev));
                Ok(DeviceNode { host_path: self.host_path(&path), path, major, minor })
            }
            Ok(_) => Err(NodeError::NotADevice { path, remedy }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(NodeError::Missing { path, remedy }),
            Err(source) => Err(NodeError::Unreadable { path, source }),
        }
    }

    fn stat(&self, path: &str) -> io::Result<Stat> {
        Ok(self.root.find(path)?.stat)
    }

    fn host_path(&self, path: &str) -> PathBuf {
        self.on_host.join(path.trim_start_matches('/'))
    }
}
