// SPDX-License-Identifier: Apache-2.0
//! The SELinux label of what a daemon shares with its clients.
//!
//! Directories below `/run` have a label that processes of containers (`container_t`) may not use. The label here is the one of
//! container files without categories, which every container may use; new files below a directory get its type. NVIDIA's device
//! plugin labels the directory of its daemon in the same way (`cmd/mps-control-daemon/mps/daemon.go`).

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{XattrFlags, lsetxattr};

const ATTRIBUTE: &str = "security.selinux";

/// With the NUL byte that SELinux stores.
const LABEL: &[u8] = b"system_u:object_r:container_file_t:s0\0";

/// The kernel lists its file system only if SELinux is on, whether it is mounted or not.
const FILE_SYSTEMS: &str = "/proc/filesystems";

/// Lets every container use a file or directory, if the kernel has SELinux.
pub(crate) fn share(path: &Path) -> io::Result<()> {
    if is_on(Path::new(FILE_SYSTEMS)) { label(path) } else { Ok(()) }
}

fn is_on(file_systems: &Path) -> bool {
    let listed = fs::read_to_string(file_systems).unwrap_or_default();
    listed.lines().any(|line| line.split_whitespace().next_back() == Some("selinuxfs"))
}

fn label(path: &Path) -> io::Result<()> {
    Ok(lsetxattr(path, ATTRIBUTE, LABEL, XattrFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_with_selinux_lists_its_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("filesystems");
        for (text, expect) in [("nodev\tsysfs\nnodev\tselinuxfs\n\text4\n", true), ("nodev\tsysfs\n\text4\n", false)] {
            fs::write(&path, text).unwrap();
            assert_eq!(is_on(&path), expect, "{text}");
        }
        assert!(!is_on(&dir.path().join("missing")));
    }

    /// Without SELinux the kernel stores the attribute too.
    #[test]
    fn the_label_is_stored_on_the_directory_itself() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        label(dir.path()).unwrap();
        label(&link).unwrap();
        for path in [dir.path(), &link] {
            let mut found = [0; 64];
            let length = rustix::fs::lgetxattr(path, ATTRIBUTE, &mut found).unwrap();
            assert_eq!(&found[..length], LABEL, "{}", path.display());
        }
    }
}
