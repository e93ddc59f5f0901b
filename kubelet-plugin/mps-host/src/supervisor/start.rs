// SPDX-License-Identifier: Apache-2.0
//! From an request, or from the end of the last client of a dead daemon, to a daemon that runs.

use std::time::Duration;

use dra_hardware::{Daemon, DaemonError, DaemonSpec, DaemonState};
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Exited, Lifecycle, Supervisor};
use crate::programs::Programs;
use crate::request::Deadline;
use crate::running::Running;
use crate::start::{DaemonHandle, DaemonStart};
use crate::state_file::{Phase, SavedState};
use crate::termination::kill_all;

impl Supervisor {
    pub(super) async fn start(&mut self, spec: DaemonSpec, deadline: Deadline) -> Result<Daemon, DaemonError> {
        self.recover().await?;
        let id = self.id.clone();
        let other = match &self.lifecycle {
            Lifecycle::Running(running) => running.saved.spec != spec,
            Lifecycle::Exited(exited) => exited.saved.spec != spec,
            Lifecycle::Absent | Lifecycle::Stopping(_) => false,
        };
        if other {
            return Err(DaemonError::Different { id });
        }
        match std::mem::replace(&mut self.lifecycle, Lifecycle::Absent) {
            Lifecycle::Running(running) => {
                let reply = running.responds().await;
                let daemon = self.daemon(&running.saved, DaemonState::Ready);
                self.lifecycle = Lifecycle::Running(running);
                let silent = |error| self.not_ready(deadline, dra_model::chain(&error).to_string());
                reply.map(|()| daemon).map_err(silent)
            }
            Lifecycle::Exited(mut exited) => {
                if exited.is_free(self.context.clients_timeout) {
                    return self.restart(*exited, deadline).await;
                }
                exited.waits_since.get_or_insert_with(Instant::now);
                let clients = exited.clients.alive().len();
                self.lifecycle = Lifecycle::Exited(exited);
                Err(DaemonError::ClientsLeft { id, clients })
            }
            Lifecycle::Absent | Lifecycle::Stopping(_) => self.begin(spec, deadline).await,
        }
    }

    /// The first start. One that fails leaves nothing.
    async fn begin(&mut self, spec: DaemonSpec, deadline: Deadline) -> Result<Daemon, DaemonError> {
        if deadline.left().is_zero() {
            return Err(self.not_ready(deadline, "the MPS host was busy with it".to_owned()));
        }
        self.clear().await?;
        let saved = SavedState::new(spec, &self.context.boot_id);
        self.publish(&saved, DaemonState::Changing, "");
        let failure = match self.start_daemon(saved.clone(), deadline).await {
            Ok((saved, handle)) => {
                info!(daemon = %self.id, pid = handle.process.id().pid, multi_user = handle.multi_user, "MPS daemon started");
                return Ok(self.enter_running(Running::started(saved, handle, self.dir.log_path())));
            }
            Err(failure) => failure,
        };
        warn!(daemon = %self.id, error = %failure, "MPS daemon not started");
        match self.clear().await {
            Ok(()) => self.context.states.remove(&self.id),
            Err(error) => self.stop_failed(saved, &error),
        }
        Err(failure)
    }

    /// A later start, with the same directories for containers that have them mounted. One that fails is tried again.
    pub(super) async fn restart(&mut self, exited: Exited, deadline: Deadline) -> Result<Daemon, DaemonError> {
        let Exited { saved, state, mut clients, waits_since, .. } = exited;
        if !clients.alive().is_empty() {
            let clients = clients.alive().len();
            warn!(daemon = %self.id, clients, "the work of clients of a dead MPS daemon ends, since other claims wait for it");
        }
        let failure = match self.start_again(&saved, deadline).await {
            Ok((saved, handle)) => {
                info!(daemon = %self.id, pid = handle.process.id().pid, restarts = saved.restarts, "MPS daemon started again");
                return Ok(self.enter_running(Running::started(saved, handle, self.dir.log_path())));
            }
            Err(failure) => failure,
        };
        warn!(daemon = %self.id, error = %failure, "MPS daemon not started again (will retry)");
        let next = Instant::now() + self.back_off.delay_after(Duration::ZERO);
        self.enter_exited(Exited { saved, state, clients, next, waits_since });
        Err(failure)
    }

    /// What is left of the earlier one, such as a server that outlived it, ends now.
    async fn start_again(
        &mut self,
        saved: &SavedState,
        deadline: Deadline,
    ) -> Result<(SavedState, DaemonHandle), DaemonError> {
        kill_all(&self.dir, &self.id).await?;
        let mut saved = saved.clone();
        saved.process = None;
        self.start_daemon(saved, deadline).await
    }

    /// Makes a dir and a daemon in it.
    async fn start_daemon(
        &mut self,
        mut saved: SavedState,
        deadline: Deadline,
    ) -> Result<(SavedState, DaemonHandle), DaemonError> {
        let begun = Instant::now();
        let handle = self.start_in_dir(&saved, deadline).await;
        self.context.metrics.started(handle.is_ok(), begun.elapsed());
        let handle = handle?;
        if saved.phase == Phase::Running {
            saved.restarts += 1;
        }
        saved.phase = Phase::Running;
        saved.multi_user = handle.multi_user;
        saved.process = Some(handle.process.id());
        saved.clients.clear();
        if let Err(error) = self.write(&saved) {
            handle.process.kill().await;
            return Err(error);
        }
        Ok((saved, handle))
    }

    async fn start_in_dir(&self, saved: &SavedState, deadline: Deadline) -> Result<DaemonHandle, DaemonError> {
        let programs = Programs::find(&self.context.driver_root)?;
        let (dir, shm_bytes) = (self.dir.clone(), self.context.shm_bytes);
        let made = spawn_blocking(move || dir.make(shm_bytes)).await;
        let made = made.map_err(|panic| self.not_ready(deadline, panic.to_string()))?;
        made.map_err(|error| error.into_daemon_error(&self.id))?;
        self.write(saved)?;
        DaemonStart { spec: &saved.spec, dir: &self.dir, programs: &programs, deadline }.run().await
    }

    fn not_ready(&self, deadline: Deadline, seen: String) -> DaemonError {
        DaemonError::NotReady { id: self.id.clone(), waited: deadline.timeout.saturating_sub(deadline.left()), seen }
    }
}
