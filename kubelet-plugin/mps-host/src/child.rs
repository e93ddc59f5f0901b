// SPDX-License-Identifier: Apache-2.0
//! The child process between its start and the control program that it becomes.
//!
//! A daemon, its servers and their clients communicate through `/dev/shm`, so all of them need one `/dev/shm` and every daemon
//! another one. That takes a mount namespace per daemon, and a process can enter a new one only by itself: this program starts
//! itself again, enters the namespace, and then executes the control program.
//!
//! Servers run as the users of their clients, who cannot enter the root directory. In the namespace of a daemon, a tmpfs that
//! every user can enter covers the root directory. It contains the directory of this daemon and no other.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use dra_model::Advice;
use rustix::fs::{CWD, Mode, OFlags, chmod, mkdir, openat};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::thread::UnshareFlags;

use crate::daemon_dir::DaemonDir;
use crate::privileges;

/// First argument of this program when it becomes a daemon.
const ARGUMENT: &str = "become-daemon";

/// Directory of the shared memory of daemons, servers and clients.
const SHM_DIR: &str = "/dev/shm";

/// A child that did not become the control program.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    #[error("missing arguments of {ARGUMENT}: the directory of a daemon and a program")]
    Arguments,
    #[error("failed to create a mount namespace")]
    Namespace(#[source] io::Error),
    #[error("failed to propagate the mounts of the host")]
    Propagation(#[source] io::Error),
    #[error("failed to bind {} on {SHM_DIR}", path.display())]
    Bind {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to hide the directories of other daemons beside {}", path.display())]
    HideOthers {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to drop the privileges that MPS does not need")]
    Privileges(#[source] io::Error),
    #[error("failed to run {}", path.display())]
    Run {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Advice for ChildError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Namespace(_) | Self::Propagation(_) | Self::Bind { .. } | Self::HideOthers { .. } => {
                Some("run the MPS host privileged".into())
            }
            Self::Arguments | Self::Privileges(_) | Self::Run { .. } => None,
        }
    }
}

/// Becomes a daemon if the arguments say so, and then returns only an error.
pub fn become_daemon(arguments: impl IntoIterator<Item = OsString>) -> Option<ChildError> {
    let mut arguments = arguments.into_iter().skip(1);
    if arguments.next()? != ARGUMENT {
        return None;
    }
    let (Some(dir), Some(program)) = (arguments.next(), arguments.next()) else {
        return Some(ChildError::Arguments);
    };
    if let Err(error) =
        enter(&DaemonDir::at(dir.into())).and_then(|()| privileges::drop_all().map_err(ChildError::Privileges))
    {
        return Some(error);
    }
    let source = Command::new(&program).args(arguments).exec();
    Some(ChildError::Run { path: program.into(), source })
}

/// The command that becomes a daemon. It runs this program, also after its file was replaced.
pub fn command(dir: &DaemonDir, program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(ARGUMENT).arg(dir.path()).arg(program).args(arguments);
    command
}

/// Mounts propagate from the host into the namespace: without that, the namespace would pin the memory of removed daemons.
fn enter(dir: &DaemonDir) -> Result<(), ChildError> {
    new_namespace().map_err(ChildError::Namespace)?;
    let receive = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", receive).map_err(|errno| ChildError::Propagation(errno.into()))?;
    let path = dir.shm_dir();
    mount_bind(&path, SHM_DIR).map_err(|errno| ChildError::Bind { path, source: errno.into() })?;
    let path = dir.path();
    hide_others(path).map_err(|source| ChildError::HideOthers { path: path.to_owned(), source })
}

/// Covers the parent of a directory with a tmpfs that every user can enter, and binds the directory into it.
fn hide_others(dir: &Path) -> io::Result<()> {
    let parent = dir.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let opened =
        openat(CWD, dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("gpu-dra-mps", parent, "tmpfs", flags, c"mode=755,size=4k,nr_inodes=4")?;
    mkdir(dir, Mode::RWXU)?;
    chmod(dir, Mode::from_raw_mode(0o755))?;
    Ok(mount_bind(format!("/proc/self/fd/{}", opened.as_raw_fd()), dir)?)
}

#[expect(
    deprecated,
    reason = "the replacement is for flags that unshare state between threads, and this process has one thread"
)]
fn new_namespace() -> io::Result<()> {
    Ok(rustix::thread::unshare(UnshareFlags::NEWNS)?)
}
