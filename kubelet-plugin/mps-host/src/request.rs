// SPDX-License-Identifier: Apache-2.0
//! The requests to a supervisor, each with a channel for the reply.

use std::time::Duration;

use dra_hardware::{Daemon, DaemonError, DaemonSpec};
use tokio::sync::oneshot;
use tokio::time::Instant;

#[derive(Debug)]
pub enum Request {
    /// Starts the daemon unless it runs.
    Start {
        spec: DaemonSpec,
        /// UID of the claim that shares the daemon with others from now on.
        sharer: Option<String>,
        deadline: Deadline,
        reply: oneshot::Sender<Result<Daemon, DaemonError>>,
    },
    /// Stops the daemon and removes its directory.
    Stop {
        /// Whether a daemon with clients continues instead.
        unless_used: bool,
        /// Time for clients to finish.
        deadline: Deadline,
        reply: oneshot::Sender<Result<(), DaemonError>>,
    },
    /// Records that a claim does not share the daemon any more.
    Leave {
        /// UID of the claim.
        claim: String,
        reply: oneshot::Sender<()>,
    },
    /// Terminates the processes of the daemon and keeps its directory for the next process of this program.
    Shutdown {
        /// Time for clients to finish.
        deadline: Deadline,
        reply: oneshot::Sender<()>,
    },
}

/// The end of a timeout that begins when the request is made: a request may wait in a queue.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    pub timeout: Duration,
    pub end: Instant,
}

impl Deadline {
    /// Begins the timeout now.
    pub fn of(timeout: Duration) -> Self {
        Self { timeout, end: Instant::now() + timeout }
    }

    pub fn remaining(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }
}
