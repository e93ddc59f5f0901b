// SPDX-License-Identifier: Apache-2.0
//! A running daemon: its state, its clients and its limits, as its log and its answers show them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dra_hardware::DaemonState;
use dra_mps::Event;
use tokio::time::{Instant, timeout};

use crate::clients::Clients;
use crate::control_client::ControlError;
use crate::log_file::LogFile;
use crate::start::{DaemonHandle, limits, set_limits, wrong_limit};
use crate::state_file::SavedState;

/// Interval of the checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Time after which the clients are queried although the log has no new event.
const CLIENT_QUERY_INTERVAL: Duration = Duration::from_secs(30);

/// Time for one command.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// Time for one check, whatever it queries.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// Failed checks in a row after which a daemon counts as unresponsive.
const MAX_FAILED_CHECKS: u32 = 3;

/// A daemon with its process.
#[derive(Debug)]
pub struct Running {
    pub saved: SavedState,
    pub handle: DaemonHandle,
    pub log: LogFile,
    pub clients: Clients,
    /// Start or adoption of the daemon.
    pub since: Instant,
    /// Independent of requests, which must not delay it.
    pub next_check: Instant,
    /// Last query of the clients; `None` when one is due.
    queried: Option<Instant>,
    /// Limits set by this process whose events are still to appear in the log.
    own_settings: usize,
    limits: Limits,
    /// How the last server ended, if that was a fault.
    fault: Option<String>,
    /// Whether a server failed since the last check.
    new_fault: bool,
    failed_checks: u32,
    /// Whether the daemon answered since the last event or failed check that may mean a hang.
    verified: bool,
}

/// The limits of a daemon, by who set them last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limits {
    /// Set by this process.
    Applied,
    /// Set by an earlier process of this driver, or by another process.
    Unknown,
    /// Set by another process, as the log shows.
    Changed,
}

/// The result of a check.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct CheckResult {
    /// Limits were changed outside this driver and are set again.
    pub limits_corrected: bool,
    /// A server failed since the last check.
    pub fault: bool,
}

impl Running {
    pub fn started(saved: SavedState, handle: DaemonHandle, log_path: PathBuf) -> Self {
        let own_settings = limits(&saved.spec).len();
        let now = Instant::now();
        let (log, clients) = (LogFile::whole(log_path), Clients::default());
        Self {
            saved,
            handle,
            log,
            clients,
            since: now,
            next_check: now + CHECK_INTERVAL,
            queried: Some(now),
            own_settings,
            limits: Limits::Applied,
            fault: None,
            new_fault: false,
            failed_checks: 0,
            verified: true,
        }
    }

    /// A daemon that an earlier process started. Its log up to now is not read, so clients and limits are queried and set at
    /// the first check.
    pub fn adopted(saved: SavedState, handle: DaemonHandle, log_path: PathBuf) -> Self {
        let (log, clients) = (LogFile::from_now(log_path.clone()), Clients::with_known(saved.clients.clone()));
        let started = Self::started(saved, handle, log_path);
        Self { log, clients, queried: None, own_settings: 0, limits: Limits::Unknown, verified: false, ..started }
    }

    /// Reads the log, queries the daemon, and sets limits again that were changed outside this driver: every process that
    /// can open the socket may change them.
    pub async fn check(&mut self) -> Result<CheckResult, ControlError> {
        let checked = timeout(CHECK_TIMEOUT, self.update()).await;
        self.next_check = Instant::now() + CHECK_INTERVAL;
        let checked = checked.unwrap_or(Err(ControlError::NoAnswer { timeout: CHECK_TIMEOUT }));
        match &checked {
            Ok(_) => self.failed_checks = 0,
            Err(ControlError::NoAnswer { .. } | ControlError::Unreachable { .. }) => {
                self.failed_checks += 1;
                self.verified = false;
            }
            // The control program may be missing while the NVIDIA driver is replaced; the daemon runs on.
            Err(ControlError::Run { .. }) => {}
        }
        checked
    }

    /// Whether the daemon stopped answering.
    pub fn is_unresponsive(&self) -> bool {
        self.failed_checks >= MAX_FAILED_CHECKS
    }

    /// Makes sure that the daemon answers. Runs the control program only if something changed since the last answer: the
    /// process, the socket, the limits, or a server that exited. A daemon that hangs without such a change is found by the
    /// check after [`CLIENT_QUERY_INTERVAL`].
    pub async fn ensure_responds(&mut self, socket_path: &Path) -> Result<(), ControlError> {
        self.read_log();
        let is_unchanged = self.verified && self.limits == Limits::Applied;
        if is_unchanged && self.handle.process.id().is_alive() && socket_path.exists() {
            return Ok(());
        }
        self.handle.control.confirm(QUERY_TIMEOUT).await?;
        self.verified = true;
        Ok(())
    }

    /// The clients of an exited daemon. Before the first check of an adopted daemon its earlier clients are in the log only.
    pub fn into_clients(mut self, log_path: &Path) -> (SavedState, Clients) {
        self.read_log();
        if self.limits == Limits::Unknown {
            self.clients.record_log(log_path);
        }
        (self.saved, self.clients)
    }

    /// The number of processes that use the daemon now.
    pub async fn count_clients(&mut self) -> Result<usize, ControlError> {
        self.read_log();
        self.clients.query(&self.handle.control).await?;
        Ok(self.clients.alive().len())
    }

    /// Records the new events of the log, after which a query of the clients is due. An unreadable log has none; the next
    /// check reads it again.
    pub fn read_log(&mut self) {
        for event in self.log.new_events().unwrap_or_default() {
            self.queried = None;
            self.record(event);
        }
    }

    /// What the state does not tell: the last fault of a server.
    pub fn message(&self) -> &str {
        self.fault.as_deref().unwrap_or_default()
    }

    /// The state for clients. With one server for all users no user waits for another.
    pub fn state(&mut self) -> DaemonState {
        let waiting = self.clients.waiting().filter(|_| !self.saved.multi_user);
        waiting.map_or(DaemonState::Ready, |(waiting, active)| DaemonState::UserWaiting { waiting, active })
    }

    async fn update(&mut self) -> Result<CheckResult, ControlError> {
        self.read_log();
        let limits_corrected = match self.limits {
            Limits::Applied => false,
            Limits::Unknown => {
                self.apply_limits().await?;
                false
            }
            Limits::Changed => self.apply_limits().await?,
        };
        if self.queried.is_none_or(|queried| queried.elapsed() > CLIENT_QUERY_INTERVAL) {
            // A query that fails stays due.
            self.queried = None;
            self.clients.query(&self.handle.control).await?;
            self.queried = Some(Instant::now());
            self.verified = true;
        }
        Ok(CheckResult { limits_corrected, fault: std::mem::take(&mut self.new_fault) })
    }

    fn record(&mut self, event: Event) {
        self.new_fault |= fault(event).is_some();
        self.verified &= !matches!(event, Event::Fault | Event::ServerExited { .. });
        match event {
            Event::LimitSet if self.own_settings > 0 => self.own_settings -= 1,
            Event::LimitSet => self.limits = Limits::Changed,
            Event::ServerStarts { .. } => self.fault = None,
            Event::Fault | Event::ServerExited { .. } => self.fault = self.fault.take().or_else(|| fault(event)),
            Event::ClientWaits { .. } | Event::ClientServed { .. } => {}
        }
        self.clients.record(event);
    }

    /// Sets the limits without reading them first, because the daemon prints them too coarsely to show a small change.
    async fn apply_limits(&mut self) -> Result<bool, ControlError> {
        let (spec, control) = (&self.saved.spec, &self.handle.control);
        self.own_settings = 0;
        set_limits(spec, control, QUERY_TIMEOUT).await?;
        self.own_settings = limits(spec).len();
        let is_wrong = wrong_limit(spec, control, QUERY_TIMEOUT).await?.is_some();
        if !is_wrong {
            self.limits = Limits::Applied;
        }
        Ok(self.own_settings > 0 && !is_wrong)
    }
}

/// What an event means for the clients of a server, if it ends them.
fn fault(event: Event) -> Option<String> {
    match event {
        Event::Fault => Some("a fault in an MPS server ended all its clients".to_owned()),
        Event::ServerExited { status, .. } if status != 0 => {
            Some(format!("an MPS server exited with status {status}, which ended its clients"))
        }
        Event::ServerExited { .. }
        | Event::ServerStarts { .. }
        | Event::ClientWaits { .. }
        | Event::ClientServed { .. }
        | Event::LimitSet => None,
    }
}
