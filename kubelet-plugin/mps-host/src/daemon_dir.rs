// SPDX-License-Identifier: Apache-2.0
//! The directories of one daemon: made before it starts, exited when it is exited.
//!
//! ```text
//! <root>/<id>/run/pipe      sockets, fresh for each start; containers mount `run`
//!             shm           a tmpfs, /dev/shm of the daemon and of its clients
//!             log           what the daemon says
//!             driver        links to the libraries and the server program of the driver
//!             state.json    what this process has to find again
//! ```

use std::ffi::{CString, NulError};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use dra_hardware::DaemonError;
use dra_model::{Bytes, DaemonId};
use dra_serve::MAX_SOCKET_PATH;
use rustix::fs::{CWD, Mode, fchmod};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use tracing::warn;

use crate::log_file;
use crate::programs::Programs;
use crate::remove_tree::{open_dir, remove_tree};

/// The socket with the longest name that a daemon makes (seen with R535 and R550).
const LONGEST_SOCKET_NAME: &str = "control_privileged";

/// More mounts on one directory than this are not ours to take away.
const MAX_MOUNTS: usize = 16;

/// What a file has at least, if it is not empty.
const PAGE: u64 = 4096;

/// What is in a place; the last one while it is being written.
const ENTRIES: [&str; 6] = ["run", "shm", "log", "driver", "state.json", ".state.json.host.tmp"];

/// A directory that is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum DaemonDirError {
    /// The path leaves no room for a socket.
    #[error("a socket in {} has a path of more than {MAX_SOCKET_PATH} bytes: use a shorter --root", path.display())]
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
    /// Not read.
    #[error("unable to read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something in it is not of a daemon, so that the place may be another's.
    #[error("{} is not of an MPS daemon: remove it by hand if nobody needs it", path.display())]
    Foreign {
        /// What is there.
        path: PathBuf,
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

impl DaemonDirError {
    /// The error of the port.
    pub fn into_daemon_error(self, id: &DaemonId) -> DaemonError {
        let path = match &self {
            Self::TooLong { path }
            | Self::Foreign { path }
            | Self::Read { path, .. }
            | Self::Make { path, .. }
            | Self::Mount { path, .. }
            | Self::Unmount { path, .. }
            | Self::Remove { path, .. } => path.clone(),
        };
        DaemonError::UnusableDir { id: id.clone(), path, why: dra_model::chain(&self).to_string() }
    }
}

/// The directories of one daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonDir {
    path: PathBuf,
}

impl DaemonDir {
    /// The place of a daemon, which need not exist.
    pub fn new(root: &Path, id: &DaemonId) -> Self {
        Self::at(root.join(id.as_str()))
    }

    /// The place with this directory.
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// What holds all of it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What containers mount where they look for a pipe directory.
    pub fn run_dir(&self) -> PathBuf {
        self.path.join("run")
    }

    /// The pipe directory.
    pub fn pipe_dir(&self) -> PathBuf {
        self.path.join("run/pipe")
    }

    /// What containers mount as `/dev/shm`.
    pub fn shm_dir(&self) -> PathBuf {
        self.path.join("shm")
    }

    /// For the daemon's own log files.
    pub fn log_dir(&self) -> PathBuf {
        self.path.join("log")
    }

    /// What the daemon says on its standard output.
    pub fn log_path(&self) -> PathBuf {
        self.path.join("log/control.out")
    }

    /// Links to the parts of the driver that the daemon and its servers load.
    pub fn driver_dir(&self) -> PathBuf {
        self.path.join("driver")
    }

    /// What is written down of the daemon.
    pub fn state_path(&self) -> PathBuf {
        self.path.join("state.json")
    }

    /// Whether there is anything of it.
    pub fn exists(&self) -> bool {
        self.path.symlink_metadata().is_ok()
    }

    /// Makes what is missing. Servers run as the users of their clients, so everybody may look in who gets past the root.
    pub fn make(&self, shm_bytes: Bytes) -> Result<(), DaemonDirError> {
        self.check_length()?;
        self.check_owner()?;
        for path in [self.path.clone(), self.run_dir(), self.log_dir()] {
            make_dir(&path)?;
        }
        let path = self.shm_dir();
        let failed = |source| DaemonDirError::Mount { path: path.clone(), source };
        let options = shm_options(shm_bytes).map_err(|error| failed(error.into()))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        if self.is_mounted() {
            // Clients of an earlier daemon write to it. One that holds more than is allowed now stays as large as it is.
            if let Err(error) = mount_remount(&path, flags, options.as_c_str()) {
                warn!(path = %path.display(), %error, "the size of this shared memory is not changed");
            }
            return Ok(());
        }
        make_dir(&path)?;
        mount("gpu-dra-mps", &path, "tmpfs", flags, options.as_c_str()).map_err(|errno| failed(errno.into()))
    }

    /// What one start needs and no other may have used: an empty pipe directory, as a daemon binds in a used one, past the
    /// sockets of a dead one and beside those of a live one; links to the driver, whose files may be others than last time;
    /// and an empty log, which is returned.
    pub fn fresh(&self, programs: &Programs) -> Result<File, DaemonDirError> {
        self.fresh_pipe()?;
        let driver_dir = self.driver_dir();
        remove(&driver_dir)?;
        make_new_dir(&driver_dir)?;
        let make = |path| move |source| DaemonDirError::Make { path, source };
        programs.link(&driver_dir).map_err(make(driver_dir.clone()))?;
        log_file::create(&self.log_path()).map_err(make(self.log_path()))
    }

    fn fresh_pipe(&self) -> Result<(), DaemonDirError> {
        let (pipe_dir, old_dir) = (self.pipe_dir(), self.path.join("run/.old"));
        remove(&old_dir)?;
        match fs::rename(&pipe_dir, &old_dir) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(DaemonDirError::Remove { path: pipe_dir, source });
            }
            Ok(()) | Err(_) => {}
        }
        make_new_dir(&pipe_dir)?;
        remove(&old_dir)
    }

    /// Why a daemon may have found no room: the file system of its pipe directory has none left.
    pub fn is_full(&self) -> bool {
        rustix::fs::statvfs(self.run_dir())
            .is_ok_and(|found| found.f_bavail == 0 || (found.f_files > 0 && found.f_favail == 0))
    }

    /// Takes all of it away, mounts first. What is not there is exited.
    pub fn remove(&self) -> Result<(), DaemonDirError> {
        self.check_owner()?;
        let path = self.shm_dir();
        for _ in 0..MAX_MOUNTS {
            if !self.is_mounted() {
                break;
            }
            let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
            unmount(&path, flags)
                .map_err(|errno| DaemonDirError::Unmount { path: path.clone(), source: errno.into() })?;
        }
        // One by one: a removal that is cut leaves no names but these, and what is written down of the daemon until last.
        ENTRIES.iter().try_for_each(|name| remove(&self.path.join(name)))?;
        remove_empty(&self.path)
    }

    /// Whether something is mounted as shared memory: it is on another file system than the directory it is in.
    fn is_mounted(&self) -> bool {
        let device = |path: &Path| fs::symlink_metadata(path).map(|found| found.dev()).ok();
        let mounted = device(&self.shm_dir());
        mounted.is_some() && mounted != device(&self.path)
    }

    fn check_owner(&self) -> Result<(), DaemonDirError> {
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(|source| DaemonDirError::Read { path: self.path.clone(), source })?,
        };
        let other = entries.flatten().find(|entry| !ENTRIES.iter().any(|name| entry.file_name() == *name));
        other.map_or(Ok(()), |entry| Err(DaemonDirError::Foreign { path: entry.path() }))
    }

    fn check_length(&self) -> Result<(), DaemonDirError> {
        let path = self.pipe_dir();
        if path.join(LONGEST_SOCKET_NAME).as_os_str().len() > MAX_SOCKET_PATH {
            return Err(DaemonDirError::TooLong { path });
        }
        Ok(())
    }
}

/// Files are as many as there are pages, so that empty ones take no more memory than full ones.
fn shm_options(Bytes(bytes): Bytes) -> Result<CString, NulError> {
    CString::new(format!("mode=1777,size={bytes},nr_inodes={}", bytes / PAGE))
}

/// A directory that everybody may look into, whatever the umask; one that is there is taken, and nothing but a directory.
fn make_dir(path: &Path) -> Result<(), DaemonDirError> {
    match make_new_dir(path) {
        Err(DaemonDirError::Make { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => open_to_all(path),
        reply => reply,
    }
}

fn make_new_dir(path: &Path) -> Result<(), DaemonDirError> {
    let made = fs::DirBuilder::new().mode(0o755).create(path);
    made.map_err(|source| DaemonDirError::Make { path: path.to_owned(), source })?;
    open_to_all(path)
}

fn open_to_all(path: &Path) -> Result<(), DaemonDirError> {
    let opened = open_dir(CWD, path).and_then(|dir| fchmod(dir, Mode::from_raw_mode(0o755)));
    opened.map_err(|errno| DaemonDirError::Make { path: path.to_owned(), source: errno.into() })
}

fn remove_empty(path: &Path) -> Result<(), DaemonDirError> {
    match fs::remove_dir(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(DaemonDirError::Remove { path: path.to_owned(), source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn remove(path: &Path) -> Result<(), DaemonDirError> {
    remove_tree(path).map_err(|source| DaemonDirError::Remove { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn daemon_dir() -> (tempfile::TempDir, DaemonDir) {
        let root = tempfile::tempdir().unwrap();
        let dir = DaemonDir::new(root.path(), &"gpu-0".parse().unwrap());
        (root, dir)
    }

    #[test]
    fn a_directory_with_anything_else_in_it_is_left_alone() {
        let (_root, dir) = daemon_dir();
        dir.remove().unwrap();
        for name in ["run", "log", "photos"] {
            fs::create_dir_all(dir.path.join(name)).unwrap();
        }
        for refused in [dir.remove(), dir.make(Bytes::from_mib(1))] {
            let path = dir.path.join("photos");
            assert!(matches!(&refused, Err(DaemonDirError::Foreign { path: found }) if *found == path), "{refused:?}");
        }
        assert!(dir.path.join("run").exists());
        fs::remove_dir(dir.path.join("photos")).unwrap();
        dir.remove().unwrap();
        assert!(!dir.exists());
    }

    #[test]
    fn nothing_that_was_planted_is_followed() {
        let (root, dir) = daemon_dir();
        let other_path = root.path().join("other");
        fs::create_dir(&other_path).unwrap();
        fs::set_permissions(&other_path, fs::Permissions::from_mode(0o700)).unwrap();
        fs::create_dir_all(dir.run_dir()).unwrap();
        symlink(&other_path, dir.pipe_dir()).unwrap();
        dir.fresh_pipe().unwrap();
        assert!(!dir.pipe_dir().is_symlink() && dir.pipe_dir().is_dir());
        remove(&dir.run_dir()).unwrap();
        symlink(&other_path, dir.run_dir()).unwrap();
        assert!(matches!(dir.make(Bytes::from_mib(1)), Err(DaemonDirError::Make { .. })));
        assert_eq!(fs::metadata(&other_path).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
