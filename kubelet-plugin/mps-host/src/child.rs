// SPDX-License-Identifier: Apache-2.0
//! The last steps before this program becomes a daemon.
//!
//! A daemon, its servers and their clients talk through `/dev/shm`, so it must be the same one for all of them and another one
//! for every daemon. That needs a mount namespace for each, and a process can only put itself in one: this program is
//! started again, does so, and then becomes the control program.
//!
//! Servers run as the users of their clients, who cannot enter the root directory. In the namespace of a daemon another
//! directory takes its dir, which everybody can enter and which holds the directory of this daemon and no other.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, Mode, OFlags, chmod, mkdir, openat};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::thread::UnshareFlags;

use crate::daemon_dir::DaemonDir;
use crate::privileges;

/// The first argument of this program when it should become a daemon.
const WORD: &str = "become-daemon";

/// Where daemons, servers and clients look for shared memory.
const SHM_DIR: &str = "/dev/shm";

/// Why this process did not become a daemon.
#[derive(Debug, thiserror::Error)]
pub enum BecomeError {
    /// Arguments that no version of this program gives.
    #[error("{WORD} needs the directory of a daemon and a program")]
    Arguments,
    /// No mount namespace.
    #[error("unable to make a mount namespace: run the MPS host privileged")]
    Namespace(#[source] io::Error),
    /// Mounts of the host would not be followed.
    #[error("unable to make mounts follow those of the host")]
    Follow(#[source] io::Error),
    /// The shared memory is not in dir.
    #[error("unable to bind {} on {SHM_DIR}", path.display())]
    Bind {
        /// The daemon's own.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The directory of the daemon is not in dir.
    #[error("unable to show {} alone in its parent directory", path.display())]
    ShowAlone {
        /// The directory of the daemon.
        path: PathBuf,
        /// How mounting failed.
        #[source]
        source: io::Error,
    },
    /// It would have more rights than it needs.
    #[error("unable to give up the rights that MPS does not need")]
    Rights(#[source] io::Error),
    /// The program does not start.
    #[error("unable to run {}", path.display())]
    Run {
        /// The program.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Becomes a daemon, if these are the arguments for it, and then returns only if that fails.
pub fn become_daemon(arguments: impl IntoIterator<Item = OsString>) -> Option<BecomeError> {
    let mut arguments = arguments.into_iter().skip(1);
    if arguments.next()? != WORD {
        return None;
    }
    let (Some(dir), Some(program)) = (arguments.next(), arguments.next()) else {
        return Some(BecomeError::Arguments);
    };
    if let Err(error) =
        enter(&DaemonDir::at(dir.into())).and_then(|()| privileges::reduce().map_err(BecomeError::Rights))
    {
        return Some(error);
    }
    let source = Command::new(&program).args(arguments).exec();
    Some(BecomeError::Run { path: program.into(), source })
}

/// The command that becomes a daemon: this program, even if its file was replaced since.
pub fn command(dir: &DaemonDir, program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(WORD).arg(dir.path()).arg(program).args(arguments);
    command
}

/// Mounts come and go with those of the host: one that stayed here would keep the memory of another daemon.
fn enter(dir: &DaemonDir) -> Result<(), BecomeError> {
    new_namespace().map_err(BecomeError::Namespace)?;
    let follow = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", follow).map_err(|errno| BecomeError::Follow(errno.into()))?;
    let path = dir.shm_dir();
    mount_bind(&path, SHM_DIR).map_err(|errno| BecomeError::Bind { path, source: errno.into() })?;
    let path = dir.path();
    show_alone(path).map_err(|source| BecomeError::ShowAlone { path: path.to_owned(), source })
}

/// Puts a directory that everybody can enter where the parent of this one is, and this one in it.
fn show_alone(dir: &Path) -> io::Result<()> {
    let parent = dir.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let opened =
        openat(CWD, dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("gpu-dra-mps", parent, "tmpfs", flags, c"mode=755,size=4k,nr_inodes=4")?;
    mkdir(dir, Mode::RWXU)?;
    chmod(dir, Mode::from_raw_mode(0o755))?;
    Ok(mount_bind(format!("/proc/self/fd/{}", opened.as_raw_fd()), dir)?)
}

#[expect(deprecated, reason = "its successor is for flags that split what threads share; this process has one thread")]
fn new_namespace() -> io::Result<()> {
    Ok(rustix::thread::unshare(UnshareFlags::NEWNS)?)
}
