// SPDX-License-Identifier: Apache-2.0
//! The ends of a daemon: ordered, by itself, and with this process.

use dra_hardware::{DaemonError, DaemonState};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{Gone, Life, Supervisor};
use crate::death::{ask_to_quit, clear, end_all};
use crate::kept::{Kept, Phase};
use crate::log_file;
use crate::order::Deadline;
use crate::running::Running;

impl Supervisor {
    /// Ends it. It is gone when nothing is left of it.
    pub(super) async fn stop(&mut self, unless_used: bool, by: Deadline) -> Result<(), DaemonError> {
        self.recover().await?;
        if unless_used {
            self.is_unused().await?;
        }
        let kept = match std::mem::replace(&mut self.life, Life::Absent) {
            Life::Absent => None,
            Life::Leaving(kept) => Some(*kept),
            Life::Gone(gone) => Some(gone.kept),
            Life::Running(running) => Some(self.end(*running, by).await),
        };
        match (self.clear().await, kept) {
            (Ok(()), kept) => {
                self.tools.board.remove(&self.id);
                if kept.is_some() {
                    info!(daemon = %self.id, "MPS daemon stopped");
                }
                Ok(())
            }
            (Err(error), Some(kept)) => {
                self.leave(kept, &error);
                Err(error)
            }
            (Err(error), None) => Err(error),
        }
    }

    /// One that does not tell its clients may have some.
    async fn is_unused(&mut self) -> Result<(), DaemonError> {
        let clients = match &mut self.life {
            Life::Absent | Life::Leaving(_) => 0,
            Life::Gone(gone) => gone.clients.living().len(),
            Life::Running(running) => running.count_clients().await.map_err(|error| {
                let left = format!("it does not tell its clients, {}", dra_model::chain(&error));
                DaemonError::NotStopped { id: self.id.clone(), left }
            })?,
        };
        if clients == 0 { Ok(()) } else { Err(DaemonError::InUse { id: self.id.clone(), clients }) }
    }

    async fn end(&self, running: Running, by: Deadline) -> Kept {
        let Running { mut kept, born, .. } = running;
        kept.phase = Phase::Stopping;
        if let Err(error) = self.write(&kept) {
            warn!(daemon = %self.id, %error, "stopping an MPS daemon without a note of it");
        }
        self.show(&kept, DaemonState::Changing, "");
        ask_to_quit(&born.process, &born.front_end, by.left()).await;
        born.process.end().await;
        kept
    }

    /// Ends its processes, which end with this container anyway, and keeps its place: containers have it mounted, and would
    /// not see another one. The next process of this program takes the daemon for lost and starts it once its clients are
    /// gone.
    pub(super) async fn hand_over(&mut self, by: Deadline) {
        match std::mem::replace(&mut self.life, Life::Absent) {
            Life::Running(running) => {
                ask_to_quit(&running.born.process, &running.born.front_end, by.left()).await;
                running.born.process.end().await;
                if let Err(error) = end_all(&self.place, &self.id).await {
                    error!(daemon = %self.id, %error, "an MPS daemon outlives its host");
                }
                info!(daemon = %self.id, "MPS daemon ended with its host, which starts it again when it is back");
                self.note_gone(*running);
            }
            // What was written of these still holds.
            Life::Absent | Life::Gone(_) | Life::Leaving(_) => {}
        }
    }

    fn note_gone(&self, mut running: Running) {
        running.read_log();
        let Running { mut kept, mut clients, .. } = running;
        kept.process = None;
        kept.clients.clone_from(clients.living());
        if let Err(error) = self.write(&kept) {
            warn!(daemon = %self.id, %error, "no note of an MPS daemon that ended with its host");
        }
    }

    /// It is not there any more, although nobody ordered that.
    pub(super) fn died(&mut self, how: &str) {
        let Life::Running(mut running) = std::mem::replace(&mut self.life, Life::Absent) else { return };
        running.read_log();
        let Running { kept, mut clients, since, .. } = *running;
        let why = format!("it {how}, `{}`", log_file::end_of(&self.place.log_path()));
        warn!(daemon = %self.id, why, clients = clients.living().len(), "MPS daemon died");
        self.tools.metrics.died();
        let next = Instant::now() + self.back_off.pause_after(since.elapsed());
        self.be_gone(Gone { kept, state: DaemonState::Exited { why }, clients, next, waits_since: None });
    }

    /// Ends whatever is left in the place and takes it away. Without a place there is nothing: it goes last.
    pub(super) async fn clear(&self) -> Result<(), DaemonError> {
        if self.place.exists() { clear(&self.place, &self.id).await } else { Ok(()) }
    }
}
