// SPDX-License-Identifier: Apache-2.0
//! Renders the text of a spec file from the devices, files and mounts of a container. Pure: the caller has checked everything.
//!
//! A library is mounted under its SONAME in two directories, because no single one is trusted by the dynamic loaders of all
//! distributions: the triplet directory of the Debian family and `/usr/lib64` of the others. With both, no image needs a hook
//! or an environment variable.

use std::path::Path;

use dra_model::{ClaimUid, DeviceName, DeviceNode, DriverFile, DriverFiles, ShareId};

use crate::error::{RenderError, absolute};
use crate::mps::{self, MpsClient};
use crate::names::{self, Kind, Naming};
use crate::spec::{CdiDevice, CdiDeviceNode, CdiHook, CdiMount, ContainerEdits, Spec, minimum_version};

/// The instruction set of containers, which selects the library directory of the Debian family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// `x86_64-linux-gnu`.
    X86,
    /// `aarch64-linux-gnu`.
    Arm,
}

impl Architecture {
    /// The one this program was built for.
    pub const fn own() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Arm } else { Self::X86 }
    }

    fn library_dirs(self) -> [&'static str; 2] {
        match self {
            Self::X86 => ["/usr/lib/x86_64-linux-gnu", "/usr/lib64"],
            Self::Arm => ["/usr/lib/aarch64-linux-gnu", "/usr/lib64"],
        }
    }
}

/// One device of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimDevice {
    /// Name in its pool.
    pub device: DeviceName,
    pub share: Option<ShareId>,
    /// The nodes that clients of the device may open.
    pub nodes: Vec<DeviceNode>,
    /// For devices of an MPS daemon.
    pub mps: Option<MpsClient>,
}

/// The name and content of a spec file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedSpec {
    pub kind: Kind,
    pub bytes: Vec<u8>,
}

/// Additional names of a library, which programs open and which otherwise come from a development package.
const SECOND_NAMES: [(&str, &str); 2] =
    [("libcuda.so.1", "libcuda.so"), ("libnvidia-opticalflow.so.1", "libnvidia-opticalflow.so")];

const PROGRAM_DIR: &str = "/usr/bin";

/// As `nvidia-ctk` mounts them.
const MOUNT_OPTIONS: &[&str] = &["ro", "nosuid", "nodev", "rbind", "rprivate"];

/// In a container, on its own procfs.
const PARAMS: &str = "/proc/driver/nvidia/params";

/// The hook itself gives up after half a second. Only a machine that does not schedule it takes longer.
const HOOK_SECONDS: u32 = 10;

/// Read and write for all users. The device cgroup restricts the access.
const NODE_MODE: u32 = 0o666;

/// The user-space part of a driver version: libraries, programs and the nodes every CUDA program opens, and the hook that adds
/// the libraries to the loader's cache of the image.
pub fn base(
    naming: &Naming,
    files: &DriverFiles,
    control_nodes: &[DeviceNode],
    architecture: Architecture,
    hook_program: Option<&Path>,
) -> Result<RenderedSpec, RenderError> {
    let version = &files.version;
    if !names::is_version(version) {
        return Err(RenderError::Version(version.clone()));
    }
    if files.libraries.is_empty() || control_nodes.is_empty() {
        return Err(RenderError::Empty(format!("the base spec of driver {version}")));
    }
    let edits = ContainerEdits {
        env: Vec::new(),
        device_nodes: nodes(control_nodes)?,
        mounts: mounts(files, architecture)?,
        hooks: hook_program.map(|program| hook(program, files, architecture)).transpose()?.into_iter().collect(),
    };
    // Loaders refuse a device without edits of its own.
    let env = vec!["NVIDIA_VISIBLE_DEVICES=void".to_owned()];
    let device = CdiDevice { name: version.clone(), container_edits: ContainerEdits { env, ..Default::default() } };
    finish(naming, Kind::Base(version.clone()), vec![device], edits)
}

/// The devices of one claim. A device that several requests name is there once, and so is each share of it.
pub fn claim(naming: &Naming, uid: &ClaimUid, devices: &[ClaimDevice]) -> Result<RenderedSpec, RenderError> {
    let mut rendered: Vec<CdiDevice> = Vec::new();
    for ClaimDevice { device, share, nodes: device_nodes, mps } in devices {
        let name = names::claim_device_name(uid, device, share.as_ref());
        if device_nodes.is_empty() {
            return Err(RenderError::Empty(name));
        }
        if rendered.iter().all(|earlier| earlier.name != name) {
            let env = mps.as_ref().map(mps::env).unwrap_or_default();
            let mounts = mps.as_ref().map(mps::mounts).transpose()?.unwrap_or_default();
            let container_edits =
                ContainerEdits { env, device_nodes: nodes(device_nodes)?, mounts, ..Default::default() };
            rendered.push(CdiDevice { name, container_edits });
        }
    }
    if rendered.is_empty() {
        return Err(RenderError::Empty(format!("the spec of claim {uid}")));
    }
    finish(naming, Kind::Claim(uid.clone()), rendered, ContainerEdits::default())
}

fn finish(
    naming: &Naming,
    kind: Kind,
    devices: Vec<CdiDevice>,
    container_edits: ContainerEdits,
) -> Result<RenderedSpec, RenderError> {
    let cdi_version = minimum_version(&devices, &container_edits);
    let spec = Spec { cdi_version, kind: naming.kind(&kind), devices, container_edits };
    let mut bytes = serde_json::to_vec_pretty(&spec).map_err(|source| RenderError::Encode { source })?;
    bytes.push(b'\n');
    Ok(RenderedSpec { kind, bytes })
}

fn mounts(files: &DriverFiles, architecture: Architecture) -> Result<Vec<CdiMount>, RenderError> {
    let dirs = architecture.library_dirs();
    let libraries = files.libraries.iter().flat_map(|file| {
        let second = SECOND_NAMES.iter().filter(|(soname, _)| *soname == file.name).map(|(_, name)| *name);
        let names = [file.name.as_str()].into_iter().chain(second);
        names.flat_map(move |name| dirs.map(|dir| mount(file, dir, name)))
    });
    libraries.chain(files.programs.iter().map(|file| mount(file, PROGRAM_DIR, &file.name))).collect()
}

/// `createContainer`, because the mounts of the container are there and its root is writable at that point. The command line is
/// that of `driver/cdi-hook`.
fn hook(program: &Path, files: &DriverFiles, architecture: Architecture) -> Result<CdiHook, RenderError> {
    let path = absolute(program)?;
    let dirs = architecture.library_dirs().map(|dir| format!("--library-dir={dir}"));
    let libraries = files.libraries.iter().map(|file| format!("--library={}", file.name));
    let params = format!("--mask-params={PARAMS}");
    let args = ["gpu-cdi-hook".to_owned()].into_iter().chain(dirs).chain(libraries).chain([params]).collect();
    Ok(CdiHook { hook_name: "createContainer", path, args, env: vec!["LC_ALL=C".to_owned()], timeout: HOOK_SECONDS })
}

fn mount(file: &DriverFile, dir: &str, name: &str) -> Result<CdiMount, RenderError> {
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
        return Err(RenderError::FileName(name.to_owned()));
    }
    let host_path = absolute(&file.host_path)?;
    Ok(CdiMount { host_path, container_path: format!("{dir}/{name}"), options: MOUNT_OPTIONS })
}

fn nodes(nodes: &[DeviceNode]) -> Result<Vec<CdiDeviceNode>, RenderError> {
    nodes.iter().map(node).collect()
}

fn node(node: &DeviceNode) -> Result<CdiDeviceNode, RenderError> {
    let path = absolute(Path::new(&node.path))?;
    let host_path = Some(absolute(&node.host_path)?).filter(|host_path| *host_path != path);
    let (major, minor) = (node.major, node.minor);
    Ok(CdiDeviceNode { path, host_path, node_type: "c", major, minor, file_mode: NODE_MODE, permissions: "rw" })
}
