// SPDX-License-Identifier: Apache-2.0
//! Files of the NVIDIA driver that a container needs: found on the host, rendered into CDI specs.

use std::path::PathBuf;

/// The user-space part of an installed driver, as containers get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverFiles {
    /// Driver version as it is written in file names, such as `550.54.15`.
    pub version: String,
    /// Shared libraries, ordered by SONAME.
    pub libraries: Vec<DriverFile>,
    /// Programs such as `nvidia-smi`, ordered by name.
    pub programs: Vec<DriverFile>,
}

/// One file of the driver.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DriverFile {
    /// Name in the container: the SONAME of a library, the name of a program.
    pub name: String,
    /// The real file (no symlink), as the host names it; a container runtime can bind it.
    pub host_path: PathBuf,
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
