// SPDX-License-Identifier: Apache-2.0
//! What a supervisor is told to do, with where to reply.

use std::time::Duration;

use dra_hardware::{ClaimUse, Daemon, DaemonError, DaemonSpec};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// What a supervisor is told.
#[derive(Debug)]
pub enum Request {
    /// Let it be there.
    Start {
        /// As this.
        spec: DaemonSpec,
        /// Until when.
        deadline: Deadline,
        /// Who asks.
        reply: oneshot::Sender<Result<Daemon, DaemonError>>,
    },
    /// Let it be exited.
    Stop {
        /// Whether one that has clients stays.
        unless_used: bool,
        /// How long clients may go on.
        deadline: Deadline,
        /// Who asks.
        reply: oneshot::Sender<Result<(), DaemonError>>,
    },
    /// A claim shares it, or does so no more.
    Share {
        /// UID of the claim.
        claim: String,
        /// What it does.
        change: ClaimUse,
        /// Who asks.
        reply: oneshot::Sender<()>,
    },
    /// Let its processes end and its dir stay, for the next process of this program.
    Shutdown {
        /// How long clients may go on.
        deadline: Deadline,
        /// Who asks.
        reply: oneshot::Sender<()>,
    },
}

/// How long something may take, from when it was ordered: an request may have to wait for others.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    /// How long that was.
    pub timeout: Duration,
    /// When it is over.
    pub end: Instant,
}

impl Deadline {
    /// From now on.
    pub fn of(timeout: Duration) -> Self {
        Self { timeout, end: Instant::now() + timeout }
    }

    /// What is left.
    pub fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }
}
