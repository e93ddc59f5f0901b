// SPDX-License-Identifier: Apache-2.0
//! One daemon from its first start to its end: the only task that touches it.
//!
//! ```text
//! absent --start--> running --ends by itself--> gone --clients gone--> running
//!    ^                 |                          |
//!    +------ stop -----+---------- stop ----------+     (what does not end is leaving, until it is stopped again)
//! ```

use std::sync::Arc;
use std::time::Duration;

use dra_hardware::{Daemon, DaemonError, DaemonSpec, DaemonState};
use dra_model::DaemonId;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::back_off::BackOff;
use super::birth::{Birth, Born};
use super::board::Seen;
use super::clients::Clients;
use super::death::{ask_to_quit, clear, end_all};
use super::kept::{Kept, Phase};
use super::log_file;
use super::order::Order;
use super::place::{Place, PlaceError};
use super::process::End;
use super::programs::Programs;
use super::running::{Looked, Running};
use super::tools::Tools;

/// Between two looks at a daemon that runs.
const LOOK: Duration = Duration::from_secs(2);

/// Between two looks at the clients of one that is gone.
const LOOK_AT_CLIENTS: Duration = Duration::from_millis(500);

/// How long a daemon may take to come back.
const RESTART_PATIENCE: Duration = Duration::from_secs(10);

/// One daemon.
#[derive(Debug)]
pub struct Supervisor {
    id: DaemonId,
    tools: Arc<Tools>,
    place: Place,
    life: Life,
    back_off: BackOff,
}

#[derive(Debug)]
enum Life {
    Absent,
    Running(Box<Running>),
    Gone(Box<Gone>),
    Leaving(Box<Kept>),
}

#[derive(Debug)]
struct Gone {
    kept: Kept,
    state: DaemonState,
    clients: Clients,
    next: Instant,
}

/// What a supervisor waits for.
enum Happened {
    Ordered(Option<Order>),
    Ended(End),
    Time,
}

impl Supervisor {
    /// Of a daemon that is not there.
    pub fn absent(id: DaemonId, tools: Arc<Tools>) -> Self {
        let place = Place::new(&tools.root, &id);
        Self { id, tools, place, life: Life::Absent, back_off: BackOff::default() }
    }

    /// Of a daemon that an earlier process left and that lives.
    pub async fn adopted(kept: Kept, born: Born, tools: Arc<Tools>) -> Self {
        let mut supervisor = Self::absent(kept.spec.id.clone(), tools);
        let mut clients = Clients::remembered(kept.clients.clone());
        if let Err(error) = clients.ask(&born.front_end).await {
            warn!(daemon = %supervisor.id, error = %dra_runtime::chain(&error), "an adopted daemon does not tell its clients");
        }
        supervisor.run_on(kept, born, clients);
        supervisor
    }

    /// Of a daemon that an earlier process left and that did not survive.
    pub fn lost(kept: Kept, tools: Arc<Tools>) -> Self {
        let mut supervisor = Self::absent(kept.spec.id.clone(), tools);
        supervisor.tools.metrics.lost();
        let clients = Clients::remembered(kept.clients.clone());
        supervisor.be_gone(Gone { kept, state: DaemonState::Lost, clients, next: Instant::now() });
        supervisor
    }

    /// Lives as long as there is something of the daemon, or an order.
    pub async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        loop {
            match self.next(&mut orders).await {
                Happened::Ordered(None) => return,
                Happened::Ordered(Some(order)) => self.obey(order).await,
                Happened::Ended(end) => self.died(end),
                Happened::Time => self.look().await,
            }
            if matches!(self.life, Life::Absent) {
                // Whoever ordered something meanwhile hears nothing, and orders it anew.
                orders.close();
                return;
            }
        }
    }

    async fn next(&self, orders: &mut mpsc::Receiver<Order>) -> Happened {
        match &self.life {
            Life::Absent | Life::Leaving(_) => Happened::Ordered(orders.recv().await),
            Life::Running(running) => tokio::select! {
                order = orders.recv() => Happened::Ordered(order),
                end = running.born.process.ended() => Happened::Ended(end),
                () = sleep_until(Instant::now() + LOOK) => Happened::Time,
            },
            Life::Gone(gone) => tokio::select! {
                order = orders.recv() => Happened::Ordered(order),
                () = sleep_until(gone.next) => Happened::Time,
            },
        }
    }

    /// Nobody may wait for the answer any more.
    async fn obey(&mut self, order: Order) {
        match order {
            Order::Start { spec, patience, answer } => drop(answer.send(self.start(spec, patience).await)),
            Order::Stop { patience, answer } => drop(answer.send(self.stop(patience).await)),
        }
    }

    async fn start(&mut self, spec: DaemonSpec, patience: Duration) -> Result<Daemon, DaemonError> {
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
                let daemon = self.daemon(&running.kept, DaemonState::Ready);
                self.life = Life::Running(running);
                Ok(daemon)
            }
            Life::Gone(mut gone) => {
                let clients = gone.clients.living().len();
                let answer = if clients > 0 { Err(DaemonError::ClientsLeft { id, clients }) } else { Ok(()) };
                match answer {
                    Ok(()) => self.restart(*gone, patience).await,
                    Err(error) => {
                        self.life = Life::Gone(gone);
                        Err(error)
                    }
                }
            }
            Life::Absent | Life::Leaving(_) => self.begin(spec, patience).await,
        }
    }

    /// The first start. One that fails leaves nothing.
    async fn begin(&mut self, spec: DaemonSpec, patience: Duration) -> Result<Daemon, DaemonError> {
        self.clear().await?;
        let kept = Kept::new(spec, &self.tools.boot_id);
        self.show(&kept, DaemonState::Changing, "");
        let failure = match self.bear(kept.clone(), patience).await {
            Ok((kept, born)) => {
                info!(daemon = %self.id, pid = born.process.id().pid, multi_user = born.multi_user, "MPS daemon started");
                return Ok(self.run_on(kept, born, Clients::default()));
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
    async fn restart(&mut self, gone: Gone, patience: Duration) -> Result<Daemon, DaemonError> {
        let Gone { kept, state, clients, .. } = gone;
        let failure = match self.bear_again(&kept, patience).await {
            Ok((kept, born)) => {
                info!(daemon = %self.id, pid = born.process.id().pid, restarts = kept.restarts, "MPS daemon started again");
                return Ok(self.run_on(kept, born, Clients::default()));
            }
            Err(failure) => failure,
        };
        warn!(daemon = %self.id, error = %failure, "MPS daemon not started again (will retry)");
        let next = Instant::now() + self.back_off.pause_after(Duration::ZERO);
        self.be_gone(Gone { kept, state, clients, next });
        Err(failure)
    }

    /// What is left of the earlier one, such as a server that outlived it, ends now.
    async fn bear_again(&mut self, kept: &Kept, patience: Duration) -> Result<(Kept, Born), DaemonError> {
        end_all(&self.place, &self.id).await?;
        let mut kept = kept.clone();
        kept.process = None;
        self.bear(kept, patience).await
    }

    /// Makes a place and a daemon in it.
    async fn bear(&mut self, mut kept: Kept, patience: Duration) -> Result<(Kept, Born), DaemonError> {
        let begun = Instant::now();
        let born = self.bear_in_place(&kept, patience).await;
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

    async fn bear_in_place(&self, kept: &Kept, patience: Duration) -> Result<Born, DaemonError> {
        let end = Instant::now() + patience;
        let programs = Programs::find(&self.tools.driver_root)?;
        let (place, shm_bytes) = (self.place.clone(), self.tools.shm_bytes);
        let made = spawn_blocking(move || place.make(shm_bytes)).await;
        let made = made.map_err(|panic| self.no_place(&panic))?;
        made.map_err(|error| error.into_daemon_error(&self.id))?;
        self.write(kept)?;
        Birth { spec: &kept.spec, place: &self.place, programs: &programs, patience, end }.bear().await
    }

    fn run_on(&mut self, kept: Kept, born: Born, clients: Clients) -> Daemon {
        let daemon = self.daemon(&kept, DaemonState::Ready);
        self.show(&kept, DaemonState::Ready, "");
        self.life = Life::Running(Box::new(Running::new(kept, born, self.place.log_path(), clients)));
        daemon
    }

    /// Ends it. It is gone when nothing is left of it.
    async fn stop(&mut self, patience: Duration) -> Result<(), DaemonError> {
        let kept = match std::mem::replace(&mut self.life, Life::Absent) {
            Life::Absent => None,
            Life::Leaving(kept) => Some(*kept),
            Life::Gone(gone) => Some(gone.kept),
            Life::Running(running) => {
                let Running { mut kept, born, .. } = *running;
                kept.phase = Phase::Stopping;
                if let Err(error) = self.write(&kept) {
                    warn!(daemon = %self.id, %error, "stopping an MPS daemon without a note of it");
                }
                self.show(&kept, DaemonState::Changing, "");
                ask_to_quit(&born.process, &born.front_end, patience).await;
                born.process.end().await;
                Some(kept)
            }
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

    fn died(&mut self, end: End) {
        let Life::Running(running) = std::mem::replace(&mut self.life, Life::Absent) else { return };
        let Running { mut kept, mut log, mut clients, since, .. } = *running;
        // What cannot be read any more tells of no more clients.
        log.news().unwrap_or_default().into_iter().for_each(|event| clients.note(event));
        kept.clients.clone_from(clients.living());
        kept.process = None;
        let why = format!("it {end}, `{}`", log_file::end_of(&self.place.log_path()));
        warn!(daemon = %self.id, why, clients = kept.clients.len(), "MPS daemon died");
        self.tools.metrics.died();
        let next = Instant::now() + self.back_off.pause_after(since.elapsed());
        self.be_gone(Gone { kept, state: DaemonState::Died { why }, clients, next });
    }

    fn be_gone(&mut self, gone: Gone) {
        if let Err(error) = self.write(&gone.kept) {
            warn!(daemon = %self.id, %error, "no note of an MPS daemon that is gone");
        }
        self.show(&gone.kept, gone.state.clone(), "");
        self.life = Life::Gone(Box::new(gone));
    }

    fn leave(&mut self, kept: Kept, error: &DaemonError) {
        warn!(daemon = %self.id, %error, "MPS daemon not ended (will retry when asked)");
        self.show(&kept, DaemonState::Changing, &error.to_string());
        self.life = Life::Leaving(Box::new(kept));
    }

    async fn look(&mut self) {
        match std::mem::replace(&mut self.life, Life::Absent) {
            Life::Running(running) => self.look_at(running).await,
            Life::Gone(mut gone) => {
                if gone.clients.living().is_empty() {
                    // A failure was logged, and is tried again.
                    self.restart(*gone, RESTART_PATIENCE).await.map(|_daemon| ()).ok();
                } else {
                    gone.next = Instant::now() + LOOK_AT_CLIENTS;
                    self.life = Life::Gone(gone);
                }
            }
            other @ (Life::Absent | Life::Leaving(_)) => self.life = other,
        }
    }

    async fn look_at(&mut self, mut running: Box<Running>) {
        let message = match running.look().await {
            Ok(Looked::Fine) => "",
            Ok(Looked::LimitsRestored) => {
                warn!(daemon = %self.id, "somebody changed the limits of an MPS daemon, they were set again");
                self.tools.metrics.limits_restored();
                "somebody changed the limits, they were set again"
            }
            Err(error) => {
                warn!(daemon = %self.id, error = %dra_runtime::chain(&error), "an MPS daemon does not answer");
                "it does not answer"
            }
        };
        let state = running.state();
        self.show(&running.kept, state, message);
        if running.kept.clients != *running.clients.living() {
            running.kept.clients.clone_from(running.clients.living());
            if let Err(error) = self.write(&running.kept) {
                warn!(daemon = %self.id, %error, "the clients of an MPS daemon are not noted");
            }
        }
        self.life = Life::Running(running);
    }

    /// Ends whatever is left in the place and takes it away. Without a place there is nothing: it goes last.
    async fn clear(&self) -> Result<(), DaemonError> {
        if self.place.exists() { clear(&self.place, &self.id).await } else { Ok(()) }
    }

    fn show(&self, kept: &Kept, state: DaemonState, message: &str) {
        let daemon = self.daemon(kept, state);
        let (spec, message) = (kept.spec.clone(), message.to_owned());
        self.tools.board.show(&Seen { spec, daemon, message, restarts: kept.restarts });
    }

    fn daemon(&self, kept: &Kept, state: DaemonState) -> Daemon {
        let (run_dir, shm_dir) = (self.place.run_dir(), self.place.shm_dir());
        Daemon { id: self.id.clone(), state, run_dir, shm_dir, multi_user: kept.multi_user }
    }

    fn write(&self, kept: &Kept) -> Result<(), DaemonError> {
        let path = self.place.kept_path();
        let failed = |source| PlaceError::Make { path: path.clone(), source }.into_daemon_error(&self.id);
        kept.write(&path).map_err(failed)
    }

    fn no_place(&self, why: &dyn std::fmt::Display) -> DaemonError {
        DaemonError::NoPlace { id: self.id.clone(), path: self.place.run_dir(), why: why.to_string() }
    }
}
