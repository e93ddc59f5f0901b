// SPDX-License-Identifier: Apache-2.0
//! The port to the MPS daemons of one machine, implemented by the MPS host and by a simulation for tests.
//!
//! Calls block, at most until the deadline of the caller. When `start` returns, the daemon accepts clients and has its limits.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use dra_model::{Advice, Bytes, ClaimUid, DaemonId, Disposition, ThreadPercentage};

use crate::deadline::Deadline;

/// The MPS daemons of one machine.
pub trait Daemons: Send + Sync + fmt::Debug {
    /// Starts a daemon, unless one with this id and spec runs. `sharer` is the claim that shares it with others from now on.
    fn start(
        &self,
        spec: &DaemonSpec,
        sharer: Option<&ClaimUid>,
        timeout: Duration,
        deadline: &Deadline,
    ) -> Result<Daemon, DaemonError>;

    /// Stops a daemon and removes its pipe directory and its shared memory. An unknown daemon is success.
    fn stop(&self, id: &DaemonId, timeout: Duration, deadline: &Deadline) -> Result<(), DaemonError>;

    /// As [`Daemons::stop`], but fails if the daemon has clients.
    fn stop_unused(&self, id: &DaemonId, timeout: Duration, deadline: &Deadline) -> Result<(), DaemonError>;

    /// Reports that a claim, whose containers have terminated, does not share a daemon any more. The shared memory that it leaves
    /// and no process uses is removed.
    fn leave(&self, id: &DaemonId, claim: &ClaimUid, deadline: &Deadline) -> Result<(), DaemonError>;

    /// All daemons, those included that exited or were lost and will be restarted.
    fn list(&self, deadline: &Deadline) -> Result<Vec<Daemon>, DaemonError>;
}

/// The desired state of a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonSpec {
    pub id: DaemonId,
    /// `GPU-` or `MIG-` UUIDs, sorted. A limit names a device by its index in this list.
    pub devices: Vec<String>,
    pub multi_user: MultiUser,
    /// The limit of threads for each client.
    pub threads: Option<ThreadPercentage>,
    /// The limit of pinned memory for each client in whole MiB, by index of the device.
    pub memory: BTreeMap<u32, Bytes>,
}

/// The option `-M` of `nvidia-cuda-mps-control`: the processes of several users share one server. Older drivers lack it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MultiUser {
    /// One user at a time.
    Off,
    /// Starting fails if the program lacks the option.
    On,
    /// Used if the program has the option.
    IfKnown,
}

/// The actual state of a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    pub id: DaemonId,
    pub state: DaemonState,
    /// The parent of the pipe directory, on the host. Containers mount it, so that they see the new pipe directory of a daemon
    /// that was restarted.
    pub run_dir: PathBuf,
    /// The directory on the host that clients mount as `/dev/shm`.
    pub shm_dir: PathBuf,
    pub multi_user: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DaemonState {
    /// Being started or stopped.
    Changing,
    /// Responds and accepts clients.
    Ready,
    /// Clients of one user wait until all clients of another user exit.
    UserWaiting {
        /// User ID.
        waiting: u32,
        /// User ID.
        active: u32,
    },
    /// Exited unexpectedly; restarted after its clients exit.
    Exited {
        /// Exit code or signal.
        why: String,
    },
    /// The MPS host was restarted and did not find the daemon again; restarted after its clients exit.
    Lost,
    /// Ended because its GPU failed; restarted after the GPU is well and its clients exit.
    GpuFailed {
        /// GPU and fault.
        why: String,
    },
}

/// An operation on an MPS daemon failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DaemonError {
    #[error("no MPS host listens on {socket} ({why})")]
    Unreachable { socket: PathBuf, why: String },
    /// The socket accepts connections, but no response arrives.
    #[error("the MPS host at {socket} does not respond ({why})")]
    Silent { socket: PathBuf, why: String },
    /// The deadline of the call passed.
    #[error("the call timed out before the MPS host at {socket} responded")]
    OutOfTime { socket: PathBuf },
    #[error("no {program} below {root}")]
    NoProgram { program: String, root: PathBuf },
    #[error("the MPS programs of this NVIDIA driver do not support several users at once")]
    NoMultiUser { id: DaemonId },
    #[error("{what} of MPS daemon {id} was set to {wanted} but reads back as {found}")]
    LimitNotApplied { id: DaemonId, what: String, wanted: String, found: String },
    #[error("MPS daemon {id} runs with other devices or limits and must be stopped first")]
    Different { id: DaemonId },
    #[error("MPS daemon {id} not ready within {waited:?}: {seen}")]
    NotReady {
        id: DaemonId,
        waited: Duration,
        /// The end of the log of the daemon, or the last observation.
        seen: String,
    },
    #[error("MPS daemon {id} exited and is restarted after its {clients} clients exit, or after some minutes")]
    ClientsLeft { id: DaemonId, clients: usize },
    #[error("MPS daemon {id} does not run because {why}")]
    GpuFailed { id: DaemonId, why: String },
    /// [`Daemons::stop_unused`] found clients.
    #[error("MPS daemon {id} has {clients} clients and is stopped after the last of them exits")]
    InUse { id: DaemonId, clients: usize },
    #[error("MPS daemon {id} was not stopped completely, still present: {left}")]
    NotStopped { id: DaemonId, left: String },
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
            Self::GpuFailed { .. } => Some("wait until the GPU is well, or delete the pod to reschedule it".into()),
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
    /// Whether no MPS host responded, so that the state of the daemon is unknown.
    pub fn is_no_answer(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } | Self::OutOfTime { .. } => true,
            Self::NoProgram { .. }
            | Self::NoMultiUser { .. }
            | Self::LimitNotApplied { .. }
            | Self::Different { .. }
            | Self::NotReady { .. }
            | Self::ClientsLeft { .. }
            | Self::GpuFailed { .. }
            | Self::InUse { .. }
            | Self::NotStopped { .. }
            | Self::UnusableDir { .. } => false,
        }
    }

    pub fn disposition(&self) -> Disposition {
        match self {
            Self::NoMultiUser { .. } | Self::LimitNotApplied { .. } => Disposition::Permanent,
            Self::Different { .. } | Self::ClientsLeft { .. } | Self::InUse { .. } => Disposition::Busy,
            Self::Unreachable { .. }
            | Self::Silent { .. }
            | Self::OutOfTime { .. }
            | Self::NoProgram { .. }
            | Self::NotReady { .. }
            | Self::GpuFailed { .. }
            | Self::NotStopped { .. }
            | Self::UnusableDir { .. } => Disposition::Transient,
        }
    }
}
