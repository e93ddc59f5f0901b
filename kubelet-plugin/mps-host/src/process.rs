// SPDX-License-Identifier: Apache-2.0
//! The process of a daemon by pidfd: waited for and killed without a race, also if an earlier process started it.

use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Child;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use crate::processes::ProcessId;

/// Time for a killed process to exit.
pub const KILL_TIMEOUT: Duration = Duration::from_secs(2);

/// An open process. It was alive when it was opened.
#[derive(Debug)]
pub struct Process {
    id: ProcessId,
    descriptor: AsyncFd<OwnedFd>,
}

/// The exit of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
    /// Not a child of this process.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
            Self::Unknown => f.write_str("exited"),
        }
    }
}

impl Process {
    /// Opens a process, if it is alive.
    pub fn open(id: ProcessId) -> io::Result<Option<Self>> {
        let descriptor = match open_watched(id.pid) {
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => return Ok(None),
            opened => opened?,
        };
        // Another process may have reused the number before the pidfd was opened.
        Ok(id.is_alive().then_some(Self { id, descriptor }))
    }

    /// Opens a child. Its number is not reused before it is waited for here.
    pub fn of_child(mut child: Child) -> io::Result<Self> {
        let pid = child.id();
        match open_watched(pid) {
            Ok(descriptor) => {
                let id = ProcessId::of(pid).unwrap_or(ProcessId { pid, started: 0 });
                Ok(Self { id, descriptor })
            }
            Err(error) => {
                // Without a pidfd it cannot be waited for later.
                child.kill().and_then(|()| child.wait()).map(|_end| ()).ok();
                Err(error)
            }
        }
    }

    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// Waits until the process exits. A second call returns at once.
    pub async fn wait_exit(&self) -> Exit {
        // The only failure is the shutdown of the runtime, and then the answer is not used.
        self.descriptor.readable().await.map(|_ready| ()).ok();
        let waited = waitid(WaitId::PidFd(self.descriptor.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        let Ok(Some(status)) = waited else { return Exit::Unknown };
        let code = status.exit_status().map(Exit::Code);
        code.or_else(|| status.terminating_signal().map(Exit::Signal)).unwrap_or(Exit::Unknown)
    }

    /// Kills the process and waits for its exit. A process that hangs in the kernel because of its GPU may never exit.
    pub async fn kill(&self) {
        kill(self.id);
        timeout(KILL_TIMEOUT, self.wait_exit()).await.map(|_end| ()).ok();
    }
}

/// Kills a process unless another one has its number now.
pub fn kill(id: ProcessId) {
    let Ok(descriptor) = open(id.pid) else { return };
    if id.is_alive() {
        // The only failure is that it has exited.
        pidfd_send_signal(&descriptor, Signal::KILL).ok();
    }
}

#[expect(
    deprecated,
    reason = "the replacement is for descriptors that other code may close, which an OwnedFd excludes"
)]
fn open_watched(pid: u32) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(open(pid)?, Interest::READABLE)
}

fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::NONBLOCK)?)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn every_exit_of_a_child_is_known() {
        for (script, expect) in [("exit 3", Exit::Code(3)), ("kill -9 $$", Exit::Signal(9))] {
            let child = Command::new("sh").args(["-c", script]).spawn().unwrap();
            let process = Process::of_child(child).unwrap();
            assert_eq!(process.wait_exit().await, expect);
            assert_eq!(process.wait_exit().await, Exit::Unknown, "the child was waited for");
            assert!(Process::open(process.id()).unwrap().is_none());
        }
    }
}
