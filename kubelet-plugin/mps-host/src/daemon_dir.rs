// SPDX-License-Identifier: Apache-2.0
//! The directories of one daemon: created before it starts, removed after it is stopped.
//!
//! ```text
//! <root>/<id>/run/pipe      sockets, new for each start; containers mount `run`
//!             shm           a tmpfs, /dev/shm of the daemon and of its clients
//!             log           standard output of the daemon
//!             driver        links to the libraries and the server program of the driver
//!             state.json    what the next process needs to find the daemon, see `state_file`
//! ```

use std::borrow::Cow;
use std::ffi::{CString, NulError};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use dra_hardware::DaemonError;
use dra_model::{Advice, Bytes, DaemonId, explain};
use dra_serve::MAX_SOCKET_PATH;
use rustix::fs::{CWD, Mode, fchmod};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use tracing::warn;

use crate::log_file;
use crate::programs::Programs;
use crate::remove_tree::{open_dir, remove_tree};
use crate::selinux;

/// The socket with the longest name in a pipe directory (seen with R535 and R550).
const PRIVILEGED_SOCKET_NAME: &str = "control_privileged";

/// Mounts on one directory that are removed. More of them are not made by this driver.
const MAX_MOUNTS: usize = 16;

/// Bytes of the smallest file that is not empty.
const PAGE: u64 = 4096;

/// Entries of the directory. The last one exists while the state file is written.
const ENTRIES: [&str; 6] = ["run", "shm", "log", "driver", "state.json", ".state.json.host.tmp"];

/// A directory of a daemon that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DaemonDirError {
    #[error("socket paths in {} are longer than {MAX_SOCKET_PATH} bytes", path.display())]
    TooLong { path: PathBuf },
    #[error("failed to create {}", path.display())]
    Create {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to mount a tmpfs on {}", path.display())]
    Mount {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to unmount {}", path.display())]
    Unmount {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// An entry of another origin: the directory may belong to another program.
    #[error("{} does not belong to an MPS daemon", path.display())]
    Foreign { path: PathBuf },
    #[error("failed to remove {}", path.display())]
    Remove {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Advice for DaemonDirError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::TooLong { .. } => Some("use a shorter --root".into()),
            Self::Mount { .. } => Some("run the MPS host privileged".into()),
            Self::Foreign { .. } => Some("remove it by hand if no other program needs it".into()),
            Self::Create { .. } | Self::Unmount { .. } | Self::Read { .. } | Self::Remove { .. } => None,
        }
    }
}

impl DaemonDirError {
    /// The same as error of the port [`dra_hardware::Daemons`].
    pub fn into_daemon_error(self, id: &DaemonId) -> DaemonError {
        let path = match &self {
            Self::TooLong { path }
            | Self::Foreign { path }
            | Self::Read { path, .. }
            | Self::Create { path, .. }
            | Self::Mount { path, .. }
            | Self::Unmount { path, .. }
            | Self::Remove { path, .. } => path.clone(),
        };
        DaemonError::UnusableDir { id: id.clone(), path, why: explain(&self) }
    }
}

/// The directories of one daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonDir {
    path: PathBuf,
}

impl DaemonDir {
    /// The directory of a daemon, which need not exist.
    pub fn new(root: &Path, id: &DaemonId) -> Self {
        Self::at(root.join(id.as_str()))
    }

    /// The daemon directory at this path.
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that containers mount as parent of the pipe directory.
    pub fn run_dir(&self) -> PathBuf {
        self.path.join("run")
    }

    pub fn pipe_dir(&self) -> PathBuf {
        self.path.join("run/pipe")
    }

    /// The directory that containers mount as `/dev/shm`.
    pub fn shm_dir(&self) -> PathBuf {
        self.path.join("shm")
    }

    /// Directory for the log files that the daemon opens itself.
    pub fn log_dir(&self) -> PathBuf {
        self.path.join("log")
    }

    /// File with the standard output of the daemon.
    pub fn log_path(&self) -> PathBuf {
        self.path.join("log/control.out")
    }

    /// Directory of links to the parts of the driver that the daemon and its servers load.
    pub fn driver_dir(&self) -> PathBuf {
        self.path.join("driver")
    }

    pub fn state_path(&self) -> PathBuf {
        self.path.join("state.json")
    }

    /// Whether the directory exists, in whatever state.
    pub fn exists(&self) -> bool {
        self.path.symlink_metadata().is_ok()
    }

    /// Creates what is missing. Every user can enter, because servers run as the users of their clients; the root directory
    /// is closed.
    pub fn create(&self, shm_bytes: Bytes) -> Result<(), DaemonDirError> {
        self.check_length()?;
        self.check_owner()?;
        for path in [self.path.clone(), self.run_dir(), self.log_dir()] {
            make_dir(&path)?;
        }
        share(&self.run_dir());
        let path = self.shm_dir();
        let failed = |source| DaemonDirError::Mount { path: path.clone(), source };
        let options = shm_options(shm_bytes).map_err(|error| failed(error.into()))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        if self.is_mounted() {
            // Clients of an earlier daemon use this tmpfs. It cannot shrink below its content.
            if let Err(error) = mount_remount(&path, flags, options.as_c_str()) {
                warn!(path = %path.display(), %error, "failed to change the size of the shared memory");
            }
            share(&path);
            return Ok(());
        }
        make_dir(&path)?;
        mount("gpu-dra-mps", &path, "tmpfs", flags, options.as_c_str()).map_err(|errno| failed(errno.into()))?;
        share(&path);
        Ok(())
    }

    /// Prepares a start: an empty pipe directory, because a daemon also binds in a used one, past the sockets of an exited
    /// daemon and beside those of a running one; links to the driver, whose files change with its version; an empty log,
    /// which is returned.
    pub fn prepare_start(&self, programs: &Programs) -> Result<File, DaemonDirError> {
        self.renew_pipe_dir()?;
        let driver_dir = self.driver_dir();
        remove(&driver_dir)?;
        make_new_dir(&driver_dir)?;
        let failed = |path| move |source| DaemonDirError::Create { path, source };
        programs.link(&driver_dir).map_err(failed(driver_dir.clone()))?;
        log_file::create(&self.log_path()).map_err(failed(self.log_path()))
    }

    fn renew_pipe_dir(&self) -> Result<(), DaemonDirError> {
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

    /// Whether the file system of the pipe directory is full, which a daemon does not report.
    pub fn is_full(&self) -> bool {
        rustix::fs::statvfs(self.run_dir())
            .is_ok_and(|found| found.f_bavail == 0 || (found.f_files > 0 && found.f_favail == 0))
    }

    /// Removes everything, mounts first. A missing directory is a success.
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
        // Entry by entry, the state file last: an interrupted removal leaves known entries only.
        ENTRIES.iter().try_for_each(|name| remove(&self.path.join(name)))?;
        remove_empty(&self.path)
    }

    /// Whether the shared memory is mounted: a mount has another device than its parent directory.
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
        if path.join(PRIVILEGED_SOCKET_NAME).as_os_str().len() > MAX_SOCKET_PATH {
            return Err(DaemonDirError::TooLong { path });
        }
        Ok(())
    }
}

/// One inode per page, so that empty files take no more memory than full ones.
fn shm_options(Bytes(bytes): Bytes) -> Result<CString, NulError> {
    CString::new(format!("mode=1777,size={bytes},nr_inodes={}", bytes / PAGE))
}

/// Creates a directory that every user can enter, whatever the umask. Accepts an existing directory, and nothing else.
fn make_dir(path: &Path) -> Result<(), DaemonDirError> {
    match make_new_dir(path) {
        Err(DaemonDirError::Create { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
            open_to_all(path)
        }
        outcome => outcome,
    }
}

fn make_new_dir(path: &Path) -> Result<(), DaemonDirError> {
    let made = fs::DirBuilder::new().mode(0o755).create(path);
    made.map_err(|source| DaemonDirError::Create { path: path.to_owned(), source })?;
    open_to_all(path)
}

fn open_to_all(path: &Path) -> Result<(), DaemonDirError> {
    let opened = open_dir(CWD, path).and_then(|dir| fchmod(dir, Mode::from_raw_mode(0o755)));
    opened.map_err(|errno| DaemonDirError::Create { path: path.to_owned(), source: errno.into() })
}

/// A policy may lack the label, and clients of containers that SELinux does not confine need none.
fn share(path: &Path) {
    if let Err(error) = selinux::share(path) {
        warn!(path = %path.display(), %error, "failed to set the SELinux label, containers may be refused the MPS daemon");
    }
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
        for refused in [dir.remove(), dir.create(Bytes::from_mib(1))] {
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
        dir.renew_pipe_dir().unwrap();
        assert!(!dir.pipe_dir().is_symlink() && dir.pipe_dir().is_dir());
        remove(&dir.run_dir()).unwrap();
        symlink(&other_path, dir.run_dir()).unwrap();
        assert!(matches!(dir.create(Bytes::from_mib(1)), Err(DaemonDirError::Create { .. })));
        assert_eq!(fs::metadata(&other_path).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
