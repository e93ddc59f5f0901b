// SPDX-License-Identifier: Apache-2.0
//! One call of the engine: how long it waits for others, and whom it asks no more.
//!
//! An MPS host that hangs takes its time to say nothing. A call that met that once takes it for the answer to all it would
//! ask, so that it ends before the kubelet gives it up, and one bad host delays a reconciliation once and not for each GPU.

use std::time::{Duration, Instant};

use dra_hardware::{Daemon, DaemonError, DaemonSpec, Daemons, Sharer};
use dra_model::{ClaimUid, DaemonId};
use parking_lot::Mutex;

/// See the module.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    /// Until when it waits for a lock.
    pub(crate) deadline: Instant,
    daemons: &'a dyn Daemons,
    /// Why the MPS host is not asked any more.
    unanswered: Mutex<Option<DaemonError>>,
}

impl<'a> Call<'a> {
    pub(crate) fn until(deadline: Instant, daemons: &'a dyn Daemons) -> Self {
        Self { deadline, daemons, unanswered: Mutex::default() }
    }

    fn ask<T>(&self, question: impl FnOnce(&'a dyn Daemons) -> Result<T, DaemonError>) -> Result<T, DaemonError> {
        if let Some(error) = self.unanswered.lock().clone() {
            return Err(error);
        }
        let answer = question(self.daemons);
        if let Err(error) = &answer
            && error.is_no_answer()
        {
            *self.unanswered.lock() = Some(error.clone());
        }
        answer
    }
}

impl Daemons for Call<'_> {
    fn start(&self, spec: &DaemonSpec, patience: Duration) -> Result<Daemon, DaemonError> {
        self.ask(|daemons| daemons.start(spec, patience))
    }

    fn stop(&self, id: &DaemonId, patience: Duration) -> Result<(), DaemonError> {
        self.ask(|daemons| daemons.stop(id, patience))
    }

    fn stop_unused(&self, id: &DaemonId, patience: Duration) -> Result<(), DaemonError> {
        self.ask(|daemons| daemons.stop_unused(id, patience))
    }

    fn share(&self, id: &DaemonId, claim: &ClaimUid, change: Sharer) -> Result<(), DaemonError> {
        self.ask(|daemons| daemons.share(id, claim, change))
    }

    fn list(&self) -> Result<Vec<Daemon>, DaemonError> {
        self.ask(Daemons::list)
    }
}
