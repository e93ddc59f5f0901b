// SPDX-License-Identifier: Apache-2.0
//! One call of the engine: its deadlines, and the MPS host that it asks.
//!
//! Every wait of the call, for locks, GPUs or the MPS host, ends at the latest when its caller must have an answer.
//!
//! An MPS host that hangs takes until a time-out to answer nothing. A call that met the time-out once does not ask the MPS host
//! again: so it ends before the kubelet cancels it, and a reconciliation waits once and not for each GPU.

use std::time::{Duration, Instant};

use dra_hardware::{BoundedHost, Daemon, DaemonError, DaemonSpec, Daemons, Deadline, Host};
use dra_model::{ClaimUid, DaemonId};
use parking_lot::Mutex;

/// One call of the engine, or one run of its background work.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    /// When it stops waiting for a lock.
    pub(crate) lock_deadline: Instant,
    /// When its caller must have an answer.
    answer_by: Deadline,
    host: &'a Host,
    daemons: &'a dyn Daemons,
    /// The error after which the MPS host is not asked again.
    unanswered: Mutex<Option<DaemonError>>,
}

impl<'a> Call<'a> {
    pub(crate) fn new(lock_deadline: Instant, answer_by: Deadline, host: &'a Host, daemons: &'a dyn Daemons) -> Self {
        Self { lock_deadline, answer_by, host, daemons, unanswered: Mutex::default() }
    }

    /// When the call arrived; now if it has no deadline.
    pub(crate) fn arrival(&self) -> Instant {
        self.answer_by.arrival().unwrap_or_else(Instant::now)
    }

    pub(crate) fn host(&self) -> BoundedHost<'_> {
        self.host.until(&self.answer_by)
    }

    pub(crate) fn start(
        &self,
        spec: &DaemonSpec,
        sharer: Option<&ClaimUid>,
        timeout: Duration,
    ) -> Result<Daemon, DaemonError> {
        self.ask(|daemons, deadline| daemons.start(spec, sharer, timeout, deadline))
    }

    pub(crate) fn stop(&self, id: &DaemonId, timeout: Duration) -> Result<(), DaemonError> {
        self.ask(|daemons, deadline| daemons.stop(id, timeout, deadline))
    }

    pub(crate) fn stop_unused(&self, id: &DaemonId, timeout: Duration) -> Result<(), DaemonError> {
        self.ask(|daemons, deadline| daemons.stop_unused(id, timeout, deadline))
    }

    pub(crate) fn leave(&self, id: &DaemonId, claim: &ClaimUid) -> Result<(), DaemonError> {
        self.ask(|daemons, deadline| daemons.leave(id, claim, deadline))
    }

    pub(crate) fn list(&self) -> Result<Vec<Daemon>, DaemonError> {
        self.ask(Daemons::list)
    }

    fn ask<T>(
        &self,
        request: impl FnOnce(&'a dyn Daemons, &Deadline) -> Result<T, DaemonError>,
    ) -> Result<T, DaemonError> {
        if let Some(error) = self.unanswered.lock().clone() {
            return Err(error);
        }
        let answer = request(self.daemons, &self.answer_by);
        if let Err(error) = &answer
            && error.is_no_answer()
        {
            *self.unanswered.lock() = Some(error.clone());
        }
        answer
    }
}
