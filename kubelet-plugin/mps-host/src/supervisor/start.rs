// SPDX-License-Identifier: Apache-2.0
//! Starts of a daemon: by a request, or after the last client of an exited daemon.

use std::time::Duration;

use dra_hardware::{Daemon, DaemonError, DaemonSpec, DaemonState};
use dra_mps::launch::CONTROL_SOCKET;
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
        if let Some(why) = self.context.gpu_faults.of(&id) {
            return Err(DaemonError::GpuFailed { id, why });
        }
        match std::mem::replace(&mut self.lifecycle, Lifecycle::Absent) {
            Lifecycle::Running(mut running) => {
                let answer = running.ensure_responds(&self.dir.pipe_dir().join(CONTROL_SOCKET)).await;
                let daemon = self.daemon(&running.saved, DaemonState::Ready);
                self.lifecycle = Lifecycle::Running(running);
                let no_answer = |error| self.not_ready(deadline, dra_model::chain(&error).to_string());
                answer.map(|()| daemon).map_err(no_answer)
            }
            Lifecycle::Exited(mut exited) => {
                // The end of the fault may not be taken over yet.
                exited.gpu_fault = None;
                if exited.can_restart(self.context.clients_timeout) {
                    return self.restart(*exited, deadline).await;
                }
                exited.requested_since.get_or_insert_with(Instant::now);
                let clients = exited.clients.alive().len();
                self.lifecycle = Lifecycle::Exited(exited);
                Err(DaemonError::ClientsLeft { id, clients })
            }
            Lifecycle::Absent | Lifecycle::Stopping(_) => self.begin(spec, deadline).await,
        }
    }

    /// The first start. A failed one leaves nothing.
    async fn begin(&mut self, spec: DaemonSpec, deadline: Deadline) -> Result<Daemon, DaemonError> {
        if deadline.remaining().is_zero() {
            return Err(self.not_ready(deadline, "the MPS host was busy with an earlier request".to_owned()));
        }
        self.remove_all().await?;
        let saved = SavedState::new(spec, &self.context.boot_id);
        self.publish(&saved, DaemonState::Changing, "");
        let failure = match self.start_daemon(saved.clone(), deadline).await {
            Ok((saved, handle)) => {
                info!(daemon = %self.id, pid = handle.process.id().pid, multi_user = handle.multi_user, "MPS daemon started");
                return Ok(self.enter_running(Running::started(saved, handle, self.dir.log_path())));
            }
            Err(failure) => failure,
        };
        warn!(daemon = %self.id, error = %failure, "failed to start an MPS daemon");
        match self.remove_all().await {
            Ok(()) => self.context.states.remove(&self.id),
            Err(error) => self.stop_failed(saved, &error),
        }
        Err(failure)
    }

    /// A later start in the same directories, because containers have them mounted. A failed one is tried again.
    pub(super) async fn restart(&mut self, exited: Exited, deadline: Deadline) -> Result<Daemon, DaemonError> {
        let Exited { saved, state, mut clients, requested_since, next: _, gpu_fault } = exited;
        if !clients.alive().is_empty() {
            let clients = clients.alive().len();
            warn!(daemon = %self.id, clients, "ending the clients of an exited MPS daemon because other claims wait for them");
        }
        let failure = match self.start_again(&saved, deadline).await {
            Ok((saved, handle)) => {
                info!(daemon = %self.id, pid = handle.process.id().pid, restarts = saved.restarts, "MPS daemon restarted");
                return Ok(self.enter_running(Running::started(saved, handle, self.dir.log_path())));
            }
            Err(failure) => failure,
        };
        warn!(daemon = %self.id, error = %failure, "failed to restart an MPS daemon, trying again");
        let next = Instant::now() + self.back_off.delay_after(Duration::ZERO);
        self.enter_exited(Exited { saved, state, clients, next, requested_since, gpu_fault });
        Err(failure)
    }

    /// Kills what is left of the exited daemon, such as its servers, and starts it.
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

    /// Creates the directory and starts the daemon in it.
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
        let created = spawn_blocking(move || dir.create(shm_bytes)).await;
        let created = created.map_err(|panic| self.not_ready(deadline, panic.to_string()))?;
        created.map_err(|error| error.into_daemon_error(&self.id))?;
        self.write(saved)?;
        DaemonStart { spec: &saved.spec, dir: &self.dir, programs: &programs, deadline }.run().await
    }

    fn not_ready(&self, deadline: Deadline, seen: String) -> DaemonError {
        DaemonError::NotReady {
            id: self.id.clone(),
            waited: deadline.timeout.saturating_sub(deadline.remaining()),
            seen,
        }
    }
}
