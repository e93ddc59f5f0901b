// SPDX-License-Identifier: Apache-2.0
//! The processes that use a daemon: its clients, the user that has the server, and a user that waits for it.
//!
//! Clients are known from the answers of the daemon and from its log until their process has exited.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use dra_mps::{Command, Event, pids};

use crate::control_client::{ControlClient, ControlError};
use crate::log_file::LogFile;
use crate::processes::ProcessId;

/// Time for one command.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// Servers that are queried. There is one at a time for each user, so a longer answer is wrong.
const MAX_SERVERS: usize = 64;

/// The known clients of one daemon.
#[derive(Debug, Default)]
pub struct Clients {
    known: BTreeSet<ProcessId>,
    /// Process and user of the current server.
    active: Option<(u32, u32)>,
    /// A client of another user, and that user.
    waiting: Option<(ProcessId, u32)>,
}

impl Clients {
    /// Begins with the clients of the state file.
    pub fn with_known(known: BTreeSet<ProcessId>) -> Self {
        Self { known, ..Self::default() }
    }

    /// Reads the whole log of an exited daemon. A process that started after the last line is no client; it reuses the number
    /// of one.
    pub fn record_log(&mut self, log_path: &Path) {
        let last_line = log_path.metadata().and_then(|found| found.modified());
        // An unreadable log names no clients.
        let (Ok(last_line), Ok(events)) = (last_line, LogFile::whole(log_path.to_owned()).new_events()) else { return };
        for event in events {
            self.record(event);
        }
        self.known.retain(|client| client.is_older_than(last_line));
    }

    /// The clients that have not exited.
    pub fn alive(&mut self) -> &BTreeSet<ProcessId> {
        self.known.retain(ProcessId::is_alive);
        &self.known
    }

    /// The user that waits and the user that has the server, if a user waits.
    pub fn waiting(&mut self) -> Option<(u32, u32)> {
        self.waiting = self.waiting.filter(|(process, _)| process.is_alive());
        Some((self.waiting?.1, self.active?.1))
    }

    /// Records an event of the log.
    pub fn record(&mut self, event: Event) {
        match event {
            Event::ServerStarts { pid, user } => {
                self.active = Some((pid, user));
                self.waiting = self.waiting.filter(|(_, waiting)| *waiting != user);
            }
            // The first client of a server waits for it too, and no line says when it is served.
            Event::ClientWaits { pid, user } => {
                let other = self.active.is_some_and(|(_, active)| active != user);
                let process = ProcessId::of(pid);
                self.known.extend(process);
                self.waiting = process.map(|process| (process, user)).filter(|_| other).or(self.waiting);
            }
            Event::ClientServed { pid, .. } => self.known.extend(ProcessId::of(pid)),
            Event::ServerExited { pid, .. } => self.active = self.active.filter(|(server, _)| *server != pid),
            Event::Fault | Event::LimitSet => {}
        }
    }

    /// Queries the clients of all servers.
    pub async fn query(&mut self, control: &ControlClient) -> Result<(), ControlError> {
        for server in pids(&control.send(&[Command::Servers], QUERY_TIMEOUT).await?).into_iter().take(MAX_SERVERS) {
            let answer = control.send(&[Command::Clients(server)], QUERY_TIMEOUT).await?;
            self.known.extend(pids(&answer).into_iter().filter_map(ProcessId::of));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_waits_only_for_another_user() {
        let pid = std::process::id();
        let (first, second) = (Event::ServerStarts { pid: 1, user: 0 }, Event::ServerStarts { pid: 2, user: 7 });
        let (own, other) = (Event::ClientWaits { pid, user: 0 }, Event::ClientWaits { pid, user: 7 });
        for (given, expect) in [
            (&[own][..], None),
            (&[first, own], None),
            (&[first, other], Some((7, 0))),
            (&[first, other, own], Some((7, 0))),
            (&[first, other, second], None),
            (&[first, Event::ServerExited { pid: 1, status: 0 }, other], None),
            (&[first, Event::ClientWaits { pid: 0, user: 7 }], None),
        ] {
            let mut clients = Clients::default();
            for event in given {
                clients.record(*event);
            }
            assert_eq!(clients.waiting(), expect, "{given:?}");
        }
    }

    #[test]
    fn clients_are_known_until_their_process_exits() {
        let own = ProcessId::of(std::process::id()).unwrap();
        let ended = ProcessId { started: own.started + 1, ..own };
        let mut clients = Clients::with_known(BTreeSet::from([own, ended]));
        assert_eq!(clients.alive(), &BTreeSet::from([own]));
        for event in [Event::ClientServed { pid: own.pid, user: 0 }, Event::ClientWaits { pid: own.pid, user: 0 }] {
            let mut clients = Clients::default();
            clients.record(event);
            assert_eq!(clients.alive(), &BTreeSet::from([own]), "{event:?}");
        }
    }

    #[test]
    fn clients_that_an_exited_daemon_served_are_known_from_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let pid = std::process::id();
        let served =
            format!("[2026-11-22 09:52:46.873 Control 1] NEW CLIENT {pid} from user 0: Server already exists\n");
        std::fs::write(&path, served).unwrap();
        let known = || {
            let mut clients = Clients::default();
            clients.record_log(&path);
            clients.alive().iter().map(|client| client.pid).collect::<Vec<_>>()
        };
        assert_eq!(known(), [pid]);
        let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        std::fs::File::options().append(true).open(&path).unwrap().set_modified(long_ago).unwrap();
        assert_eq!(known(), [0; 0], "another process reuses the number");
    }
}
