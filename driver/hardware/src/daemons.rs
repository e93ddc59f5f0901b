// SPDX-License-Identifier: Apache-2.0
//! The port to the MPS daemons of one machine: started, stopped and listed by id, answered by the MPS host or by a twin.
//!
//! Calls block, at most until the deadline of whoever asks. A start that answers has a daemon that takes clients and has the
//! limits it was given.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use dra_model::{Advice, Bytes, ClaimUid, DaemonId, Disposition, ThreadPercentage};

use crate::deadline::Deadline;

/// The MPS daemons of one machine.
pub trait Daemons: Send + Sync + fmt::Debug {
    /// Lets the daemon be there: one of this id and spec that lives is taken as it is.
    fn start(&self, spec: &DaemonSpec, timeout: Duration, deadline: &Deadline) -> Result<Daemon, DaemonError>;

    /// Lets it be gone, with its pipe directory and its shared memory. One that is not known is gone.
    fn stop(&self, id: &DaemonId, timeout: Duration, deadline: &Deadline) -> Result<(), DaemonError>;

    /// As [`Daemons::stop`], but one that has clients stays.
    fn stop_unused(&self, id: &DaemonId, timeout: Duration, deadline: &Deadline) -> Result<(), DaemonError>;

    /// Tells that a claim comes to share a daemon or leaves it. What it left in the shared memory, and no process uses, goes
    /// in a while.
    fn share(&self, id: &DaemonId, claim: &ClaimUid, change: ClaimUse, deadline: &Deadline) -> Result<(), DaemonError>;

    /// Every daemon there is, and every one that died or was lost and is still meant to be there.
    fn list(&self, deadline: &Deadline) -> Result<Vec<Daemon>, DaemonError>;
}

/// What a claim that shares a daemon does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimUse {
    /// Its containers may start from now on.
    Starts,
    /// Its containers have ended.
    Ends,
}

/// What a daemon should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonSpec {
    pub id: DaemonId,
    /// `GPU-` or `MIG-` UUIDs, sorted: a limit names a device by its place in this list.
    pub devices: Vec<String>,
    /// Whether the processes of several users share one server.
    pub multi_user: MultiUser,
    /// Threads a client may use, unless it asks for less.
    pub threads: Option<ThreadPercentage>,
    /// Pinned memory a client may use, by the place of the device; whole MiB.
    pub memory: BTreeMap<u32, Bytes>,
}

/// The `-M` of `nvidia-cuda-mps-control`, which those of older drivers do not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MultiUser {
    /// Without: users take turns.
    Off,
    /// With; a program that does not know it is refused.
    On,
    /// With, if the program knows it.
    IfKnown,
}

/// A daemon as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    pub id: DaemonId,
    pub state: DaemonState,
    /// The directory that holds its pipe directory, on the host; containers mount it whole, so that they see the fresh
    /// pipe directory of a daemon that was started again.
    pub run_dir: PathBuf,
    /// What its clients mount as `/dev/shm`, on the host.
    pub shm_dir: PathBuf,
    pub multi_user: bool,
}

/// How a daemon is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DaemonState {
    /// Being started or stopped.
    Changing,
    /// Answers and takes clients.
    Ready,
    /// Lives, but a client of one user waits for those of another to end.
    UserWaiting {
        /// Who waits.
        waiting: u32,
        /// Whose turn it is.
        active: u32,
    },
    /// Ended by itself; started again once its clients are gone.
    Exited {
        /// What was seen of it.
        why: String,
    },
    /// The MPS host was restarted and did not find it again; started again once its clients are gone.
    Lost,
}

/// Something about a daemon that was not achieved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DaemonError {
    /// There is nobody at the socket of the MPS host.
    #[error("no MPS host listens on {socket} ({why})")]
    Unreachable { socket: PathBuf, why: String },
    /// Somebody is there and gives no answer.
    #[error("the MPS host at {socket} does not respond ({why})")]
    Silent { socket: PathBuf, why: String },
    /// The call that asked had no time left to wait.
    #[error("the call timed out before the MPS host at {socket} responded")]
    OutOfTime { socket: PathBuf },
    /// The driver root has no MPS programs.
    #[error("no {program} below {root}")]
    NoProgram { program: String, root: PathBuf },
    /// The program does not know `-M`.
    #[error("the MPS programs of this NVIDIA driver do not support several users at once")]
    NoMultiUser { id: DaemonId },
    /// A limit that was read back as something else.
    #[error("{what} of MPS daemon {id} was set to {wanted} but reads back as {found}")]
    LimitNotApplied { id: DaemonId, what: String, wanted: String, found: String },
    /// A daemon of this id runs with another spec.
    #[error("MPS daemon {id} runs with other devices or limits and must be stopped first")]
    Different { id: DaemonId },
    /// It did not answer in time.
    #[error("MPS daemon {id} not ready within {waited:?}: {seen}")]
    NotReady {
        id: DaemonId,
        waited: Duration,
        /// The end of its log, or what it said instead.
        seen: String,
    },
    /// It died or was lost, and clients of it still live.
    #[error("MPS daemon {id} exited and is restarted after its {clients} clients exit, or after some minutes")]
    ClientsLeft { id: DaemonId, clients: usize },
    /// It was to be stopped unless it has clients, and it has.
    #[error("MPS daemon {id} has {clients} clients and is stopped after the last of them exits")]
    InUse { id: DaemonId, clients: usize },
    /// Something of it is left after a stop.
    #[error("MPS daemon {id} was not stopped completely, still present: {left}")]
    NotStopped { id: DaemonId, left: String },
    /// Its directories could not be made.
    #[error("cannot use directory {path} of MPS daemon {id}: {why}")]
    UnusableDir { id: DaemonId, path: PathBuf, why: String },
}

impl Advice for DaemonError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Unreachable { .. } => {
                Some("check that mps.enabled is true and the mps-host pod of this node runs".into())
            }
            Self::Silent { .. } => Some("see the log of the mps-host pod of this node".into()),
            Self::NoProgram { .. } => Some("install the MPS programs of the NVIDIA driver there".into()),
            Self::NoMultiUser { .. } => {
                Some("remove multiUser, or install a driver whose nvidia-cuda-mps-control supports -M".into())
            }
            Self::NotReady { .. } => Some("see the mps-host log".into()),
            Self::ClientsLeft { .. } => Some("delete the pods of the clients to restart it sooner".into()),
            Self::OutOfTime { .. }
            | Self::LimitNotApplied { .. }
            | Self::Different { .. }
            | Self::InUse { .. }
            | Self::NotStopped { .. }
            | Self::UnusableDir { .. } => None,
        }
    }
}

impl DaemonError {
    /// Whether it says nothing of the daemon, since no MPS host answered.
    pub fn is_no_answer(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } | Self::OutOfTime { .. } => true,
            Self::NoProgram { .. }
            | Self::NoMultiUser { .. }
            | Self::LimitNotApplied { .. }
            | Self::Different { .. }
            | Self::NotReady { .. }
            | Self::ClientsLeft { .. }
            | Self::InUse { .. }
            | Self::NotStopped { .. }
            | Self::UnusableDir { .. } => false,
        }
    }

    /// Whether trying again may help.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::NoMultiUser { .. } | Self::LimitNotApplied { .. } => Disposition::Permanent,
            Self::Different { .. } | Self::ClientsLeft { .. } | Self::InUse { .. } => Disposition::Busy,
            Self::Unreachable { .. }
            | Self::Silent { .. }
            | Self::OutOfTime { .. }
            | Self::NoProgram { .. }
            | Self::NotReady { .. }
            | Self::NotStopped { .. }
            | Self::UnusableDir { .. } => Disposition::Transient,
        }
    }
}
