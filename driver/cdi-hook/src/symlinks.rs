// SPDX-License-Identifier: Apache-2.0
//! The symbolic links of the container, on its root filesystem.
//!
//! A link or an empty file of the image is replaced; an empty file is what an earlier container left where a library was
//! mounted. Everything else of the image stays.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, mkdirat, readlinkat, statat, symlinkat};
use rustix::io::Errno;

use crate::arguments::Symlink;
use crate::replace::replace;
use crate::resolve::ContainerRoot;

/// A symbolic link is not there.
#[derive(Debug, thiserror::Error)]
pub enum SymlinkError {
    #[error("failed to open or create the directory {} of the root filesystem", dir.display())]
    Dir {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the image has another file at {}", .0.display())]
    Occupied(PathBuf),
    #[error("failed to create the symbolic link {}", link.display())]
    Create {
        link: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Ensures that a link is there.
pub fn ensure(root: &ContainerRoot, symlink: &Symlink) -> Result<(), SymlinkError> {
    let dir =
        ensure_dir(root, &symlink.dir).map_err(|source| SymlinkError::Dir { dir: symlink.dir.clone(), source })?;
    let failed = |source: io::Error| SymlinkError::Create { link: symlink.path(), source };
    match existing(&dir, &symlink.name, &symlink.target).map_err(failed)? {
        Existing::Equal => Ok(()),
        Existing::Foreign => Err(SymlinkError::Occupied(symlink.path())),
        Existing::Nothing | Existing::Replaceable => {
            let make = |name: &OsStr| Ok(symlinkat(&symlink.target, &dir, name)?);
            replace(&dir, &symlink.name, make).map_err(failed)
        }
    }
}

/// What has the name of the link.
enum Existing {
    Nothing,
    Equal,
    Replaceable,
    Foreign,
}

fn existing(dir: impl AsFd, name: &OsStr, target: &Path) -> io::Result<Existing> {
    let file = match statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(Existing::Nothing),
        Err(error) => return Err(error.into()),
    };
    match FileType::from_raw_mode(file.st_mode) {
        FileType::Symlink => {
            let found = readlinkat(&dir, name, Vec::new())?;
            let is_equal = found.as_bytes() == target.as_os_str().as_encoded_bytes();
            Ok(if is_equal { Existing::Equal } else { Existing::Replaceable })
        }
        FileType::RegularFile if file.st_size == 0 => Ok(Existing::Replaceable),
        FileType::RegularFile
        | FileType::Directory
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Ok(Existing::Foreign),
    }
}

/// Opens a directory, with its parents created as far as they are missing.
fn ensure_dir(root: &ContainerRoot, path: &Path) -> io::Result<OwnedFd> {
    let missing = match root.own_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => error,
        found => return found,
    };
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(missing) };
    match mkdirat(ensure_dir(root, parent)?, name, Mode::from_raw_mode(0o755)) {
        // A dangling link has the name, if the directory is still missing.
        Ok(()) | Err(Errno::EXIST) => root.own_dir(path),
        Err(error) => Err(error.into()),
    }
}
