// SPDX-License-Identifier: Apache-2.0
//! A daemon that runs, and what is learned of it while it does.

use std::path::PathBuf;
use std::time::Duration;

use dra_hardware::DaemonState;
use dra_mps::Event;
use tokio::time::Instant;

use super::birth::{Born, set_limits, wrong_limit};
use super::clients::Clients;
use super::front_end::AskError;
use super::kept::Kept;
use super::log_file::LogFile;

/// How long clients may go unasked for when nothing is heard of them.
const ASK: Duration = Duration::from_secs(30);

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// A daemon with its process.
#[derive(Debug)]
pub struct Running {
    /// What is written down of it.
    pub kept: Kept,
    /// Its process and how to talk to it.
    pub born: Born,
    /// What it says.
    pub log: LogFile,
    /// Who uses it.
    pub clients: Clients,
    /// When it was started or found.
    pub since: Instant,
    asked: Instant,
}

/// What a look did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked {
    /// Everything is as it was meant.
    Fine,
    /// Somebody else had changed the limits, and they were set again.
    LimitsRestored,
}

impl Running {
    /// One that answers now.
    pub fn new(kept: Kept, born: Born, log_path: PathBuf, clients: Clients) -> Self {
        let now = Instant::now();
        Self { kept, born, log: LogFile::follow(log_path), clients, since: now, asked: now }
    }

    /// Learns what happened, and puts limits right that somebody else changed: whoever reaches the socket may do that.
    pub async fn look(&mut self) -> Result<Looked, AskError> {
        // What cannot be read tells nothing; the next look tries again.
        let events = self.log.news().unwrap_or_default();
        for event in &events {
            self.clients.note(*event);
        }
        let mut looked = Looked::Fine;
        if events.contains(&Event::LimitSet) && self.restore_limits().await? {
            looked = Looked::LimitsRestored;
        }
        if !events.is_empty() || self.asked.elapsed() > ASK {
            self.asked = Instant::now();
            self.clients.ask(&self.born.front_end).await?;
        }
        Ok(looked)
    }

    /// How it is for its clients.
    pub fn state(&mut self) -> DaemonState {
        let waiting = self.clients.waiting();
        waiting.map_or(DaemonState::Ready, |(waiting, active)| DaemonState::UserWaits { waiting, active })
    }

    async fn restore_limits(&mut self) -> Result<bool, AskError> {
        let (spec, front_end) = (&self.kept.spec, &self.born.front_end);
        if wrong_limit(spec, front_end, PATIENCE).await?.is_none() {
            return Ok(false);
        }
        set_limits(spec, front_end, PATIENCE).await?;
        // Our own commands are in the log too.
        self.log.skip();
        Ok(true)
    }
}
