// SPDX-License-Identifier: Apache-2.0
//! What the kernel and the NVIDIA module publish in procfs: device majors, MIG capability minors, the boot ID.
//!
//! Formats: `Documentation/filesystems/proc.rst` for `devices`, and
//! `kernel-open/nvidia/nv-caps.c` of NVIDIA's open kernel modules for the capabilities.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use dra_model::Advice;

/// procfs does not contain what the driver needs.
#[derive(Debug, thiserror::Error)]
pub enum ProcError {
    #[error("failed to read {}", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} lists no character device `{name}`", path.display())]
    NoMajor { path: PathBuf, name: &'static str },
    #[error("no capability for {capability} in {}", path.display())]
    NoCapability {
        /// Directory of the driver's capabilities.
        path: PathBuf,
        capability: Capability,
    },
}

impl Advice for ProcError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Unreadable { .. } => None,
            Self::NoMajor { .. } => Some("load the NVIDIA kernel module".into()),
            Self::NoCapability { .. } => Some("check that the MIG device still exists".into()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("failed to read the boot ID from {}", path.display())]
pub struct BootIdError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The right to use a GPU instance, or a compute instance in it; displayed as a path, `gpu0/gi1/ci0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    /// Minor number of the GPU, not its index.
    pub gpu_minor: u32,
    pub gpu_instance: u32,
    /// Compute instance id; absent for the capability of the GPU instance itself.
    pub compute_instance: Option<u32>,
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gpu{}/gi{}", self.gpu_minor, self.gpu_instance)?;
        self.compute_instance.map_or(Ok(()), |compute| write!(f, "/ci{compute}"))
    }
}

/// The name under which the driver registers MIG capability devices.
pub const MIG_CAPABILITIES: &str = "nvidia-caps";

/// The major number of a kind of character device.
pub fn char_major(proc_root: &Path, name: &'static str) -> Result<u32, ProcError> {
    let path = proc_root.join("devices");
    let text = read(&path)?;
    parse_char_major(&text, name).ok_or(ProcError::NoMajor { path, name })
}

/// The minor number of a capability.
///
/// The file of the instance is read first, because it exists exactly as long as the instance. Drivers without such files have
/// the static table `nvidia-caps/mig-minors`.
pub fn capability_minor(proc_root: &Path, capability: Capability) -> Result<u32, ProcError> {
    let dir = proc_root.join("driver/nvidia/capabilities");
    if let Ok(text) = std::fs::read_to_string(access_path(&dir, capability)) {
        return parse_access(&text).ok_or(ProcError::NoCapability { path: dir, capability });
    }
    // If the directory of the GPU exists, a missing file means a missing instance, which the table does not show.
    let has_files = dir.join(format!("gpu{}/mig", capability.gpu_minor)).is_dir();
    let table_path = proc_root.join("driver/nvidia-caps/mig-minors");
    match std::fs::read_to_string(table_path) {
        Ok(text) if !has_files => {
            parse_minors(&text, capability).ok_or(ProcError::NoCapability { path: dir, capability })
        }
        Ok(_) | Err(_) => Err(ProcError::NoCapability { path: dir, capability }),
    }
}

/// The version of the loaded NVIDIA module, such as `550.54.15`; nothing while none is loaded.
pub fn loaded_driver(proc_root: &Path) -> Option<String> {
    parse_version(&std::fs::read_to_string(proc_root.join("driver/nvidia/version")).ok()?)
}

/// The first word of digits and points in `NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 …`.
fn parse_version(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("NVRM version:"))?;
    let is_version = |word: &&str| word.contains('.') && word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    line.split_whitespace().find(is_version).map(str::to_owned)
}

/// The ID of this boot of the kernel.
pub fn boot_id(proc_root: &Path) -> Result<String, BootIdError> {
    let path = proc_root.join("sys/kernel/random/boot_id");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(source) => Err(BootIdError { path, source }),
    }
}

fn read(path: &Path) -> Result<String, ProcError> {
    std::fs::read_to_string(path).map_err(|source| ProcError::Unreadable { path: path.to_owned(), source })
}

fn access_path(dir: &Path, capability: Capability) -> PathBuf {
    let mut path = dir.join(format!("gpu{}/mig/gi{}", capability.gpu_minor, capability.gpu_instance));
    if let Some(compute) = capability.compute_instance {
        path.push(format!("ci{compute}"));
    }
    path.join("access")
}

/// Finds `242 nvidia-caps` in the character part of `/proc/devices`.
fn parse_char_major(text: &str, name: &str) -> Option<u32> {
    let lines = text.lines().skip_while(|line| *line != "Character devices:").skip(1);
    lines.take_while(|line| *line != "Block devices:").find_map(|line| {
        let (major, device) = line.trim().split_once(' ')?;
        (device.trim() == name).then(|| major.parse().ok())?
    })
}

/// Finds `DeviceFileMinor: 12`.
fn parse_access(text: &str) -> Option<u32> {
    text.lines().find_map(|line| line.strip_prefix("DeviceFileMinor:")?.trim().parse().ok())
}

/// Finds `gpu0/gi1/ci0/access 13`.
fn parse_minors(text: &str, capability: Capability) -> Option<u32> {
    let key = format!("{capability}/access ");
    text.lines().find_map(|line| line.strip_prefix(&key)?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn capability(gpu_minor: u32, gpu_instance: u32, compute_instance: Option<u32>) -> Capability {
        Capability { gpu_minor, gpu_instance, compute_instance }
    }

    #[test]
    fn the_version_of_the_loaded_driver_is_read_from_either_kind_of_module() {
        let proc = tempfile::tempdir().unwrap();
        assert_eq!(loaded_driver(proc.path()), None);
        for (line, version) in [
            (
                "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024",
                Some("550.54.15"),
            ),
            (
                "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.95.05  Release Build  (dvs-builder@U22)",
                Some("580.95.05"),
            ),
            ("NVRM version: NVIDIA UNIX x86_64 Kernel Module", None),
            ("GCC version:  gcc version 12.2.0", None),
        ] {
            write(proc.path(), "driver/nvidia/version", &format!("{line}\nGCC version:  gcc version 13.3.0\n"));
            assert_eq!(loaded_driver(proc.path()).as_deref(), version, "{line}");
        }
    }

    #[test]
    fn majors_are_those_of_character_devices() {
        let text =
            "Character devices:\n  1 mem\n195 nvidia\n242 nvidia-caps\n 10 misc\n\nBlock devices:\n  7 nvidia-uvm\n";
        for (given, expect) in
            [("nvidia-caps", Some(242)), ("mem", Some(1)), ("nvidia", Some(195)), ("nvidia-uvm", None), ("", None)]
        {
            assert_eq!(parse_char_major(text, given), expect, "{given}");
        }
        assert_eq!(parse_char_major("", "mem"), None);
    }

    #[test]
    fn a_capability_file_wins_over_the_table() {
        let proc = tempfile::tempdir().unwrap();
        let gi = capability(2, 1, None);
        let ci = capability(2, 1, Some(0));
        write(proc.path(), "driver/nvidia-caps/mig-minors", "config 1\ngpu2/gi1/access 282\ngpu2/gi1/ci0/access 283\n");
        assert_eq!(capability_minor(proc.path(), gi).unwrap(), 282);
        assert_eq!(capability_minor(proc.path(), ci).unwrap(), 283);
        let access = "DeviceFileMinor: 7\nDeviceFileMode: 292\nDeviceFileModify: 1\n";
        write(proc.path(), "driver/nvidia/capabilities/gpu2/mig/gi1/access", access);
        assert_eq!(capability_minor(proc.path(), gi).unwrap(), 7);
        let gone = capability_minor(proc.path(), ci).unwrap_err().to_string();
        assert!(gone.contains("gpu2/gi1/ci0"), "the static table lists instances that do not exist: {gone}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let proc = tempfile::tempdir().unwrap();
        assert!(char_major(proc.path(), MIG_CAPABILITIES).unwrap_err().to_string().contains("devices"));
        write(proc.path(), "devices", "Character devices:\n  1 mem\n");
        assert!(char_major(proc.path(), MIG_CAPABILITIES).unwrap_err().to_string().contains("`nvidia-caps`"));
        assert!(capability_minor(proc.path(), capability(0, 1, None)).unwrap_err().to_string().contains("gpu0/gi1"));
        assert!(boot_id(proc.path()).unwrap_err().to_string().contains("boot_id"));
        write(proc.path(), "sys/kernel/random/boot_id", "0f2b\n");
        assert_eq!(boot_id(proc.path()).unwrap(), "0f2b");
    }
}
