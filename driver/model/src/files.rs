// SPDX-License-Identifier: Apache-2.0
//! Files of the NVIDIA driver that a container needs: found on the host, rendered into CDI specs.

use std::path::PathBuf;

use crate::capability::Capability;

/// The user-space part of an installed driver, as containers get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverFiles {
    /// Driver version as it is written in file names, such as `550.54.15`.
    pub version: String,
    /// Shared libraries, ordered by SONAME.
    pub libraries: Vec<DriverFile>,
    /// Programs such as `nvidia-smi`, ordered by name.
    pub programs: Vec<DriverFile>,
    /// Modules of other libraries, configuration, firmware and sockets.
    pub others: Vec<PlacedFile>,
}

/// A library or program of the driver.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DriverFile {
    /// Name in the container: the SONAME of a library, the name of a program.
    pub name: String,
    /// The real file (no symlink), as the host names it; a container runtime can bind it.
    pub host_path: PathBuf,
    /// Containers with one of these get it.
    pub capabilities: &'static [Capability],
}

/// A file of the driver with a place of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlacedFile {
    pub place: Place,
    /// The real file (no symlink), as the host names it.
    pub host_path: PathBuf,
    /// Containers with one of these get it.
    pub capabilities: &'static [Capability],
}

/// The place of a file in a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Path below each directory of libraries, such as `vdpau/libvdpau_nvidia.so.1`.
    Libraries(String),
    /// Absolute path of a file.
    Path(String),
    /// Absolute path of the socket of a daemon.
    Socket(String),
}

/// A character device that a container gets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceNode {
    /// Path in the container, such as `/dev/nvidia0`.
    pub path: String,
    /// Path as the host names it; differs from `path` when the driver root has a `dev` of its own.
    pub host_path: PathBuf,
    /// Read from the node or from `/proc/devices`, since the kernel assigns it dynamically.
    pub major: u32,
    pub minor: u32,
}

/// A device of the driver that belongs to no GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlNode {
    pub node: DeviceNode,
    /// Containers with one of these get it.
    pub capabilities: &'static [Capability],
}
