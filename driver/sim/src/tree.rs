// SPDX-License-Identifier: Apache-2.0
//! The files of a simulated node: driver root, `/dev`, `/proc` and sysfs below one directory.
//!
//! In: a [`State`] and a directory. Out: what the kernel, the driver's installer and `nvidia-modprobe` would have put there.
//!
//! ```text
//! usr/lib/x86_64-linux-gnu  driver_files   libraries with SONAME links, programs
//! dev                       devices        character nodes, majors of their own so that no real GPU is reached
//! proc sys                  kernel         what the NVIDIA module and the PCI core show
//! …/capabilities, caps      instances      the part that follows MIG instances, redrawn with every change
//! ```
//!
//! It never touches anything outside the directory.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::state::{Driver, State};

pub mod devices;
pub mod driver_files;
pub mod elf;
pub mod instances;
pub mod kernel;

/// Why a file of the tree could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A directory of the tree.
    #[error("failed to make the directory {}", path.display())]
    MakeDir {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the tree.
    #[error("failed to write {}", path.display())]
    Write {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A symbolic link, such as a SONAME.
    #[error("failed to link {}", path.display())]
    Link {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A character node.
    #[error("failed to make the device node {}", path.display())]
    Node {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A library or program.
    #[error("failed to copy {} to {}", from.display(), to.display())]
    Copy {
        /// Where it is.
        from: PathBuf,
        /// Where it should be in the tree.
        to: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What an earlier machine or instance left.
    #[error("failed to remove {}", path.display())]
    Remove {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory whose entries are needed.
    #[error("failed to list {}", path.display())]
    List {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Draws everything that follows from the state. Libraries and programs are [`driver_files::install`]'s.
pub fn draw(tree_dir: &Path, state: &State) -> Result<devices::NodeKind, TreeError> {
    kernel::draw(tree_dir, state)?;
    let kind = devices::draw(tree_dir, state)?;
    instances::draw_new(tree_dir, state)?;
    instances::erase_gone(tree_dir, state)?;
    Ok(kind)
}

/// Removes what an earlier machine left in the tree; a directory that is no tree is left alone.
pub fn clear(tree_dir: &Path) -> Result<(), TreeError> {
    if !is_drawn(tree_dir) {
        return Ok(());
    }
    for part in ["proc/driver/nvidia", "proc/driver/nvidia-caps", "sys/bus/pci", "dev/nvidia-caps"] {
        remove(&tree_dir.join(part))?;
    }
    for (dir, prefix) in [("sys/devices", "pci"), ("dev", "nvidia")] {
        let own = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
        for path in list(&tree_dir.join(dir))?.iter().filter(|path| own(path)) {
            remove(path)?;
        }
    }
    Ok(())
}

/// Draws the kernel's part anew after the driver or the machine went away or came back.
pub fn redraw_driver(tree_dir: &Path, state: &State) -> Result<(), TreeError> {
    match state.driver {
        Driver::Loaded => draw(tree_dir, state).map(|_| ()),
        Driver::Unloaded => kernel::erase_driver(tree_dir, state),
    }
}

/// The directory whose files have to follow a change seen through `root_dir`: that directory if the tree is there, else the
/// one where `gpu-sim init` made it if that is the same machine. A container that sees neither draws nothing.
pub(crate) fn drawn_dir(root_dir: &Path, state: &State) -> Option<PathBuf> {
    if is_drawn(root_dir) {
        return Some(root_dir.to_path_buf());
    }
    let made_at = state.tree_dir.clone()?;
    (is_drawn(&made_at) && is_same_machine(&made_at, root_dir)).then_some(made_at)
}

/// Whether `proc` below the directory was drawn by this module and is no real procfs.
pub fn is_drawn(dir: &Path) -> bool {
    std::fs::read_to_string(dir.join("proc/driver/nvidia/version")).is_ok_and(|text| text.contains(kernel::MARK))
}

fn is_same_machine(one: &Path, other: &Path) -> bool {
    let identity =
        |dir: &Path| std::fs::metadata(dir.join("var/lib/gpu-sim/lock")).map(|found| (found.dev(), found.ino()));
    matches!((identity(one), identity(other)), (Ok(one), Ok(other)) if one == other)
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
