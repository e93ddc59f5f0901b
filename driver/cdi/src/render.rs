// SPDX-License-Identifier: Apache-2.0
//! Renders the text of a spec file from the devices, files and mounts of a container. Pure: the caller has checked everything.
//!
//! A library is mounted under its SONAME in two directories, because no single one is trusted by the dynamic loaders of all
//! distributions: the triplet directory of the Debian family and `/usr/lib64` of the others. With both, no image needs a hook
//! or an environment variable. It is mounted under the name of its file too, which has the version of the driver: programs
//! that look for the version read it from there.

use std::path::Path;

use dra_model::{
    Capabilities, Capability, ClaimUid, ControlNode, DeviceName, DeviceNode, DriverFile, DriverFiles, Place,
    PlacedFile, ShareId,
};

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

/// Another name of a library, by which programs open it; below the directories of libraries.
struct SecondName {
    soname: &'static str,
    name: &'static str,
    capabilities: &'static [Capability],
}

/// The links that `nvidia-ctk` makes by a hook (nvidia-container-toolkit, `pkg/nvcdi`).
const SECOND_NAMES: [SecondName; 4] = [
    SecondName { soname: "libcuda.so.1", name: "libcuda.so", capabilities: &[Capability::Compute] },
    SecondName {
        soname: "libnvidia-opticalflow.so.1",
        name: "libnvidia-opticalflow.so",
        capabilities: &[Capability::Video],
    },
    SecondName { soname: "libGLX_nvidia.so.0", name: "libGLX_indirect.so.0", capabilities: &[Capability::Graphics] },
    // Mesa's libgbm opens it for the nodes of `nvidia-drm`.
    SecondName {
        soname: "libnvidia-allocator.so.1",
        name: "gbm/nvidia-drm_gbm.so",
        capabilities: &[Capability::Graphics],
    },
];

const PROGRAM_DIR: &str = "/usr/bin";

/// As `nvidia-ctk` mounts them.
const MOUNT_OPTIONS: &[&str] = &["ro", "nosuid", "nodev", "rbind", "rprivate"];

/// In a container, on its own procfs.
const PARAMS: &str = "/proc/driver/nvidia/params";

/// The hook itself gives up after half a second. Only a machine that does not schedule it takes longer.
const HOOK_SECONDS: u32 = 10;

/// As `nvidia-ctk` mounts the sockets of daemons.
const SOCKET_OPTIONS: &[&str] = &["nosuid", "nodev", "noexec", "rbind", "rprivate"];

/// Read and write for all users. The device cgroup restricts the access.
const NODE_MODE: u32 = 0o666;

/// The user-space part of a driver version: one device with compute and utility, and one with each capability alone, since
/// [`Naming::base_devices`] also names those that it needs. Each has the hook that adds its libraries to the loader's cache of the
/// image. What a container needs for any capability is in the edits of the spec.
pub fn base(
    naming: &Naming,
    files: &DriverFiles,
    control_nodes: &[ControlNode],
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
    let edits = |of: &Part<'_>| base_edits(files, control_nodes, architecture, of);
    let device = |name: String, of: &[Capability]| {
        let is_needed = |needs: &[Capability]| of.iter().any(|capability| needs.contains(capability));
        let mut container_edits = edits(&|needs| !is_for_all(needs) && is_needed(needs))?;
        // Loaders refuse a device without edits of its own.
        container_edits.env = vec!["NVIDIA_VISIBLE_DEVICES=void".to_owned()];
        let hook = hook_program.map(|program| hook(program, files, architecture, &is_needed));
        container_edits.hooks = hook.transpose()?.into_iter().collect();
        Ok(CdiDevice { name, container_edits })
    };
    let usual: Vec<Capability> = Capabilities::default().iter().collect();
    let alone = |one| device(names::base_device_name(version, one), &[one]);
    let devices = [device(version.clone(), &usual)].into_iter().chain(Capability::ALL.map(alone));
    finish(naming, Kind::Base(version.clone()), devices.collect::<Result<_, _>>()?, edits(&is_for_all)?)
}

/// Selects the files and nodes that these capabilities need.
type Part<'a> = dyn Fn(&[Capability]) -> bool + 'a;

fn is_for_all(needs: &[Capability]) -> bool {
    Capability::ALL.iter().all(|capability| needs.contains(capability))
}

fn base_edits(
    files: &DriverFiles,
    control_nodes: &[ControlNode],
    architecture: Architecture,
    part: &Part<'_>,
) -> Result<ContainerEdits, RenderError> {
    let control_nodes = control_nodes.iter().filter(|control| part(control.capabilities));
    let device_nodes = control_nodes.map(|control| node(&control.node)).collect::<Result<_, _>>()?;
    Ok(ContainerEdits { device_nodes, mounts: mounts(files, architecture, part)?, ..Default::default() })
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
            let device_nodes = nodes(device_nodes)?;
            let container_edits = ContainerEdits { env, device_nodes, mounts, ..Default::default() };
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
    // Runtimes read every spec of the directory again when one changes, so short text starts pods faster.
    let mut bytes = serde_json::to_vec(&spec).map_err(|source| RenderError::Encode { source })?;
    bytes.push(b'\n');
    Ok(RenderedSpec { kind, bytes })
}

fn mounts(files: &DriverFiles, architecture: Architecture, part: &Part<'_>) -> Result<Vec<CdiMount>, RenderError> {
    let dirs = architecture.library_dirs();
    let mut mounts = Vec::new();
    for library in files.libraries.iter().filter(|library| part(library.capabilities)) {
        for name in library_names(library, part)? {
            mounts.push(mount(&library.host_path, &dirs, &name, MOUNT_OPTIONS)?);
        }
    }
    for program in files.programs.iter().filter(|program| part(program.capabilities)) {
        let name = file_name(&program.name)?;
        mounts.push(mount(&program.host_path, &[PROGRAM_DIR], name, MOUNT_OPTIONS)?);
    }
    for PlacedFile { place, host_path, .. } in files.others.iter().filter(|file| part(file.capabilities)) {
        mounts.push(match place {
            Place::Libraries(below) => mount(host_path, &dirs, below, MOUNT_OPTIONS)?,
            Place::Path(path) => mount(host_path, &[""], path.trim_start_matches('/'), MOUNT_OPTIONS)?,
            Place::Socket(path) => mount(host_path, &[""], path.trim_start_matches('/'), SOCKET_OPTIONS)?,
        });
    }
    Ok(mounts.into_iter().flatten().collect())
}

/// `createContainer`, because the mounts of the container are there and its root is writable at that point. The command line is
/// that of `driver/cdi-hook`.
fn hook(
    program: &Path,
    files: &DriverFiles,
    architecture: Architecture,
    part: &Part<'_>,
) -> Result<CdiHook, RenderError> {
    let path = absolute(program)?;
    let dirs = architecture.library_dirs().map(|dir| format!("--library-dir={dir}"));
    let libraries = files.libraries.iter().filter(|library| part(library.capabilities));
    let libraries = libraries.map(|library| format!("--library={}", library.name));
    let params = format!("--mask-params={PARAMS}");
    let args = ["gpu-cdi-hook".to_owned()].into_iter().chain(dirs).chain(libraries).chain([params]).collect();
    Ok(CdiHook { hook_name: "createContainer", path, args, env: vec!["LC_ALL=C".to_owned()], timeout: HOOK_SECONDS })
}

/// The SONAME, the name of the file if it is another one, and second names.
fn library_names(library: &DriverFile, part: &Part<'_>) -> Result<Vec<String>, RenderError> {
    let soname = file_name(&library.name)?;
    let real = library.host_path.file_name().and_then(|name| name.to_str()).unwrap_or(soname);
    let second = SECOND_NAMES.iter().filter(|second| second.soname == soname && part(second.capabilities));
    let mut names = vec![soname.to_owned()];
    names.extend(Some(real).filter(|real| *real != soname).map(str::to_owned));
    names.extend(second.map(|second| second.name.to_owned()));
    Ok(names)
}

/// One mount in each directory.
fn mount(
    host_path: &Path,
    dirs: &[&str],
    below: &str,
    options: &'static [&'static str],
) -> Result<Vec<CdiMount>, RenderError> {
    below.split('/').try_for_each(|name| file_name(name).map(drop))?;
    let host_path = absolute(host_path)?;
    let mount = |dir| CdiMount { host_path: host_path.clone(), container_path: format!("{dir}/{below}"), options };
    Ok(dirs.iter().map(mount).collect())
}

fn file_name(name: &str) -> Result<&str, RenderError> {
    let is_name = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
    is_name.then_some(name).ok_or_else(|| RenderError::FileName(name.to_owned()))
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
