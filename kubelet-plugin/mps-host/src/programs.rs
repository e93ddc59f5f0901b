// SPDX-License-Identifier: Apache-2.0
//! The MPS programs of the driver root and the libraries that they load.
//!
//! They run in place. A daemon finds the server program, and a server the libraries of the driver, in a directory of links,
//! because the directories of the driver root may contain another C library, which the loader of this container cannot use,
//! and absolute symlinks that lead out of the driver root.

use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use dra_hardware::DaemonError;
use dra_hardware::driver_dirs::library_dirs;
use dra_hardware::driver_program::DriverProgram;
use dra_hardware::driver_root::Root;
use dra_mps::launch::{CONTROL_PROGRAM, SERVER_PROGRAM};
use tracing::warn;

/// Prefixes of the libraries of the driver: a server loads `libcuda`, which loads the others.
const LIBRARIES: [&str; 2] = ["libcuda", "libnvidia-"];

/// The programs of one start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// The control program, as daemon and as client.
    pub control: PathBuf,
    server: PathBuf,
    root: PathBuf,
}

impl Programs {
    /// Searches the driver root for every start, because the driver may be replaced meanwhile.
    pub fn find(root: &Path) -> Result<Self, DaemonError> {
        let path = |name: &str| {
            let found = DriverProgram::find(root, name, &[], None);
            found.map(|program| program.path().to_owned()).map_err(|error| {
                warn!(%error, "failed to find an MPS program");
                DaemonError::NoProgram { program: name.to_owned(), root: root.to_owned() }
            })
        };
        Ok(Self { control: path(CONTROL_PROGRAM)?, server: path(SERVER_PROGRAM)?, root: root.to_owned() })
    }

    /// Fills an empty directory with links to the server program and the libraries of the driver.
    pub fn link(&self, dir: &Path) -> io::Result<()> {
        symlink(&self.server, dir.join(SERVER_PROGRAM))?;
        let root = Root::open(&self.root)?;
        for library_dir in library_dirs() {
            for name in root.list(&library_dir).unwrap_or_default() {
                let ours = name.contains(".so") && LIBRARIES.iter().any(|library| name.starts_with(library));
                let Some(found) = ours.then(|| root.find(library_dir.join(&name)).ok()).flatten() else { continue };
                match symlink(root.outside(&found.path), dir.join(&name)) {
                    // `lib64` and `usr/lib64` are often the same directory; the first one counts.
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
        }
        Ok(())
    }
}
