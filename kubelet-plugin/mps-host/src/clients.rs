// SPDX-License-Identifier: Apache-2.0
//! Who uses a daemon: its clients, the user whose turn it is and one that waits.
//!
//! Clients are learned from the daemon and from its log, and forgotten when their process has ended.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use dra_mps::{Command, Event, pids};

use crate::control_client::{ControlClient, ControlError};
use crate::log_file::LogFile;
use crate::processes::ProcessId;

/// How long one question may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// There is one server for each user at a time, and a turn for each; more is no reply that is believed.
const MAX_SERVERS: usize = 64;

/// The clients of one daemon as far as they are known.
#[derive(Debug, Default)]
pub struct Clients {
    known: BTreeSet<ProcessId>,
    /// The server that is there, and its user.
    active: Option<(u32, u32)>,
    /// A client of another user, and who that is.
    waiting: Option<(ProcessId, u32)>,
}

impl Clients {
    /// Clients that were known to an earlier process.
    pub fn with_known(known: BTreeSet<ProcessId>) -> Self {
        Self { known, ..Self::default() }
    }

    /// Learns from all that a daemon said that is exited. A process that came later than its last word is no client of it but
    /// one that has the number of a client.
    pub fn record_log(&mut self, log_path: &Path) {
        let last_word = log_path.metadata().and_then(|found| found.modified());
        // What cannot be read tells of no clients.
        let (Ok(last_word), Ok(events)) = (last_word, LogFile::whole(log_path.to_owned()).new_events()) else { return };
        for event in events {
            self.note(event);
        }
        self.known.retain(|client| client.is_older_than(last_word));
    }

    /// Those that live.
    pub fn alive(&mut self) -> &BTreeSet<ProcessId> {
        self.known.retain(ProcessId::is_alive);
        &self.known
    }

    /// Who waits and whose turn it is, if somebody waits.
    pub fn waiting(&mut self) -> Option<(u32, u32)> {
        self.waiting = self.waiting.filter(|(process, _)| process.is_alive());
        Some((self.waiting?.1, self.active?.1))
    }

    /// Learns from a line of the log.
    pub fn note(&mut self, event: Event) {
        match event {
            Event::ServerStarts { pid, user } => {
                self.active = Some((pid, user));
                self.waiting = self.waiting.filter(|(_, waiting)| *waiting != user);
            }
            // The first one of a server waits for it, and nothing tells when it is served.
            Event::ClientWaits { pid, user } => {
                let other = self.active.is_some_and(|(_, active)| active != user);
                let process = ProcessId::of(pid);
                self.known.extend(process);
                self.waiting = process.map(|process| (process, user)).filter(|_| other).or(self.waiting);
            }
            Event::ClientServed { pid, .. } => self.known.extend(ProcessId::of(pid)),
            Event::ServerEnded { pid, .. } => self.active = self.active.filter(|(server, _)| *server != pid),
            Event::Fault | Event::LimitSet => {}
        }
    }

    /// Asks for all of them.
    pub async fn ask(&mut self, control: &ControlClient) -> Result<(), ControlError> {
        for server in pids(&control.send(&[Command::Servers], QUERY_TIMEOUT).await?).into_iter().take(MAX_SERVERS) {
            let reply = control.send(&[Command::Clients(server)], QUERY_TIMEOUT).await?;
            self.known.extend(pids(&reply).into_iter().filter_map(ProcessId::of));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_waits_only_for_another_user() {
        let pid = std::process::id();
        let (first, second) = (Event::ServerStarts { pid: 1, user: 0 }, Event::ServerStarts { pid: 2, user: 7 });
        let (own, other) = (Event::ClientWaits { pid, user: 0 }, Event::ClientWaits { pid, user: 7 });
        for (given, expect) in [
            (&[own][..], None),
            (&[first, own], None),
            (&[first, other], Some((7, 0))),
            (&[first, other, own], Some((7, 0))),
            (&[first, other, second], None),
            (&[first, Event::ServerEnded { pid: 1, status: 0 }, other], None),
            (&[first, Event::ClientWaits { pid: 0, user: 7 }], None),
        ] {
            let mut clients = Clients::default();
            for event in given {
                clients.note(*event);
            }
            assert_eq!(clients.waiting(), expect, "{given:?}");
        }
    }

    #[test]
    fn clients_are_forgotten_with_their_process() {
        let own = ProcessId::of(std::process::id()).unwrap();
        let ended = ProcessId { started: own.started + 1, ..own };
        let mut clients = Clients::with_known(BTreeSet::from([own, ended]));
        assert_eq!(clients.alive(), &BTreeSet::from([own]));
        for event in [Event::ClientServed { pid: own.pid, user: 0 }, Event::ClientWaits { pid: own.pid, user: 0 }] {
            let mut clients = Clients::default();
            clients.note(event);
            assert_eq!(clients.alive(), &BTreeSet::from([own]), "{event:?}");
        }
    }

    #[test]
    fn clients_that_a_dead_daemon_served_are_learned_from_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let pid = std::process::id();
        let served =
            format!("[2026-11-22 09:52:46.873 Control 1] NEW CLIENT {pid} from user 0: Server already exists\n");
        std::fs::write(&path, served).unwrap();
        let learned = || {
            let mut clients = Clients::default();
            clients.record_log(&path);
            clients.alive().iter().map(|client| client.pid).collect::<Vec<_>>()
        };
        assert_eq!(learned(), [pid]);
        let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        std::fs::File::options().append(true).open(&path).unwrap().set_modified(long_ago).unwrap();
        assert_eq!(learned(), [0; 0], "that number is another process's");
    }
}
