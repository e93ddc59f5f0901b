// SPDX-License-Identifier: Apache-2.0
//! The files of a simulated node: driver root, `/dev`, `/proc` and sysfs below one directory.
//!
//! In: a [`State`] and a directory. Out: the files that the kernel, the installer of the driver and `nvidia-modprobe` create.
//!
//! ```text
//! usr/lib/x86_64-linux-gnu  driver_files   libraries with SONAME links, programs
//! dev                       devices        character nodes, with other majors than NVIDIA's, so that no real GPU is reached
//! proc sys                  kernel         files of the NVIDIA module and the PCI core
//! …/capabilities, caps      instances      the part that follows MIG instances, redrawn with every change
//! ```
//!
//! It never touches anything outside the directory.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::state::{Driver, State};

pub mod devices;
pub mod driver_files;
pub mod elf;
mod files;
pub mod instances;
pub mod kernel;

pub use files::TreeError;
use files::{list, remove};

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

/// Draws the part of the kernel again after the driver was loaded or unloaded.
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
