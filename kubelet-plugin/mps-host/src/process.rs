// SPDX-License-Identifier: Apache-2.0
//! A daemon's process: waited for and killed without a race, whether this process started it or found it.

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

/// How long a killed process may take to go.
pub const KILL_TIMEOUT: Duration = Duration::from_secs(2);

/// A process that was alive when it was taken hold of.
#[derive(Debug)]
pub struct Process {
    id: ProcessId,
    descriptor: AsyncFd<OwnedFd>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Not seen: it was no child of this process.
    Unseen,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "ended with exit code {code}"),
            Self::Signal(signal) => write!(f, "ended by signal {signal}"),
            Self::Unseen => f.write_str("ended"),
        }
    }
}

impl Process {
    /// Takes hold of a process, if it has not ended.
    pub fn open(id: ProcessId) -> io::Result<Option<Self>> {
        let descriptor = match open_watched(id.pid) {
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => return Ok(None),
            opened => opened?,
        };
        // Between the number and the descriptor another process could have taken the number over.
        Ok(id.is_alive().then_some(Self { id, descriptor }))
    }

    /// Takes hold of a child, which keeps its number until it is waited for here.
    pub fn of_child(mut child: Child) -> io::Result<Self> {
        let pid = child.id();
        match open_watched(pid) {
            Ok(descriptor) => {
                let id = ProcessId::of(pid).unwrap_or(ProcessId { pid, started: 0 });
                Ok(Self { id, descriptor })
            }
            Err(error) => {
                // Nobody could wait for it later.
                child.kill().and_then(|()| child.wait()).map(|_end| ()).ok();
                Err(error)
            }
        }
    }

    /// Which process.
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// Waits until it has ended. May be asked again.
    pub async fn wait_exit(&self) -> Exit {
        // The only failure is a runtime that is being shut down; then nobody waits for the reply.
        self.descriptor.readable().await.map(|_ready| ()).ok();
        let waited = waitid(WaitId::PidFd(self.descriptor.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        let Ok(Some(status)) = waited else { return Exit::Unseen };
        let code = status.exit_status().map(Exit::Code);
        code.or_else(|| status.terminating_signal().map(Exit::Signal)).unwrap_or(Exit::Unseen)
    }

    /// Kills it and waits until it is exited. One that is in the kernel on behalf of a GPU that hangs may never go.
    pub async fn kill(&self) {
        kill(self.id);
        timeout(KILL_TIMEOUT, self.wait_exit()).await.map(|_end| ()).ok();
    }
}

/// Kills a process if it still is the one that is meant.
pub fn kill(id: ProcessId) {
    let Ok(descriptor) = open(id.pid) else { return };
    if id.is_alive() {
        // One that ended in between needs no signal.
        pidfd_send_signal(&descriptor, Signal::KILL).ok();
    }
}

#[expect(
    deprecated,
    reason = "its successor is for descriptors that could be closed behind its back, which an owned one cannot"
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
    async fn the_end_of_a_child_is_seen_whatever_it_is() {
        for (script, expect) in [("exit 3", Exit::Code(3)), ("kill -9 $$", Exit::Signal(9))] {
            let child = Command::new("sh").args(["-c", script]).spawn().unwrap();
            let process = Process::of_child(child).unwrap();
            assert_eq!(process.wait_exit().await, expect);
            assert_eq!(process.wait_exit().await, Exit::Unseen, "nobody is left to ask");
            assert!(Process::open(process.id()).unwrap().is_none());
        }
    }
}
