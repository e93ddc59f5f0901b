// SPDX-License-Identifier: Apache-2.0
//! A daemon that runs, and what is learned of it while it does.

use std::path::PathBuf;
use std::time::Duration;

use dra_hardware::DaemonState;
use dra_mps::{Command, Event};
use tokio::time::{Instant, timeout};

use crate::clients::Clients;
use crate::control_client::ControlError;
use crate::log_file::LogFile;
use crate::start::{DaemonHandle, limits, set_limits, wrong_limit};
use crate::state_file::SavedState;

/// How long clients may go unasked for when nothing is heard of them.
const CLIENT_QUERY_INTERVAL: Duration = Duration::from_secs(30);

/// How long one question may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// How long one look may take, whatever it asks.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// A daemon that gave no reply at so many looks in a row serves nobody.
const MAX_FAILED_CHECKS: u32 = 3;

/// A daemon with its process.
#[derive(Debug)]
pub struct Running {
    /// What is written down of it.
    pub saved: SavedState,
    /// Its process and how to talk to it.
    pub handle: DaemonHandle,
    /// What it says.
    pub log: LogFile,
    /// Who uses it.
    pub clients: Clients,
    /// When it was started or found.
    pub since: Instant,
    /// When its clients were asked for last.
    asked: Option<Instant>,
    /// Our own settings of limits that its log has not told of yet.
    own_settings: usize,
    limits: Limits,
    /// How its last server ended, if that was a fault.
    fault: Option<String>,
    /// Whether a server ended by a fault since the last look.
    new_fault: bool,
    failed_checks: u32,
}

/// What is known of the limits that a daemon has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limits {
    Ours,
    Unknown,
    /// Somebody else set one.
    Changed,
}

/// What a look found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct CheckResult {
    /// Somebody else had set a limit, and all were set again.
    pub limits_corrected: bool,
    /// A server ended by a fault since the last look.
    pub fault: bool,
}

impl Running {
    /// One that was started just now.
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
            asked: Some(now),
            own_settings,
            limits: Limits::Ours,
            fault: None,
            new_fault: false,
            failed_checks: 0,
        }
    }

    /// One that an earlier process started. What it said meanwhile is not known, so it is asked and told at the first look.
    pub fn adopted(saved: SavedState, handle: DaemonHandle, log_path: PathBuf) -> Self {
        let (log, clients) = (LogFile::from_now(log_path.clone()), Clients::with_known(saved.clients.clone()));
        let started = Self::started(saved, handle, log_path);
        Self { log, clients, asked: None, own_settings: 0, limits: Limits::Unknown, ..started }
    }

    /// Learns what happened, and puts limits right that somebody else changed: whoever reaches the socket may do that.
    pub async fn check(&mut self) -> Result<CheckResult, ControlError> {
        let checked = timeout(CHECK_TIMEOUT, self.learn()).await;
        let checked = checked.unwrap_or(Err(ControlError::NoAnswer { timeout: CHECK_TIMEOUT }));
        match &checked {
            Ok(_) => self.failed_checks = 0,
            Err(ControlError::NoAnswer { .. } | ControlError::Unreachable { .. }) => self.failed_checks += 1,
            // That says nothing of the daemon: the driver may be being replaced.
            Err(ControlError::Run { .. }) => {}
        }
        checked
    }

    /// Whether it gives no answers any more, although it was asked again and again.
    pub fn is_unresponsive(&self) -> bool {
        self.failed_checks >= MAX_FAILED_CHECKS
    }

    /// Whether it answers now.
    pub async fn responds(&self) -> Result<(), ControlError> {
        self.handle.control.send(&[Command::Threads], QUERY_TIMEOUT).await.map(|_answer| ())
    }

    /// How many processes use it now.
    pub async fn count_clients(&mut self) -> Result<usize, ControlError> {
        self.read_log();
        self.clients.ask(&self.handle.control).await?;
        Ok(self.clients.alive().len())
    }

    /// Learns what its log says that was not read yet. What cannot be read tells nothing; the next look tries again.
    pub fn read_log(&mut self) -> Vec<Event> {
        let events = self.log.new_events().unwrap_or_default();
        for event in &events {
            self.note(*event);
        }
        events
    }

    /// What people should know beyond its state.
    pub fn message(&self) -> &str {
        self.fault.as_deref().unwrap_or_default()
    }

    /// How it is for its clients. With one server for all users nobody waits for another one.
    pub fn state(&mut self) -> DaemonState {
        let waiting = self.clients.waiting().filter(|_| !self.saved.multi_user);
        waiting.map_or(DaemonState::Ready, |(waiting, active)| DaemonState::UserWaiting { waiting, active })
    }

    async fn learn(&mut self) -> Result<CheckResult, ControlError> {
        let events = self.read_log();
        let limits_corrected = match self.limits {
            Limits::Ours => false,
            Limits::Unknown => {
                self.restore_limits().await?;
                false
            }
            Limits::Changed => self.restore_limits().await?,
        };
        if !events.is_empty() || self.asked.is_none_or(|asked| asked.elapsed() > CLIENT_QUERY_INTERVAL) {
            // Until they were told it is due.
            self.asked = None;
            self.clients.ask(&self.handle.control).await?;
            self.asked = Some(Instant::now());
        }
        Ok(CheckResult { limits_corrected, fault: std::mem::take(&mut self.new_fault) })
    }

    fn note(&mut self, event: Event) {
        self.new_fault |= fault(event).is_some();
        match event {
            Event::LimitSet if self.own_settings > 0 => self.own_settings -= 1,
            Event::LimitSet => self.limits = Limits::Changed,
            Event::ServerStarts { .. } => self.fault = None,
            Event::Fault | Event::ServerEnded { .. } => self.fault = self.fault.take().or_else(|| fault(event)),
            Event::ClientWaits { .. } | Event::ClientServed { .. } => {}
        }
        self.clients.note(event);
    }

    /// They are set without a look at them: what is read back is too coarse to tell a small change.
    async fn restore_limits(&mut self) -> Result<bool, ControlError> {
        let (spec, control) = (&self.saved.spec, &self.handle.control);
        self.own_settings = 0;
        set_limits(spec, control, QUERY_TIMEOUT).await?;
        self.own_settings = limits(spec).len();
        let is_wrong = wrong_limit(spec, control, QUERY_TIMEOUT).await?.is_some();
        if !is_wrong {
            self.limits = Limits::Ours;
        }
        Ok(self.own_settings > 0 && !is_wrong)
    }
}

/// What an event means for the clients of a server, if that is their end.
fn fault(event: Event) -> Option<String> {
    match event {
        Event::Fault => Some("a server met a fault, which ended the work of all its clients".to_owned()),
        Event::ServerEnded { status, .. } if status != 0 => {
            Some(format!("a server ended with status {status}, and with it the work of its clients"))
        }
        Event::ServerEnded { .. }
        | Event::ServerStarts { .. }
        | Event::ClientWaits { .. }
        | Event::ClientServed { .. }
        | Event::LimitSet => None,
    }
}
