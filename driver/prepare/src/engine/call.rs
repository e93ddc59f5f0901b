// SPDX-License-Identifier: Apache-2.0
//! One call of the engine: how long it waits for others, and whom it asks no more.
//!
//! Whatever it waits for, locks, GPUs or the MPS host, it waits at most until its caller has to have an answer.
//!
//! An MPS host that hangs takes its time to say nothing. A call that met that once takes it for the answer to all it would
//! ask, so that it ends before the kubelet gives it up, and one bad host delays a reconciliation once and not for each GPU.

use std::time::{Duration, Instant};

use dra_hardware::{BoundedHost, ClaimUse, Daemon, DaemonError, DaemonSpec, Daemons, Deadline, Host};
use dra_model::{ClaimUid, DaemonId};
use parking_lot::Mutex;

/// See the module.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    /// Until when it waits for a lock.
    pub(crate) deadline: Instant,
    /// Until when its caller has to have an answer.
    answer_by: Deadline,
    host: &'a Host,
    daemons: &'a dyn Daemons,
    /// Why the MPS host is not asked any more.
    unanswered: Mutex<Option<DaemonError>>,
}

impl<'a> Call<'a> {
    pub(crate) fn until(deadline: Instant, answer_by: Deadline, host: &'a Host, daemons: &'a dyn Daemons) -> Self {
        Self { deadline, answer_by, host, daemons, unanswered: Mutex::default() }
    }

    /// The machine.
    pub(crate) fn host(&self) -> BoundedHost<'_> {
        self.host.until(&self.answer_by)
    }

    /// See [`Daemons::start`].
    pub(crate) fn start(&self, spec: &DaemonSpec, patience: Duration) -> Result<Daemon, DaemonError> {
        self.ask(|daemons, deadline| daemons.start(spec, patience, deadline))
    }

    /// See [`Daemons::stop`].
    pub(crate) fn stop(&self, id: &DaemonId, patience: Duration) -> Result<(), DaemonError> {
        self.ask(|daemons, deadline| daemons.stop(id, patience, deadline))
    }

    /// See [`Daemons::stop_unused`].
    pub(crate) fn stop_unused(&self, id: &DaemonId, patience: Duration) -> Result<(), DaemonError> {
        self.ask(|daemons, deadline| daemons.stop_unused(id, patience, deadline))
    }

    /// See [`Daemons::share`].
    pub(crate) fn share(&self, id: &DaemonId, claim: &ClaimUid, change: ClaimUse) -> Result<(), DaemonError> {
        self.ask(|daemons, deadline| daemons.share(id, claim, change, deadline))
    }

    /// See [`Daemons::list`].
    pub(crate) fn list(&self) -> Result<Vec<Daemon>, DaemonError> {
        self.ask(Daemons::list)
    }

    fn ask<T>(
        &self,
        question: impl FnOnce(&'a dyn Daemons, &Deadline) -> Result<T, DaemonError>,
    ) -> Result<T, DaemonError> {
        if let Some(error) = self.unanswered.lock().clone() {
            return Err(error);
        }
        let answer = question(self.daemons, &self.answer_by);
        if let Err(error) = &answer
            && error.is_no_answer()
        {
            *self.unanswered.lock() = Some(error.clone());
        }
        answer
    }
}
