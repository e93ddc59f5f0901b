// SPDX-License-Identifier: Apache-2.0
//! The ends of a daemon: by a stop request, by itself, and with this process.

use dra_hardware::{DaemonError, DaemonState};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{Exited, Lifecycle, Supervisor};
use crate::log_file;
use crate::request::Deadline;
use crate::running::Running;
use crate::state_file::{Phase, SavedState};
use crate::termination::{kill_all, remove_daemon, request_quit};

impl Supervisor {
    /// Stops the daemon and removes everything of it.
    pub(super) async fn stop(&mut self, unless_used: bool, deadline: Deadline) -> Result<(), DaemonError> {
        self.recover().await?;
        if unless_used {
            self.is_unused().await?;
        }
        let saved = match std::mem::replace(&mut self.lifecycle, Lifecycle::Absent) {
            Lifecycle::Absent => None,
            Lifecycle::Stopping(saved) => Some(*saved),
            Lifecycle::Exited(exited) => Some(exited.saved),
            Lifecycle::Running(running) => Some(self.terminate(*running, deadline).await),
        };
        match (self.remove_all().await, saved) {
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

    /// Whether the daemon has no clients. A daemon that does not answer may have some.
    async fn is_unused(&mut self) -> Result<(), DaemonError> {
        let clients = match &mut self.lifecycle {
            Lifecycle::Absent | Lifecycle::Stopping(_) => 0,
            Lifecycle::Exited(exited) => exited.clients.alive().len(),
            Lifecycle::Running(running) => running.count_clients().await.map_err(|error| {
                let left = format!("its clients are unknown: {}", dra_model::chain(&error));
                DaemonError::NotStopped { id: self.id.clone(), left }
            })?,
        };
        if clients == 0 { Ok(()) } else { Err(DaemonError::InUse { id: self.id.clone(), clients }) }
    }

    async fn terminate(&self, running: Running, deadline: Deadline) -> SavedState {
        let Running { mut saved, handle, .. } = running;
        saved.phase = Phase::Stopping;
        if let Err(error) = self.write(&saved) {
            warn!(daemon = %self.id, %error, "failed to save the state of an MPS daemon before its stop");
        }
        self.publish(&saved, DaemonState::Changing, "");
        request_quit(&handle.process, &handle.control, deadline.remaining()).await;
        handle.process.kill().await;
        saved
    }

    /// Terminates the processes of the daemon and keeps its directory: containers have it mounted and would not see another
    /// one. The end of this container would kill the processes anyway. The next process of this program counts the daemon
    /// as lost and starts it after its clients.
    pub(super) async fn shut_down(&mut self, deadline: Deadline) {
        match std::mem::replace(&mut self.lifecycle, Lifecycle::Absent) {
            Lifecycle::Running(running) => {
                request_quit(&running.handle.process, &running.handle.control, deadline.remaining()).await;
                running.handle.process.kill().await;
                if let Err(error) = kill_all(&self.dir, &self.id).await {
                    error!(daemon = %self.id, %error, "failed to kill all processes of an MPS daemon");
                }
                info!(daemon = %self.id, "MPS daemon terminated with the MPS host, which restarts it after its own restart");
                self.save_exited(*running);
            }
            // The state file of these is up to date.
            Lifecycle::Absent | Lifecycle::Exited(_) | Lifecycle::Stopping(_) => {}
        }
    }

    fn save_exited(&self, running: Running) {
        let (mut saved, mut clients) = running.into_clients(&self.dir.log_path());
        saved.process = None;
        saved.clients.clone_from(clients.alive());
        if let Err(error) = self.write(&saved) {
            warn!(daemon = %self.id, %error, "failed to save the state of a terminated MPS daemon");
        }
    }

    /// Records an exit without a request.
    pub(super) fn exited_unexpectedly(&mut self, how: &str) {
        let Lifecycle::Running(running) = std::mem::replace(&mut self.lifecycle, Lifecycle::Absent) else { return };
        let since = running.since;
        let (saved, mut clients) = running.into_clients(&self.dir.log_path());
        let why = format!("{how}; end of its log: `{}`", log_file::excerpt(&self.dir.log_path()));
        warn!(daemon = %self.id, why, clients = clients.alive().len(), "MPS daemon exited unexpectedly");
        self.context.metrics.exited();
        let next = Instant::now() + self.back_off.delay_after(since.elapsed());
        let state = DaemonState::Exited { why };
        self.enter_exited(Exited { saved, state, clients, next, requested_since: None, gpu_fault: None });
    }

    /// Kills every process of the daemon and removes its directory. The directory is removed last, so without it there is
    /// no process.
    pub(super) async fn remove_all(&self) -> Result<(), DaemonError> {
        if self.dir.exists() { remove_daemon(&self.dir, &self.id).await } else { Ok(()) }
    }
}
