// SPDX-License-Identifier: Apache-2.0
//! The last steps before this program becomes a daemon.
//!
//! A daemon, its servers and their clients talk through `/dev/shm`, so it must be the same one for all of them and another one
//! for every daemon. That needs a mount namespace for each, and a process can only put itself in one: this program is
//! started again, does so, and then becomes the control program.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::thread::UnshareFlags;

/// The first argument of this program when it should become a daemon.
const WORD: &str = "become-daemon";

/// Where daemons, servers and clients look for shared memory.
const SHM_DIR: &str = "/dev/shm";

/// Why this process did not become a daemon.
#[derive(Debug, thiserror::Error)]
pub enum BecomeError {
    /// Arguments that no version of this program gives.
    #[error("{WORD} needs a directory and a program")]
    Arguments,
    /// No mount namespace.
    #[error("unable to make a mount namespace: run the MPS host privileged")]
    Namespace(#[source] io::Error),
    /// Mounts of the host would not be followed.
    #[error("unable to make mounts follow those of the host")]
    Follow(#[source] io::Error),
    /// The shared memory is not in place.
    #[error("unable to bind {} on {SHM_DIR}", path.display())]
    Bind {
        /// The daemon's own.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
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
    let (Some(shm_dir), Some(program)) = (arguments.next(), arguments.next()) else {
        return Some(BecomeError::Arguments);
    };
    if let Err(error) = enter(Path::new(&shm_dir)) {
        return Some(error);
    }
    let source = Command::new(&program).args(arguments).exec();
    Some(BecomeError::Run { path: program.into(), source })
}

/// The command that becomes a daemon: this program, even if its file was replaced since.
pub fn command(shm_dir: &Path, program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(WORD).arg(shm_dir).arg(program).args(arguments);
    command
}

/// Mounts come and go with those of the host: one that stayed here would keep the memory of another daemon.
fn enter(shm_dir: &Path) -> Result<(), BecomeError> {
    new_namespace().map_err(BecomeError::Namespace)?;
    let follow = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", follow).map_err(|errno| BecomeError::Follow(errno.into()))?;
    mount_bind(shm_dir, SHM_DIR).map_err(|errno| BecomeError::Bind { path: shm_dir.to_owned(), source: errno.into() })
}

#[expect(deprecated, reason = "its successor is for flags that split what threads share; this process has one thread")]
fn new_namespace() -> io::Result<()> {
    Ok(rustix::thread::unshare(UnshareFlags::NEWNS)?)
}
