// SPDX-License-Identifier: Apache-2.0
//! The character devices of a container.
//!
//! The numbers of a node are read from the node itself or, for MIG capabilities, from procfs. A missing node is an error at
//! prepare, and not a container without a GPU later (kubernetes-sigs/dra-driver-nvidia-gpu #1380).
//!
//! Capability nodes are the exception: they often do not exist, because the first program that needs one creates it. A CDI
//! device node with type and major number is complete, so a runtime does not need its host path (`fillMissingInfo` of the CDI
//! library in containerd and CRI-O), and runc and crun create the node with mknod(2). Only in a user namespace (`hostUsers:
//! false`) they bind the node of the host, which `nvidia-modprobe -f /proc/driver/nvidia/capabilities/…/access` creates first.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

use dra_model::{Advice, Capability, ControlNode, DeviceNode, MigIds, PciAddress};
use rustix::fs::{FileType, Stat, major, minor};

use crate::driver_root::{self, Root};
use crate::procfs::{self, Capability as MigCapability, ProcError};
use crate::sysfs;

/// A device node is missing or wrong.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("failed to open the driver root {}", path.display())]
    Root {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("no device node {path} on the node")]
    Missing { path: String, remedy: String },
    #[error("failed to stat the device node {path}")]
    Unreadable {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("{path} on the node is not a character device")]
    NotADevice { path: String, remedy: String },
    /// The node belongs to another GPU.
    #[error("{path} on the node has minor number {found}")]
    WrongMinor { path: String, found: u32, remedy: String },
    #[error("failed to find the capability nodes of GPU instance {gpu_instance}, compute instance {compute_instance}")]
    Capability {
        gpu_instance: u32,
        compute_instance: u32,
        #[source]
        source: ProcError,
    },
}

impl Advice for NodeError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Root { .. } => Some(driver_root::ADVICE.into()),
            Self::Missing { remedy, .. } => {
                Some(format!("run `{remedy}` or `nvidia-smi` on the node, which creates it").into())
            }
            Self::Unreadable { .. } => None,
            Self::NotADevice { remedy, .. } | Self::WrongMinor { remedy, .. } => {
                Some(format!("remove it and run `{remedy}` on the node").into())
            }
            Self::Capability { source, .. } => source.advice(),
        }
    }
}

/// The root directory of device nodes.
struct DevRoot {
    root: Root,
    on_host: PathBuf,
}

/// A control node: path in the container, the capabilities that need it, and the command that creates it (nvidia-modprobe(1)).
struct Control {
    path: &'static str,
    capabilities: &'static [Capability],
    remedy: &'static str,
    is_optional: bool,
}

/// The last two are for profilers and for display: a driver without them works, and containers without these capabilities do not
/// get them (as in libnvidia-container, `nvc_mount.c`).
const CONTROLS: [Control; 4] = [
    Control {
        path: "/dev/nvidiactl",
        capabilities: &Capability::ALL,
        remedy: "nvidia-modprobe -c 255",
        is_optional: false,
    },
    Control { path: "/dev/nvidia-uvm", capabilities: &Capability::ALL, remedy: UVM, is_optional: false },
    Control { path: "/dev/nvidia-uvm-tools", capabilities: &[Capability::Compute], remedy: UVM, is_optional: true },
    Control {
        path: "/dev/nvidia-modeset",
        capabilities: &[Capability::Display],
        remedy: "nvidia-modprobe -m",
        is_optional: true,
    },
];

const UVM: &str = "nvidia-modprobe -u -c 0";

/// What the nodes of a device are named after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceIds {
    Gpu { minor: u32 },
    Mig { gpu_minor: u32, gpu_instance: u32, compute_instance: u32 },
}

impl DeviceIds {
    /// Of a MIG device on the GPU of this minor number.
    pub const fn of_mig(gpu_minor: u32, ids: &MigIds) -> Self {
        Self::Mig { gpu_minor, gpu_instance: ids.gpu_instance, compute_instance: ids.compute_instance }
    }
}

/// The nodes of one device: that of its GPU, and for a MIG device its two capabilities.
pub fn device_nodes(
    device: DeviceIds,
    driver_root: &Path,
    driver_on_host: &Path,
    proc_root: &Path,
) -> Result<Vec<DeviceNode>, NodeError> {
    let dev = DevRoot::open(driver_root, driver_on_host)?;
    match device {
        DeviceIds::Gpu { minor } => Ok(vec![gpu_node(&dev, minor)?]),
        DeviceIds::Mig { gpu_minor, gpu_instance, compute_instance } => {
            let mut nodes = vec![gpu_node(&dev, gpu_minor)?];
            let of_gpu_instance = MigCapability { gpu_minor, gpu_instance, compute_instance: None };
            let of_compute_instance = MigCapability { compute_instance: Some(compute_instance), ..of_gpu_instance };
            let capabilities = capability_nodes(&dev, [of_gpu_instance, of_compute_instance], proc_root);
            let failed = |source| NodeError::Capability { gpu_instance, compute_instance, source };
            nodes.extend(capabilities.map_err(failed)?);
            Ok(nodes)
        }
    }
}

/// The nodes of the driver itself, as far as they exist; an error without those that every container needs.
pub fn control_nodes(driver_root: &Path, driver_on_host: &Path) -> Result<Vec<ControlNode>, NodeError> {
    let dev = DevRoot::open(driver_root, driver_on_host)?;
    let mut nodes = Vec::new();
    for Control { path, capabilities, remedy, is_optional } in CONTROLS {
        match dev.node(path, remedy) {
            Ok(node) => nodes.push(ControlNode { node, capabilities }),
            Err(_) if is_optional => {}
            Err(error) => return Err(error),
        }
    }
    Ok(nodes)
}

/// The DRI nodes of a GPU, `/dev/dri/card<N>` and `/dev/dri/renderD<N>`; none without the module `nvidia-drm`. As a capability
/// node, such a node is complete with the numbers that the kernel has in sysfs.
pub fn dri_nodes(
    pci: PciAddress,
    driver_root: &Path,
    driver_on_host: &Path,
    sys_root: &Path,
) -> Result<Vec<DeviceNode>, NodeError> {
    let dev = DevRoot::open(driver_root, driver_on_host)?;
    let node = |(name, (major, minor)): (String, (u32, u32))| {
        let path = format!("/dev/dri/{name}");
        DeviceNode { host_path: dev.host_path(&path), path, major, minor }
    };
    Ok(sysfs::drm_devices(sys_root, pci).into_iter().map(node).collect())
}

fn gpu_node(dev: &DevRoot, minor: u32) -> Result<DeviceNode, NodeError> {
    let path = format!("/dev/nvidia{minor}");
    let remedy = format!("nvidia-modprobe -c {minor}");
    let node = dev.node(&path, &remedy)?;
    if node.minor == minor { Ok(node) } else { Err(NodeError::WrongMinor { path, found: node.minor, remedy }) }
}

fn capability_nodes<const N: usize>(
    dev: &DevRoot,
    capabilities: [MigCapability; N],
    proc_root: &Path,
) -> Result<Vec<DeviceNode>, ProcError> {
    let major = procfs::char_major(proc_root, procfs::MIG_CAPABILITIES)?;
    let node = |capability| {
        let minor = procfs::capability_minor(proc_root, capability)?;
        let path = format!("/dev/nvidia-caps/nvidia-cap{minor}");
        Ok(DeviceNode { host_path: dev.host_path(&path), path, major, minor })
    };
    capabilities.into_iter().map(node).collect()
}

impl DevRoot {
    /// The driver root if it has a directory `dev`, otherwise `/`, as in every component of NVIDIA.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, path: &str, text: &str) {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn the_numbers_of_a_node_are_read_from_it() {
        let dev = DevRoot { root: Root::open(Path::new("/")).unwrap(), on_host: PathBuf::from("/run/nvidia/driver") };
        let node = dev.node("/dev/null", "").unwrap();
        assert_eq!((node.path.as_str(), node.major, node.minor), ("/dev/null", 1, 3));
        assert_eq!(node.host_path, Path::new("/run/nvidia/driver/dev/null"));
    }

    #[test]
    fn a_missing_or_wrong_node_is_an_error_with_the_command_to_run() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "dev/nvidia1", "a plain file");
        let nodes = |minor| device_nodes(DeviceIds::Gpu { minor }, dir.path(), Path::new("/"), dir.path());
        let missing = dra_model::explain(&nodes(0).unwrap_err());
        assert_eq!(
            missing,
            "no device node /dev/nvidia0 on the node; run `nvidia-modprobe -c 0` or `nvidia-smi` on the node, which creates it"
        );
        assert!(matches!(nodes(1), Err(NodeError::NotADevice { .. })));
        let missing = control_nodes(dir.path(), Path::new("/")).unwrap_err().to_string();
        assert!(missing.starts_with("no device node /dev/nvidiactl on the node"), "{missing}");
    }

    #[test]
    fn capability_nodes_need_not_exist() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("dev")).unwrap();
        let dev = DevRoot::open(dir.path(), Path::new("/run/nvidia/driver")).unwrap();
        let of_gpu_instance = MigCapability { gpu_minor: 2, gpu_instance: 7, compute_instance: None };
        let both = [of_gpu_instance, MigCapability { compute_instance: Some(0), ..of_gpu_instance }];
        let unknown = capability_nodes(&dev, both, dir.path()).unwrap_err().to_string();
        assert!(unknown.contains("devices"), "{unknown}");
        write(dir.path(), "devices", "Character devices:\n242 nvidia-caps\n");
        write(dir.path(), "driver/nvidia/capabilities/gpu2/mig/gi7/access", "DeviceFileMinor: 336\n");
        write(dir.path(), "driver/nvidia/capabilities/gpu2/mig/gi7/ci0/access", "DeviceFileMinor: 337\n");
        let nodes = capability_nodes(&dev, both, dir.path()).unwrap();
        let numbers: Vec<_> = nodes.iter().map(|node| (node.major, node.minor)).collect();
        assert_eq!(numbers, [(242, 336), (242, 337)]);
        assert_eq!(nodes[0].path, "/dev/nvidia-caps/nvidia-cap336");
        assert_eq!(nodes[0].host_path, Path::new("/run/nvidia/driver/dev/nvidia-caps/nvidia-cap336"));
    }

    #[test]
    fn a_driver_root_without_devices_leaves_them_to_the_node() {
        let dir = tempfile::tempdir().unwrap();
        let dev = DevRoot::open(dir.path(), Path::new("/home/kubernetes/bin/nvidia")).unwrap();
        assert_eq!(dev.node("/dev/null", "").unwrap().host_path, Path::new("/dev/null"));
    }
}
