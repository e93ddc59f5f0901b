// SPDX-License-Identifier: Apache-2.0
//! One daemon from its first start to its removal. No other task changes it.
//!
//! ```text
//! absent --start--> running --exits unexpectedly--> exited --clients exited, or claims waited for the timeout--> running
//!    ^                 |                              |
//!    +------ stop -----+------------ stop ------------+     (after a failed stop: stopping, until the next stop)
//! ```
//!
//! A daemon whose GPU failed is ended and counts as exited, and does not restart while the fault lasts.

mod stop;

mod share;

mod start;

mod gpu_fault;

use std::sync::Arc;
use std::time::Duration;

use dra_hardware::{Daemon, DaemonError, DaemonState};
use dra_model::DaemonId;
use dra_mps_api::ObservedDaemon;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::back_off::BackOff;
use crate::clients::Clients;
use crate::context::Context;
use crate::control_client::ControlError;
use crate::daemon_dir::{DaemonDir, DaemonDirError};
use crate::discovery::{Found, find};
use crate::process::Exit;
use crate::request::{Deadline, Request};
use crate::running::{CheckResult, Running};
use crate::sharing_claims::SharingClaims;
use crate::start::DaemonHandle;
use crate::state_file::SavedState;
use crate::termination::kill_control_daemon;

/// Interval of the checks for clients of an exited daemon.
const CLIENT_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Time for a start that no request asks for.
const RESTART_TIMEOUT: Duration = Duration::from_secs(10);

/// The task of one daemon.
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
    /// Next check for clients, or next start.
    next: Instant,
    /// First request for the daemon since it exited.
    requested_since: Option<Instant>,
    /// The fault of its GPU, while it must not restart.
    gpu_fault: Option<String>,
}

impl Exited {
    /// Whether the daemon can start again: it has no client any more, or claims have waited for the timeout.
    fn can_restart(&mut self, timeout: Duration) -> bool {
        self.gpu_fault.is_none()
            && (self.clients.alive().is_empty() || self.requested_since.is_some_and(|since| since.elapsed() >= timeout))
    }
}

/// The reason for the next step of a supervisor.
enum Wakeup {
    Request(Option<Request>),
    Exited(Exit),
    /// The GPU of the daemon failed, has another fault, or is well again.
    GpuFault(Option<String>),
    Timer,
}

impl Supervisor {
    /// The supervisor of a daemon that does not exist.
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

    /// The supervisor of a running daemon of an earlier process.
    pub fn adopted(saved: SavedState, handle: DaemonHandle, context: Arc<Context>) -> Self {
        let mut supervisor = Self::absent(saved.spec.id.clone(), context);
        supervisor.adopt(saved, handle);
        supervisor
    }

    /// The supervisor of a daemon of an earlier process that does not run any more.
    pub async fn lost(saved: SavedState, context: Arc<Context>) -> Self {
        let mut supervisor = Self::absent(saved.spec.id.clone(), context);
        supervisor.mark_lost(saved).await;
        supervisor
    }

    /// The supervisor of a daemon that an earlier process began to stop and that is not removed.
    pub fn stopping(saved: SavedState, error: &DaemonError, context: Arc<Context>) -> Self {
        let mut supervisor = Self::absent(saved.spec.id.clone(), context);
        supervisor.stop_failed(saved, error);
        supervisor
    }

    /// Runs until the daemon is removed or the last sender of requests is dropped.
    pub async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        loop {
            match self.next(&mut requests).await {
                Wakeup::Request(None) => return,
                Wakeup::Request(Some(request)) => self.handle_request(request).await,
                Wakeup::Exited(exit) => self.exited_unexpectedly(&exit.to_string()),
                Wakeup::GpuFault(fault) => self.set_gpu_fault(fault).await,
                Wakeup::Timer => self.check().await,
            }
            if matches!(self.lifecycle, Lifecycle::Absent) {
                // Requests in the queue are dropped, and the registry sends them to a new supervisor.
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
                exit = running.handle.process.wait_exit() => Wakeup::Exited(exit),
                fault = self.context.gpu_faults.next(&self.id, None) => Wakeup::GpuFault(fault),
                () = sleep_until(running.next_check) => Wakeup::Timer,
            },
            Lifecycle::Exited(exited) => tokio::select! {
                request = requests.recv() => Wakeup::Request(request),
                fault = self.context.gpu_faults.next(&self.id, exited.gpu_fault.as_deref()) => Wakeup::GpuFault(fault),
                () = sleep_until(exited.next), if exited.gpu_fault.is_none() => Wakeup::Timer,
            },
        }
    }

    /// A reply to a caller that is gone is dropped. While this process stops, requests in the queue are dropped without a
    /// reply, and the registry refuses them.
    async fn handle_request(&mut self, request: Request) {
        match request {
            Request::Start { .. } | Request::Stop { .. } if self.context.stop.is_cancelled() => {}
            Request::Start { spec, sharer, deadline, reply } => {
                let started = self.start(spec, deadline).await;
                // A caller that is gone does not use the daemon.
                if let (Ok(_), Some(claim), false) = (&started, sharer, reply.is_closed()) {
                    self.join(&claim);
                }
                drop(reply.send(started));
            }
            Request::Stop { unless_used, deadline, reply } => drop(reply.send(self.stop(unless_used, deadline).await)),
            Request::Leave { claim, reply } => self.leave(&claim, reply),
            Request::Shutdown { deadline, reply } => {
                self.shut_down(deadline).await;
                reply.send(()).ok();
            }
        }
    }

    /// Finds the daemon of a supervisor that panicked.
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
        info!(daemon = %self.id, pid = handle.process.id().pid, "adopted a running MPS daemon");
        self.find_sharing_claims();
        self.enter_running(Running::adopted(saved, handle, self.dir.log_path()));
    }

    /// The daemon may run all the same, without its limits, if the earlier process ended between the start of the daemon and
    /// the write of the state file. It is killed.
    async fn mark_lost(&mut self, saved: SavedState) {
        if let Err(error) = kill_control_daemon(&self.dir, &self.id).await {
            warn!(daemon = %self.id, %error, "failed to kill an MPS daemon without limits");
        }
        self.find_sharing_claims();
        let mut clients = Clients::with_known(saved.clients.clone());
        clients.record_log(&self.dir.log_path());
        let alive = clients.alive().len();
        warn!(daemon = %self.id, clients = alive, "MPS daemon lost: it does not run any more after a restart of the MPS host");
        self.context.metrics.lost();
        self.enter_exited(Exited {
            saved,
            state: DaemonState::Lost,
            clients,
            next: Instant::now(),
            requested_since: None,
            gpu_fault: None,
        });
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
            warn!(daemon = %self.id, %error, "failed to save the state of an exited MPS daemon");
        }
        self.publish(&exited.saved, exited.state.clone(), "");
        self.lifecycle = Lifecycle::Exited(Box::new(exited));
    }

    fn stop_failed(&mut self, saved: SavedState, error: &DaemonError) {
        warn!(daemon = %self.id, %error, "failed to stop an MPS daemon, the next stop request retries");
        self.publish(&saved, DaemonState::Changing, &error.to_string());
        self.lifecycle = Lifecycle::Stopping(Box::new(saved));
    }

    async fn check(&mut self) {
        match std::mem::replace(&mut self.lifecycle, Lifecycle::Absent) {
            Lifecycle::Running(running) => self.check_running(running).await,
            Lifecycle::Exited(mut exited) => {
                // A fault that was set since is taken over next.
                let is_well = self.context.gpu_faults.of(&self.id).is_none();
                if is_well && exited.can_restart(self.context.clients_timeout) {
                    // A failure is logged there, and the next timer tries again.
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
            return self.exited_unexpectedly("killed because it stopped answering");
        }
        let message = self.message(&running, checked);
        let state = running.state();
        self.publish(&running.saved, state, &message);
        if running.saved.clients != *running.clients.alive() {
            running.saved.clients.clone_from(running.clients.alive());
            if let Err(error) = self.write(&running.saved) {
                warn!(daemon = %self.id, %error, "failed to save the clients of an MPS daemon");
            }
        }
        self.lifecycle = Lifecycle::Running(running);
    }

    /// Logs and counts the result of a check. Returns the message for the administrator.
    fn message(&self, running: &Running, checked: Result<CheckResult, ControlError>) -> String {
        let CheckResult { limits_corrected, fault } = match checked {
            Ok(checked) => checked,
            Err(error) => {
                warn!(daemon = %self.id, error = %dra_model::chain(&error), "MPS daemon does not answer");
                return "the daemon does not answer".to_owned();
            }
        };
        if fault {
            warn!(daemon = %self.id, message = running.message(), "MPS server failed");
            self.context.metrics.server_failed();
        }
        if limits_corrected {
            warn!(daemon = %self.id, "limits of an MPS daemon were changed outside this driver and are set again");
            self.context.metrics.limits_corrected();
        }
        let message = running.message();
        if message.is_empty() && limits_corrected {
            return "the limits were changed outside this driver and are set again".to_owned();
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
        let failed = |source| DaemonDirError::Create { path: path.clone(), source }.into_daemon_error(&self.id);
        saved.write(&path).map_err(failed)
    }
}
