// SPDX-License-Identifier: Apache-2.0
//! From an order, or from the end of the last client of a dead daemon, to a daemon that runs.

use std::time::Duration;

use dra_hardware::{Daemon, DaemonError, DaemonSpec, DaemonState};
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Gone, Life, Supervisor};
use crate::birth::{Birth, Born};
use crate::death::end_all;
use crate::kept::{Kept, Phase};
use crate::order::Deadline;
use crate::programs::Programs;
use crate::running::Running;

impl Supervisor {
    pub(super) async fn start(&mut self, spec: DaemonSpec, by: Deadline) -> Result<Daemon, DaemonError> {
        self.recover().await?;
        let id = self.id.clone();
        let other = match &self.life {
            Life::Running(running) => running.kept.spec != spec,
            Life::Gone(gone) => gone.kept.spec != spec,
            Life::Absent | Life::Leaving(_) => false,
        };
        if other {
            return Err(DaemonError::Different { id });
        }
        match std::mem::replace(&mut self.life, Life::Absent) {
            Life::Running(running) => {
                let answer = running.answers().await;
                let daemon = self.daemon(&running.kept, DaemonState::Ready);
                self.life = Life::Running(running);
                let silent = |error| self.not_ready(by, dra_model::chain(&error).to_string());
                answer.map(|()| daemon).map_err(silent)
            }
            Life::Gone(mut gone) => {
                if gone.is_free(self.tools.clients_timeout) {
                    return self.restart(*gone, by).await;
                }
                gone.waits_since.get_or_insert_with(Instant::now);
                let clients = gone.clients.living().len();
                self.life = Life::Gone(gone);
                Err(DaemonError::ClientsLeft { id, clients })
            }
            Life::Absent | Life::Leaving(_) => self.begin(spec, by).await,
        }
    }

    /// The first start. One that fails leaves nothing.
    async fn begin(&mut self, spec: DaemonSpec, by: Deadline) -> Result<Daemon, DaemonError> {
        if by.left().is_zero() {
            return Err(self.not_ready(by, "the MPS host was busy with it".to_owned()));
        }
        self.clear().await?;
        let kept = Kept::new(spec, &self.tools.boot_id);
        self.show(&kept, DaemonState::Changing, "");
        let failure = match self.bear(kept.clone(), by).await {
            Ok((kept, born)) => {
                info!(daemon = %self.id, pid = born.process.id().pid, multi_user = born.multi_user, "MPS daemon started");
                return Ok(self.run_on(Running::started(kept, born, self.place.log_path())));
            }
            Err(failure) => failure,
        };
        warn!(daemon = %self.id, error = %failure, "MPS daemon not started");
        match self.clear().await {
            Ok(()) => self.tools.board.remove(&self.id),
            Err(error) => self.leave(kept, &error),
        }
        Err(failure)
    }

    /// A later start, with the same directories for containers that have them mounted. One that fails is tried again.
    pub(super) async fn restart(&mut self, gone: Gone, by: Deadline) -> Result<Daemon, DaemonError> {
        let Gone { kept, state, mut clients, waits_since, .. } = gone;
        if !clients.living().is_empty() {
            let clients = clients.living().len();
            warn!(daemon = %self.id, clients, "the work of clients of a dead MPS daemon ends, since other claims wait for it");
        }
        let failure = match self.bear_again(&kept, by).await {
            Ok((kept, born)) => {
                info!(daemon = %self.id, pid = born.process.id().pid, restarts = kept.restarts, "MPS daemon started again");
                return Ok(self.run_on(Running::started(kept, born, self.place.log_path())));
            }
            Err(failure) => failure,
        };
        warn!(daemon = %self.id, error = %failure, "MPS daemon not started again (will retry)");
        let next = Instant::now() + self.back_off.pause_after(Duration::ZERO);
        self.be_gone(Gone { kept, state, clients, next, waits_since });
        Err(failure)
    }

    /// What is left of the earlier one, such as a server that outlived it, ends now.
    async fn bear_again(&mut self, kept: &Kept, by: Deadline) -> Result<(Kept, Born), DaemonError> {
        end_all(&self.place, &self.id).await?;
        let mut kept = kept.clone();
        kept.process = None;
        self.bear(kept, by).await
    }

    /// Makes a place and a daemon in it.
    async fn bear(&mut self, mut kept: Kept, by: Deadline) -> Result<(Kept, Born), DaemonError> {
        let begun = Instant::now();
        let born = self.bear_in_place(&kept, by).await;
        self.tools.metrics.started(born.is_ok(), begun.elapsed());
        let born = born?;
        if kept.phase == Phase::Running {
            kept.restarts += 1;
        }
        kept.phase = Phase::Running;
        kept.multi_user = born.multi_user;
        kept.process = Some(born.process.id());
        kept.clients.clear();
        if let Err(error) = self.write(&kept) {
            born.process.end().await;
            return Err(error);
        }
        Ok((kept, born))
    }

    async fn bear_in_place(&self, kept: &Kept, by: Deadline) -> Result<Born, DaemonError> {
        let programs = Programs::find(&self.tools.driver_root)?;
        let (place, shm_bytes) = (self.place.clone(), self.tools.shm_bytes);
        let made = spawn_blocking(move || place.make(shm_bytes)).await;
        let made = made.map_err(|panic| self.not_ready(by, panic.to_string()))?;
        made.map_err(|error| error.into_daemon_error(&self.id))?;
        self.write(kept)?;
        Birth { spec: &kept.spec, place: &self.place, programs: &programs, by }.bear().await
    }

    fn not_ready(&self, by: Deadline, seen: String) -> DaemonError {
        DaemonError::NotReady { id: self.id.clone(), waited: by.patience.saturating_sub(by.left()), seen }
    }
}
