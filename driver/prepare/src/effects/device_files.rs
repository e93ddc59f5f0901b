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
        Ok(_) => Err(DeviceFileError::Other { path, major: node.major, minor: node.minor }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mode = if node.path.starts_with("/dev/nvidia-caps/") { CAPABILITY_MODE } else { MODE };
            create(&path, number, mode).map_err(|source| DeviceFileError::Create { path, source })
        }
        Err(source) => Err(DeviceFileError::Create { path, source }),
    }
}

/// Another process may create it at the same time.
fn create(path: &Path, number: u64, mode: u32) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    match mknodat(CWD, path, FileType::CharacterDevice, Mode::from_raw_mode(mode), number) {
        Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
        // Whatever the umask.
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(mode)),
    }
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
        fs::write(dev.path().join("nvidia1"), "a plain file").unwrap();
        assert!(matches!(ensure_one(dev.path(), &node("/dev/nvidia1", 1)), Err(DeviceFileError::Other { .. })));
        assert!(matches!(ensure_one(dev.path(), &node("/dev/nvidia1/x", 1)), Err(DeviceFileError::Create { .. })));
    }
}
