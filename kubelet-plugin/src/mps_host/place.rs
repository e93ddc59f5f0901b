// SPDX-License-Identifier: Apache-2.0
//! The directories of one daemon: made before it starts, gone when it is gone.
//!
//! ```text
//! <root>/<id>/run/pipe      sockets, fresh for each start; containers mount `run`
//!             shm           a tmpfs, /dev/shm of the daemon and of its clients
//!             log           what the daemon says
//!             driver        links to the libraries and the server program of the driver
//!             state.json    what this process has to find again
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use dra_hardware::DaemonError;
use dra_model::DaemonId;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Linux has 108 bytes for a socket path, the last of which is zero (`unix(7)`).
const LONGEST_SOCKET_PATH: usize = 107;

/// The socket with the longest name that a daemon makes (seen with R535 and R550).
const LONGEST_SOCKET: &str = "control_privileged";

/// More mounts on one directory than this are not ours to take away.
const MOST_MOUNTS: usize = 16;

/// A directory that is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The path leaves no room for a socket.
    #[error("a socket in {} has a path of more than {LONGEST_SOCKET_PATH} bytes: use a shorter --root", path.display())]
    TooLong {
        /// The pipe directory.
        path: PathBuf,
    },
    /// Not made.
    #[error("unable to make {}", path.display())]
    Make {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not mounted.
    #[error("unable to mount a tmpfs on {}: run the MPS host privileged", path.display())]
    Mount {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not unmounted.
    #[error("unable to unmount {}", path.display())]
    Unmount {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not removed.
    #[error("unable to remove {}", path.display())]
    Remove {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl PlaceError {
    /// The error of the port.
    pub fn into_daemon_error(self, id: &DaemonId) -> DaemonError {
        let path = match &self {
            Self::TooLong { path }
            | Self::Make { path, .. }
            | Self::Mount { path, .. }
            | Self::Unmount { path, .. }
            | Self::Remove { path, .. } => path.clone(),
        };
        DaemonError::NoPlace { id: id.clone(), path, why: dra_runtime::chain(&self).to_string() }
    }
}

/// The directories of one daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    dir: PathBuf,
}

impl Place {
    /// The place of a daemon, which need not exist.
    pub fn new(root: &Path, id: &DaemonId) -> Self {
        Self { dir: root.join(id.as_str()) }
    }

    /// What containers mount where they look for a pipe directory.
    pub fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// The pipe directory.
    pub fn pipe_dir(&self) -> PathBuf {
        self.dir.join("run/pipe")
    }

    /// What containers mount as `/dev/shm`.
    pub fn shm_dir(&self) -> PathBuf {
        self.dir.join("shm")
    }

    /// For the daemon's own log files.
    pub fn log_dir(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// What the daemon says on its standard output.
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("log/control.out")
    }

    /// Links to the parts of the driver that the daemon and its servers load.
    pub fn driver_dir(&self) -> PathBuf {
        self.dir.join("driver")
    }

    /// What is written down of the daemon.
    pub fn kept_path(&self) -> PathBuf {
        self.dir.join("state.json")
    }

    /// Whether there is anything of it.
    pub fn exists(&self) -> bool {
        self.dir.symlink_metadata().is_ok()
    }

    /// Makes what is missing. Servers run as the user of their clients, so everybody may look in.
    pub fn make(&self, shm_bytes: Option<u64>) -> Result<(), PlaceError> {
        self.check_length()?;
        for path in [self.dir.clone(), self.run_dir(), self.log_dir(), self.shm_dir(), self.driver_dir()] {
            make_dir(&path)?;
        }
        if self.is_mounted() {
            return Ok(());
        }
        let path = self.shm_dir();
        let size = shm_bytes.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
        let failed = |source| PlaceError::Mount { path: path.clone(), source };
        let options = std::ffi::CString::new(format!("mode=1777{size}")).map_err(|error| failed(error.into()))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("gpu-dra-mps", &path, "tmpfs", flags, options.as_c_str()).map_err(|errno| failed(errno.into()))
    }

    /// An empty pipe directory: a daemon binds in a used one, past the sockets of a dead one and beside those of a live one.
    pub fn fresh_pipe(&self) -> Result<(), PlaceError> {
        let (pipe_dir, old_dir) = (self.pipe_dir(), self.dir.join("run/.old"));
        remove(&old_dir)?;
        match fs::rename(&pipe_dir, &old_dir) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(PlaceError::Remove { path: pipe_dir, source });
            }
            Ok(()) | Err(_) => {}
        }
        make_dir(&pipe_dir)?;
        remove(&old_dir)
    }

    /// An empty directory for links to the driver, whose files may be others than last time.
    pub fn fresh_driver_dir(&self) -> Result<PathBuf, PlaceError> {
        remove(&self.driver_dir())?;
        make_dir(&self.driver_dir())?;
        Ok(self.driver_dir())
    }

    /// Why a daemon may have found no room: the file system of its pipe directory has none left.
    pub fn is_full(&self) -> bool {
        rustix::fs::statvfs(self.run_dir())
            .is_ok_and(|found| found.f_bavail == 0 || (found.f_files > 0 && found.f_favail == 0))
    }

    /// Takes all of it away, mounts first. What is not there is gone.
    pub fn remove(&self) -> Result<(), PlaceError> {
        let path = self.shm_dir();
        for _ in 0..MOST_MOUNTS {
            if !self.is_mounted() {
                break;
            }
            let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
            unmount(&path, flags).map_err(|errno| PlaceError::Unmount { path: path.clone(), source: errno.into() })?;
        }
        remove(&self.dir)
    }

    /// Whether something is mounted as shared memory: it is on another file system than the directory it is in.
    fn is_mounted(&self) -> bool {
        let device = |path: &Path| fs::symlink_metadata(path).map(|found| found.dev()).ok();
        let mounted = device(&self.shm_dir());
        mounted.is_some() && mounted != device(&self.dir)
    }

    fn check_length(&self) -> Result<(), PlaceError> {
        let path = self.pipe_dir();
        if path.join(LONGEST_SOCKET).as_os_str().len() > LONGEST_SOCKET_PATH {
            return Err(PlaceError::TooLong { path });
        }
        Ok(())
    }
}

/// Makes a directory that everybody may look into, whatever the umask.
pub fn make_dir(path: &Path) -> Result<(), PlaceError> {
    let made = fs::create_dir_all(path).and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)));
    made.map_err(|source| PlaceError::Make { path: path.to_owned(), source })
}

fn remove(dir: &Path) -> Result<(), PlaceError> {
    match fs::remove_dir_all(dir) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(PlaceError::Remove { path: dir.to_owned(), source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
