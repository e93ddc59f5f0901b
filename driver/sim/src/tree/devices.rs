// SPDX-License-Identifier: Apache-2.0
//! Device nodes below `dev`.
//!
//! In: the GPUs' minors. Out: character nodes with majors from the local and experimental range, never NVIDIA's 195, so that
//! a simulated node cannot reach a real GPU. Without the right to create nodes it writes plain files and returns [`NodeKind::PlainFile`].

use std::io;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use crate::state::State;

use super::files::{TreeError, make_dir, remove, write_file};

/// Major of `nvidia`, `nvidiactl` and `nvidia-modeset`.
pub const MAJOR_NVIDIA: u32 = 240;
/// Major of `nvidia-uvm`.
pub const MAJOR_UVM: u32 = 241;
/// Major of `nvidia-caps`.
pub const MAJOR_CAPS: u32 = 242;
/// Major of the DRI nodes, which runtimes make from the numbers in sysfs.
pub const MAJOR_DRM: u32 = 243;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A character node, as on a real machine.
    Character,
    /// This process has no right to create nodes; programs that open or stat devices fail.
    PlainFile,
}

/// Makes all nodes but those of MIG instances.
pub fn draw(tree_dir: &Path, state: &State) -> Result<NodeKind, TreeError> {
    let dev_dir = tree_dir.join("dev");
    make_dir(&dev_dir.join("nvidia-caps"))?;
    let mut kind = make(&dev_dir.join("nvidiactl"), MAJOR_NVIDIA, 255, 0o666)?;
    for gpu in &state.gpus {
        kind = make(&dev_dir.join(format!("nvidia{}", gpu.minor)), MAJOR_NVIDIA, gpu.minor, 0o666)?;
    }
    make(&dev_dir.join("nvidia-modeset"), MAJOR_NVIDIA, 254, 0o666)?;
    make(&dev_dir.join("nvidia-uvm"), MAJOR_UVM, 0, 0o666)?;
    make(&dev_dir.join("nvidia-uvm-tools"), MAJOR_UVM, 1, 0o666)?;
    Ok(kind)
}

/// Makes one node unless something is there already.
pub(super) fn make(path: &Path, major: u32, minor: u32, mode: u32) -> Result<NodeKind, TreeError> {
    if let Ok(present) = std::fs::symlink_metadata(path) {
        use std::os::unix::fs::FileTypeExt as _;
        let is_node = present.file_type().is_char_device();
        return Ok(if is_node { NodeKind::Character } else { NodeKind::PlainFile });
    }
    // The node must not become visible before its mode is right, and the umask would cut the mode.
    let new_path = path.with_extension("new");
    remove(&new_path)?;
    let failed = |source: io::Error| TreeError::Node { path: path.to_path_buf(), source };
    match mknodat(CWD, &new_path, FileType::CharacterDevice, Mode::from_raw_mode(mode), makedev(major, minor)) {
        Ok(()) => {
            rustix::fs::chmod(&new_path, Mode::from_raw_mode(mode)).map_err(|errno| failed(errno.into()))?;
            std::fs::rename(&new_path, path).map_err(failed)?;
            Ok(NodeKind::Character)
        }
        Err(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => {
            write_file(path, format!("c {major} {minor}\n").as_bytes())?;
            Ok(NodeKind::PlainFile)
        }
        Err(errno) => Err(failed(errno.into())),
    }
}
