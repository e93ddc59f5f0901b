// SPDX-License-Identifier: Apache-2.0
//! Directories that only their owner can enter.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

/// Read, write and enter for the owner, nothing for other users.
const MODE: u32 = 0o700;

/// Makes a directory that no other user can enter. An existing one gets that mode; missing parents get the usual mode.
pub fn make_private_dir(dir: &Path) -> io::Result<()> {
    if let Some(parent) = dir.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(MODE).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !dir.is_dir() => Err(error),
        Err(_) if dir.metadata()?.permissions().mode() & 0o777 != MODE => {
            std::fs::set_permissions(dir, Permissions::from_mode(MODE))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_dir_has_mode_700_whether_it_is_new_or_existed() {
        let dir = tempfile::tempdir().unwrap();
        let old = dir.path().join("old");
        std::fs::create_dir(&old).unwrap();
        std::fs::set_permissions(&old, Permissions::from_mode(0o755)).unwrap();
        for path in [old, dir.path().join("parent/new")] {
            make_private_dir(&path).unwrap();
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700, "{}", path.display());
        }
        assert_eq!(dir.path().join("parent").metadata().unwrap().permissions().mode() & 0o700, 0o700);
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(make_private_dir(&dir.path().join("file")).is_err());
    }
}
