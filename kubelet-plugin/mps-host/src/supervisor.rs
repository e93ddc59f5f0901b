// SPDX-License-Identifier: Apache-2.0
//! One daemon from its first start to its end: the only task that touches it.
//!
//! ```text
//! absent --start--> running --ends by itself--> gone --clients gone, or claims waited long--> running
//!    ^                 |                          |
//!    +------ stop -----+---------- stop ----------+     (what does not end is leaving, until it is stopped again)
//! ```

mod ends;

mod shares;

mod starts;

use std::sync::Arc;
use std::time::Duration;

use dra_hardware::{Daemon, DaemonError, DaemonState};
use dra_model::DaemonId;
use dra_mps_api::Seen;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::adopt::{Found, find};
use crate::back_off::BackOff;
use crate::birth::Born;
use crate::clients::Clients;
use crate::death::end_daemon;
use crate::front_end::AskError;
use crate::kept::Kept;
use crate::order::{Deadline, Order};
use crate::place::{Place, PlaceError};
use crate::process::End;
use crate::running::{Looked, Running};
use crate::sharers::Sharers;
use crate::tools::Tools;

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
    sharers: Sharers,
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
    /// When a claim first waited for the end of the clients.
    waits_since: Option<Instant>,
}

impl Gone {
    /// Whether it can be started again: no client lives, or claims have waited for their end as long as they have to.
    fn is_free(&mut self, timeout: Duration) -> bool {
        self.clients.living().is_empty() || self.waits_since.is_some_and(|since| since.elapsed() >= timeout)
    }
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
        Self { id, tools, place, life: Life::Absent, back_off: BackOff::default(), sharers: Sharers::default() }
    }

    /// Of a daemon that an earlier process left and that lives.
    pub fn adopted(kept: Kept, born: Born, tools: Arc<Tools>) -> Self {
        let mut supervisor = Self::absent(kept.spec.id.clone(), tools);
        supervisor.take_over(kept, born);
        supervisor
    }

    /// Of a daemon that an earlier process left and that did not survive.
    pub async fn lost(kept: Kept, tools: Arc<Tools>) -> Self {
        let mut supervisor = Self::absent(kept.spec.id.clone(), tools);
        supervisor.lose(kept).await;
        supervisor
    }

    /// Of a daemon that an earlier process meant to end and that does not end.
    pub fn leaving(kept: Kept, error: &DaemonError, tools: Arc<Tools>) -> Self {
        let mut supervisor = Self::absent(kept.spec.id.clone(), tools);
        supervisor.leave(kept, error);
        supervisor
    }

    /// Lives as long as there is something of the daemon, or an order.
    pub async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        loop {
            match self.next(&mut orders).await {
                Happened::Ordered(None) => return,
                Happened::Ordered(Some(order)) => self.obey(order).await,
                Happened::Ended(end) => self.died(&end.to_string()),
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

    /// Nobody may wait for the answer any more. When this process stops, orders that waited are dropped unanswered, and
    /// refused by the roster.
    async fn obey(&mut self, order: Order) {
        match order {
            Order::Start { .. } | Order::Stop { .. } if self.tools.stop.is_cancelled() => {}
            Order::Start { spec, by, answer } => drop(answer.send(self.start(spec, by).await)),
            Order::Stop { unless_used, by, answer } => drop(answer.send(self.stop(unless_used, by).await)),
            Order::Share { claim, change, answer } => self.share(&claim, change, answer),
            Order::HandOver { by, answer } => {
                self.hand_over(by).await;
                answer.send(()).ok();
            }
        }
    }

    /// A supervisor that ended by a fault of this program left its daemon behind.
    async fn recover(&mut self) -> Result<(), DaemonError> {
        if !matches!(self.life, Life::Absent) {
            return Ok(());
        }
        match find(&self.id, &self.tools)? {
            Found::Living(kept, born) => self.take_over(kept, born),
            Found::Lost(kept) => self.lose(kept).await,
            Found::Leftovers(_) => {}
        }
        Ok(())
    }

    fn take_over(&mut self, kept: Kept, born: Born) {
        info!(daemon = %self.id, pid = born.process.id().pid, "found an MPS daemon that lives");
        self.find_sharers();
        self.run_on(Running::adopted(kept, born, self.place.log_path()));
    }

    /// One may live all the same, if that process ended between its start and the note of it; nobody knows its limits.
    async fn lose(&mut self, kept: Kept) {
        if let Err(error) = end_daemon(&self.place, &self.id).await {
            warn!(daemon = %self.id, %error, "an MPS daemon that nobody knows may go on");
        }
        self.find_sharers();
        let mut clients = Clients::remembered(kept.clients.clone());
        clients.note_all(&self.place.log_path());
        let living = clients.living().len();
        warn!(daemon = %self.id, clients = living, "an MPS daemon was lost with the host's last process");
        self.tools.metrics.lost();
        self.be_gone(Gone { kept, state: DaemonState::Lost, clients, next: Instant::now(), waits_since: None });
    }

    fn run_on(&mut self, running: Running) -> Daemon {
        let daemon = self.daemon(&running.kept, DaemonState::Ready);
        self.show(&running.kept, DaemonState::Ready, "");
        self.life = Life::Running(Box::new(running));
        daemon
    }

    fn be_gone(&mut self, mut gone: Gone) {
        gone.kept.process = None;
        gone.kept.clients.clone_from(gone.clients.living());
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
                if gone.is_free(self.tools.clients_timeout) {
                    // A failure was logged, and is tried again.
                    self.restart(*gone, Deadline::of(RESTART_PATIENCE)).await.map(|_daemon| ()).ok();
                } else {
                    gone.next = Instant::now() + LOOK_AT_CLIENTS;
                    self.life = Life::Gone(gone);
                }
            }
            other @ (Life::Absent | Life::Leaving(_)) => self.life = other,
        }
    }

    async fn look_at(&mut self, mut running: Box<Running>) {
        let looked = running.look().await;
        if running.is_deaf() {
            running.born.process.end().await;
            self.life = Life::Running(running);
            return self.died("gave no answer any more and was ended");
        }
        let message = self.message(&running, looked);
        let state = running.state();
        self.show(&running.kept, state, &message);
        if running.kept.clients != *running.clients.living() {
            running.kept.clients.clone_from(running.clients.living());
            if let Err(error) = self.write(&running.kept) {
                warn!(daemon = %self.id, %error, "the clients of an MPS daemon are not noted");
            }
        }
        self.life = Life::Running(running);
    }

    /// What people should know of a look.
    fn message(&self, running: &Running, looked: Result<Looked, AskError>) -> String {
        let Looked { limits_restored, fault } = match looked {
            Ok(looked) => looked,
            Err(error) => {
                warn!(daemon = %self.id, error = %dra_model::chain(&error), "an MPS daemon does not answer");
                return "it does not answer".to_owned();
            }
        };
        if fault {
            warn!(daemon = %self.id, message = running.message(), "a server of an MPS daemon failed");
            self.tools.metrics.server_failed();
        }
        if limits_restored {
            warn!(daemon = %self.id, "somebody changed the limits of an MPS daemon, they were set again");
            self.tools.metrics.limits_restored();
        }
        let message = running.message();
        if message.is_empty() && limits_restored {
            return "somebody changed the limits, they were set again".to_owned();
        }
        message.to_owned()
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
}
