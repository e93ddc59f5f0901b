// SPDX-License-Identifier: Apache-2.0
//! The ends of a daemon: ordered, by itself, and with this process.

use dra_hardware::{DaemonError, DaemonState};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{Exited, Lifecycle, Supervisor};
use crate::log_file;
use crate::request::Deadline;
use crate::running::Running;
use crate::state_file::{Phase, SavedState};
use crate::termination::{clear, kill_all, request_quit};

impl Supervisor {
    /// Ends it. It is exited when nothing is left of it.
    pub(super) async fn stop(&mut self, unless_used: bool, deadline: Deadline) -> Result<(), DaemonError> {
        self.recover().await?;
        if unless_used {
            self.is_unused().await?;
        }
        let saved = match std::mem::replace(&mut self.lifecycle, Lifecycle::Absent) {
            Lifecycle::Absent => None,
            Lifecycle::Stopping(saved) => Some(*saved),
            Lifecycle::Exited(exited) => Some(exited.saved),
            Lifecycle::Running(running) => Some(self.end(*running, deadline).await),
        };
        match (self.clear().await, saved) {
            (Ok(()), saved) => {
                self.context.states.remove(&self.id);
                if saved.is_some() {
                    info!(daemon = %self.id, "MPS daemon stopped");
                }
                Ok(())
            }
            (Err(error), Some(saved)) => {
                self.stop_failed(saved, &error);
                Err(error)
            }
            (Err(error), None) => Err(error),
        }
    }

    /// One that does not tell its clients may have some.
    async fn is_unused(&mut self) -> Result<(), DaemonError> {
        let clients = match &mut self.lifecycle {
            Lifecycle::Absent | Lifecycle::Stopping(_) => 0,
            Lifecycle::Exited(exited) => exited.clients.alive().len(),
            Lifecycle::Running(running) => running.count_clients().await.map_err(|error| {
                let left = format!("it does not tell its clients, {}", dra_model::chain(&error));
                DaemonError::NotStopped { id: self.id.clone(), left }
            })?,
        };
        if clients == 0 { Ok(()) } else { Err(DaemonError::InUse { id: self.id.clone(), clients }) }
    }

    async fn end(&self, running: Running, deadline: Deadline) -> SavedState {
        let Running { mut saved, handle, .. } = running;
        saved.phase = Phase::Stopping;
        if let Err(error) = self.write(&saved) {
            warn!(daemon = %self.id, %error, "stopping an MPS daemon without a note of it");
        }
        self.publish(&saved, DaemonState::Changing, "");
        request_quit(&handle.process, &handle.control, deadline.left()).await;
        handle.process.kill().await;
        saved
    }

    /// Ends its processes, which end with this container anyway, and keeps its dir: containers have it mounted, and would
    /// not see another one. The next process of this program takes the daemon for lost and starts it once its clients are
    /// exited.
    pub(super) async fn shut_down(&mut self, deadline: Deadline) {
        match std::mem::replace(&mut self.lifecycle, Lifecycle::Absent) {
            Lifecycle::Running(running) => {
                request_quit(&running.handle.process, &running.handle.control, deadline.left()).await;
                running.handle.process.kill().await;
                if let Err(error) = kill_all(&self.dir, &self.id).await {
                    error!(daemon = %self.id, %error, "an MPS daemon outlives its host");
                }
                info!(daemon = %self.id, "MPS daemon ended with its host, which starts it again when it is back");
                self.save_exited(*running);
            }
            // What was written of these still holds.
            Lifecycle::Absent | Lifecycle::Exited(_) | Lifecycle::Stopping(_) => {}
        }
    }

    fn save_exited(&self, mut running: Running) {
        running.read_log();
        let Running { mut saved, mut clients, .. } = running;
        saved.process = None;
        saved.clients.clone_from(clients.alive());
        if let Err(error) = self.write(&saved) {
            warn!(daemon = %self.id, %error, "no note of an MPS daemon that ended with its host");
        }
    }

    /// It is not there any more, although nobody ordered that.
    pub(super) fn exited_unexpectedly(&mut self, how: &str) {
        let Lifecycle::Running(mut running) = std::mem::replace(&mut self.lifecycle, Lifecycle::Absent) else { return };
        running.read_log();
        let Running { saved, mut clients, since, .. } = *running;
        let why = format!("it {how}, `{}`", log_file::excerpt(&self.dir.log_path()));
        warn!(daemon = %self.id, why, clients = clients.alive().len(), "MPS daemon died");
        self.context.metrics.exited_unexpectedly();
        let next = Instant::now() + self.back_off.delay_after(since.elapsed());
        self.enter_exited(Exited { saved, state: DaemonState::Exited { why }, clients, next, waits_since: None });
    }

    /// Ends whatever is left in the dir and takes it away. Without a dir there is nothing: it goes last.
    pub(super) async fn clear(&self) -> Result<(), DaemonError> {
        if self.dir.exists() { clear(&self.dir, &self.id).await } else { Ok(()) }
    }
}
