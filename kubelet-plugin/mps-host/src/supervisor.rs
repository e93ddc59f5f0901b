// SPDX-License-Identifier: Apache-2.0
//! One daemon from its first start to its end: the only task that touches it.
//!
//! ```text
//! absent --start--> running --ends by itself--> exited --clients exited, or claims waited long--> running
//!    ^                 |                          |
//!    +------ stop -----+---------- stop ----------+     (what does not end is leaving, until it is stopped again)
//! ```

mod stop;

mod share;

mod start;

use std::sync::Arc;
use std::time::Duration;

use dra_hardware::{Daemon, DaemonError, DaemonState};
use dra_model::DaemonId;
use dra_mps_api::ObservedDaemon;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::adopt::{Found, find};
use crate::back_off::BackOff;
use crate::clients::Clients;
use crate::context::Context;
use crate::control_client::ControlError;
use crate::daemon_dir::{DaemonDir, DaemonDirError};
use crate::process::Exit;
use crate::request::{Deadline, Request};
use crate::running::{CheckResult, Running};
use crate::sharing_claims::SharingClaims;
use crate::start::DaemonHandle;
use crate::state_file::SavedState;
use crate::termination::kill_control_daemon;

/// Between two looks at a daemon that runs.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Between two looks at the clients of one that is exited.
const CLIENT_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// How long a daemon may take to come back.
const RESTART_TIMEOUT: Duration = Duration::from_secs(10);

/// One daemon.
#[derive(Debug)]
pub struct Supervisor {
    id: DaemonId,
    context: Arc<Context>,
    dir: DaemonDir,
    lifecycle: Lifecycle,
    back_off: BackOff,
    sharing_claims: SharingClaims,
}

#[derive(Debug)]
enum Lifecycle {
    Absent,
    Running(Box<Running>),
    Exited(Box<Exited>),
    Stopping(Box<SavedState>),
}

#[derive(Debug)]
struct Exited {
    saved: SavedState,
    state: DaemonState,
    clients: Clients,
    next: Instant,
    /// When a claim first waited for the end of the clients.
    waits_since: Option<Instant>,
}

impl Exited {
    /// Whether it can be started again: no client is_alive, or claims have waited for their end as long as they have to.
    fn is_free(&mut self, timeout: Duration) -> bool {
        self.clients.alive().is_empty() || self.waits_since.is_some_and(|since| since.elapsed() >= timeout)
    }
}

/// What a supervisor waits for.
enum Wakeup {
    Request(Option<Request>),
    Exited(Exit),
    Timer,
}

impl Supervisor {
    /// Of a daemon that is not there.
    pub fn absent(id: DaemonId, context: Arc<Context>) -> Self {
        let dir = DaemonDir::new(&context.root, &id);
        Self {
            id,
            context,
            dir,
            lifecycle: Lifecycle::Absent,
            back_off: BackOff::default(),
            sharing_claims: SharingClaims::default(),
        }
    }

    /// Of a daemon that an earlier process left and that is_alive.
    pub fn adopted(saved: SavedState, handle: DaemonHandle, context: Arc<Context>) -> Self {
        let mut supervisor = Self::absent(saved.spec.id.clone(), context);
        supervisor.adopt(saved, handle);
        supervisor
    }

    /// Of a daemon that an earlier process left and that did not survive.
    pub async fn lost(saved: SavedState, context: Arc<Context>) -> Self {
        let mut supervisor = Self::absent(saved.spec.id.clone(), context);
        supervisor.mark_lost(saved).await;
        supervisor
    }

    /// Of a daemon that an earlier process meant to end and that does not end.
    pub fn stopping(saved: SavedState, error: &DaemonError, context: Arc<Context>) -> Self {
        let mut supervisor = Self::absent(saved.spec.id.clone(), context);
        supervisor.stop_failed(saved, error);
        supervisor
    }

    /// Lives as long as there is something of the daemon, or an request.
    pub async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        loop {
            match self.next(&mut requests).await {
                Wakeup::Request(None) => return,
                Wakeup::Request(Some(request)) => self.handle_request(request).await,
                Wakeup::Exited(end) => self.exited_unexpectedly(&end.to_string()),
                Wakeup::Timer => self.check().await,
            }
            if matches!(self.lifecycle, Lifecycle::Absent) {
                // Whoever ordered something meanwhile hears nothing, and requests it anew.
                requests.close();
                return;
            }
        }
    }

    async fn next(&self, requests: &mut mpsc::Receiver<Request>) -> Wakeup {
        match &self.lifecycle {
            Lifecycle::Absent | Lifecycle::Stopping(_) => Wakeup::Request(requests.recv().await),
            Lifecycle::Running(running) => tokio::select! {
                request = requests.recv() => Wakeup::Request(request),
                end = running.handle.process.wait_exit() => Wakeup::Exited(end),
                () = sleep_until(Instant::now() + CHECK_INTERVAL) => Wakeup::Timer,
            },
            Lifecycle::Exited(exited) => tokio::select! {
                request = requests.recv() => Wakeup::Request(request),
                () = sleep_until(exited.next) => Wakeup::Timer,
            },
        }
    }

    /// Nobody may wait for the reply any more. When this process stops, requests that waited are dropped unanswered, and
    /// refused by the daemons.
    async fn handle_request(&mut self, request: Request) {
        match request {
            Request::Start { .. } | Request::Stop { .. } if self.context.stop.is_cancelled() => {}
            Request::Start { spec, deadline, reply } => drop(reply.send(self.start(spec, deadline).await)),
            Request::Stop { unless_used, deadline, reply } => drop(reply.send(self.stop(unless_used, deadline).await)),
            Request::Share { claim, change, reply } => self.share(&claim, change, reply),
            Request::Shutdown { deadline, reply } => {
                self.shut_down(deadline).await;
                reply.send(()).ok();
            }
        }
    }

    /// A supervisor that ended by a fault of this program left its daemon behind.
    async fn recover(&mut self) -> Result<(), DaemonError> {
        if !matches!(self.lifecycle, Lifecycle::Absent) {
            return Ok(());
        }
        match find(&self.id, &self.context)? {
            Found::Running(saved, handle) => self.adopt(saved, handle),
            Found::Lost(saved) => self.mark_lost(saved).await,
            Found::Leftovers(_) => {}
        }
        Ok(())
    }

    fn adopt(&mut self, saved: SavedState, handle: DaemonHandle) {
        info!(daemon = %self.id, pid = handle.process.id().pid, "found an MPS daemon that is_alive");
        self.find_sharing_claims();
        self.enter_running(Running::adopted(saved, handle, self.dir.log_path()));
    }

    /// One may live all the same, if that process ended between its start and the note of it; nobody knows its limits.
    async fn mark_lost(&mut self, saved: SavedState) {
        if let Err(error) = kill_control_daemon(&self.dir, &self.id).await {
            warn!(daemon = %self.id, %error, "an MPS daemon that nobody knows may go on");
        }
        self.find_sharing_claims();
        let mut clients = Clients::with_known(saved.clients.clone());
        clients.record_log(&self.dir.log_path());
        let alive = clients.alive().len();
        warn!(daemon = %self.id, clients = alive, "an MPS daemon was lost with the host's last process");
        self.context.metrics.lost();
        self.enter_exited(Exited { saved, state: DaemonState::Lost, clients, next: Instant::now(), waits_since: None });
    }

    fn enter_running(&mut self, running: Running) -> Daemon {
        let daemon = self.daemon(&running.saved, DaemonState::Ready);
        self.publish(&running.saved, DaemonState::Ready, "");
        self.lifecycle = Lifecycle::Running(Box::new(running));
        daemon
    }

    fn enter_exited(&mut self, mut exited: Exited) {
        exited.saved.process = None;
        exited.saved.clients.clone_from(exited.clients.alive());
        if let Err(error) = self.write(&exited.saved) {
            warn!(daemon = %self.id, %error, "no note of an MPS daemon that is exited");
        }
        self.publish(&exited.saved, exited.state.clone(), "");
        self.lifecycle = Lifecycle::Exited(Box::new(exited));
    }

    fn stop_failed(&mut self, saved: SavedState, error: &DaemonError) {
        warn!(daemon = %self.id, %error, "MPS daemon not ended (will retry when asked)");
        self.publish(&saved, DaemonState::Changing, &error.to_string());
        self.lifecycle = Lifecycle::Stopping(Box::new(saved));
    }

    async fn check(&mut self) {
        match std::mem::replace(&mut self.lifecycle, Lifecycle::Absent) {
            Lifecycle::Running(running) => self.check_running(running).await,
            Lifecycle::Exited(mut exited) => {
                if exited.is_free(self.context.clients_timeout) {
                    // A failure was logged, and is tried again.
                    self.restart(*exited, Deadline::of(RESTART_TIMEOUT)).await.map(|_daemon| ()).ok();
                } else {
                    exited.next = Instant::now() + CLIENT_CHECK_INTERVAL;
                    self.lifecycle = Lifecycle::Exited(exited);
                }
            }
            other @ (Lifecycle::Absent | Lifecycle::Stopping(_)) => self.lifecycle = other,
        }
    }

    async fn check_running(&mut self, mut running: Box<Running>) {
        let checked = running.check().await;
        if running.is_unresponsive() {
            running.handle.process.kill().await;
            self.lifecycle = Lifecycle::Running(running);
            return self.exited_unexpectedly("gave no answer any more and was ended");
        }
        let message = self.message(&running, checked);
        let state = running.state();
        self.publish(&running.saved, state, &message);
        if running.saved.clients != *running.clients.alive() {
            running.saved.clients.clone_from(running.clients.alive());
            if let Err(error) = self.write(&running.saved) {
                warn!(daemon = %self.id, %error, "the clients of an MPS daemon are not noted");
            }
        }
        self.lifecycle = Lifecycle::Running(running);
    }

    /// What people should know of a look.
    fn message(&self, running: &Running, checked: Result<CheckResult, ControlError>) -> String {
        let CheckResult { limits_corrected, fault } = match checked {
            Ok(checked) => checked,
            Err(error) => {
                warn!(daemon = %self.id, error = %dra_model::chain(&error), "an MPS daemon does not answer");
                return "it does not answer".to_owned();
            }
        };
        if fault {
            warn!(daemon = %self.id, message = running.message(), "a server of an MPS daemon failed");
            self.context.metrics.server_failed();
        }
        if limits_corrected {
            warn!(daemon = %self.id, "somebody changed the limits of an MPS daemon, they were set again");
            self.context.metrics.limits_corrected();
        }
        let message = running.message();
        if message.is_empty() && limits_corrected {
            return "somebody changed the limits, they were set again".to_owned();
        }
        message.to_owned()
    }

    fn publish(&self, saved: &SavedState, state: DaemonState, message: &str) {
        let daemon = self.daemon(saved, state);
        let (spec, message) = (saved.spec.clone(), message.to_owned());
        self.context.states.publish(&ObservedDaemon { spec, daemon, message, restarts: saved.restarts });
    }

    fn daemon(&self, saved: &SavedState, state: DaemonState) -> Daemon {
        let (run_dir, shm_dir) = (self.dir.run_dir(), self.dir.shm_dir());
        Daemon { id: self.id.clone(), state, run_dir, shm_dir, multi_user: saved.multi_user }
    }

    fn write(&self, saved: &SavedState) -> Result<(), DaemonError> {
        let path = self.dir.state_path();
        let failed = |source| DaemonDirError::Make { path: path.clone(), source }.into_daemon_error(&self.id);
        saved.write(&path).map_err(failed)
    }
}
