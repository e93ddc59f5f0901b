// SPDX-License-Identifier: Apache-2.0
//! File operations for the tree.

use std::io;
use std::path::{Path, PathBuf};

/// Why a file of the tree could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error("failed to make the directory {}", path.display())]
    MakeDir { path: PathBuf, source: io::Error },
    /// A file of the tree.
    #[error("failed to write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// A symbolic link, such as a SONAME.
    #[error("failed to link {}", path.display())]
    Link { path: PathBuf, source: io::Error },
    /// A character node.
    #[error("failed to make the device node {}", path.display())]
    Node { path: PathBuf, source: io::Error },
    /// A library or program.
    #[error("failed to copy {} to {}", from.display(), to.display())]
    Copy {
        from: PathBuf,
        /// Where it should be in the tree.
        to: PathBuf,
        source: io::Error,
    },
    /// What an earlier machine or instance left.
    #[error("failed to remove {}", path.display())]
    Remove { path: PathBuf, source: io::Error },
    /// A directory whose entries are needed.
    #[error("failed to list {}", path.display())]
    List { path: PathBuf, source: io::Error },
}

pub(crate) fn make_dir(path: &Path) -> Result<(), TreeError> {
    std::fs::create_dir_all(path).map_err(|source| TreeError::MakeDir { path: path.to_path_buf(), source })
}

/// Writes a file, making its directory, only if its content differs.
pub(crate) fn write_file(path: &Path, content: &[u8]) -> Result<(), TreeError> {
    if std::fs::read(path).is_ok_and(|present| present == content) {
        return Ok(());
    }
    if let Some(dir) = path.parent() {
        make_dir(dir)?;
    }
    std::fs::write(path, content).map_err(|source| TreeError::Write { path: path.to_path_buf(), source })
}

/// Makes a symbolic link, replacing what is there.
pub(crate) fn link(path: &Path, target: &Path) -> Result<(), TreeError> {
    if let Some(dir) = path.parent() {
        make_dir(dir)?;
    }
    remove(path)?;
    std::os::unix::fs::symlink(target, path).map_err(|source| TreeError::Link { path: path.to_path_buf(), source })
}

/// Removes a file or a directory with all in it; nothing there is fine.
pub(crate) fn remove(path: &Path) -> Result<(), TreeError> {
    let failed = |source| TreeError::Remove { path: path.to_path_buf(), source };
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path).map_err(failed),
        Ok(_) => std::fs::remove_file(path).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// The paths in a directory.
pub(crate) fn list(dir: &Path) -> Result<Vec<PathBuf>, TreeError> {
    let failed = |source| TreeError::List { path: dir.to_path_buf(), source };
    let entries = std::fs::read_dir(dir).map_err(failed)?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed)).collect()
}
