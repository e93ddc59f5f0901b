// SPDX-License-Identifier: Apache-2.0
//! Device files of the host at the paths that they have in containers.
//!
//! In a user namespace (`hostUsers: false`) a runtime cannot create device files. runc binds the file of the host at the path in
//! the container instead, whatever host path the CDI spec names, and fails where there is none (runc v1.5.2,
//! `libcontainer/rootfs_linux.go`, `createDeviceNode`). Capability files of MIG devices often do not exist until a program needs
//! one, and a driver root may have a directory `dev` of its own. The files are those that NVIDIA's programs would create, and like
//! them they stay until the host is booted again.

use std::borrow::Cow;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use dra_model::{Advice, DeviceNode, explain};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use tracing::warn;

/// Of capability files, as `DeviceFileMode` in procfs says (292).
const CAPABILITY_MODE: u32 = 0o444;
/// Of all others, the default of the NVIDIA driver.
const MODE: u32 = 0o666;

/// A container in a user namespace would not start.
#[derive(Debug, thiserror::Error)]
enum DeviceFileError {
    #[error("{} is not the character device {major}:{minor}", path.display())]
    Other { path: PathBuf, major: u32, minor: u32 },
    #[error("failed to create {}", path.display())]
    Create {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Advice for DeviceFileError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Other { .. } => Some("remove it".into()),
            Self::Create { .. } => Some("make its directory writable".into()),
        }
    }
}

/// Creates those that are missing. Containers outside of user namespaces need none, so a failure is logged only.
pub(crate) fn ensure<'a>(dev_dir: &Path, nodes: impl IntoIterator<Item = &'a DeviceNode>) {
    for node in nodes {
        if let Err(error) = ensure_one(dev_dir, node) {
            warn!(error = explain(&error), "containers of pods with hostUsers: false cannot have this device");
        }
    }
}

fn ensure_one(dev_dir: &Path, node: &DeviceNode) -> Result<(), DeviceFileError> {
    let path = dev_dir.join(node.path.trim_start_matches("/dev/"));
    let number = makedev(node.major, node.minor);
    match fs::symlink_metadata(&path) {
        Ok(found) if found.file_type().is_char_device() && found.rdev() == number => Ok(()),
        // The number of these devices changes when the driver is loaded again, and this program may have made the file.
        Ok(found) if found.file_type().is_char_device() && is_capability(node) => {
            create(&path, number, CAPABILITY_MODE).map_err(|source| DeviceFileError::Create { path, source })
        }
        Ok(_) => Err(DeviceFileError::Other { path, major: node.major, minor: node.minor }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mode = if is_capability(node) { CAPABILITY_MODE } else { MODE };
            create(&path, number, mode).map_err(|source| DeviceFileError::Create { path, source })
        }
        Err(source) => Err(DeviceFileError::Create { path, source }),
    }
}

fn is_capability(node: &DeviceNode) -> bool {
    node.path.starts_with("/dev/nvidia-caps/")
}

/// In one step with its mode, whatever the umask: a file that was cut short would look complete to the next call.
fn create(path: &Path, number: u64, mode: u32) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new_path = path.with_file_name(format!(".{name}.gpu-dra"));
    match fs::remove_file(&new_path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    mknodat(CWD, &new_path, FileType::CharacterDevice, Mode::from_raw_mode(mode), number)?;
    fs::set_permissions(&new_path, Permissions::from_mode(mode))?;
    fs::rename(&new_path, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(path: &str, minor: u32) -> DeviceNode {
        DeviceNode { path: path.to_owned(), host_path: PathBuf::from(path), major: 240, minor }
    }

    #[test]
    fn missing_files_are_created_and_others_stay() {
        let dev = tempfile::tempdir().unwrap();
        let (gpu, capability) = (node("/dev/nvidia0", 0), node("/dev/nvidia-caps/nvidia-cap3", 3));
        for _ in 0..2 {
            ensure(dev.path(), [&gpu, &capability]);
            for (path, minor, mode) in [("nvidia0", 0, 0o666), ("nvidia-caps/nvidia-cap3", 3, 0o444)] {
                let found = fs::symlink_metadata(dev.path().join(path)).unwrap();
                assert_eq!((found.rdev(), found.mode() & 0o7777), (makedev(240, minor), mode), "{path}");
            }
        }
        assert!(matches!(ensure_one(dev.path(), &node("/dev/nvidia0", 1)), Err(DeviceFileError::Other { .. })));
        assert_eq!(fs::symlink_metadata(dev.path().join("nvidia0")).unwrap().rdev(), makedev(240, 0));
        ensure(dev.path(), [&node("/dev/nvidia-caps/nvidia-cap3", 4)]);
        assert_eq!(fs::symlink_metadata(dev.path().join("nvidia-caps/nvidia-cap3")).unwrap().rdev(), makedev(240, 4));
        assert_eq!(fs::read_dir(dev.path().join("nvidia-caps")).unwrap().count(), 1);
        fs::write(dev.path().join("nvidia1"), "a plain file").unwrap();
        assert!(matches!(ensure_one(dev.path(), &node("/dev/nvidia1", 1)), Err(DeviceFileError::Other { .. })));
        assert!(matches!(ensure_one(dev.path(), &node("/dev/nvidia1/x", 1)), Err(DeviceFileError::Create { .. })));
    }
}
