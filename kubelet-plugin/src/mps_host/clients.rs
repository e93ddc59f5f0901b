// SPDX-License-Identifier: Apache-2.0
//! Who uses a daemon: its clients, the user whose turn it is and one that waits.
//!
//! Clients are learned from the daemon and from its log, and forgotten when their process has ended.

use std::collections::BTreeSet;
use std::time::Duration;

use dra_mps::{Command, Event, pids};

use super::front_end::{AskError, FrontEnd};
use super::processes::ProcessId;

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(2);

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
    pub fn remembered(known: BTreeSet<ProcessId>) -> Self {
        Self { known, ..Self::default() }
    }

    /// Those that live.
    pub fn living(&mut self) -> &BTreeSet<ProcessId> {
        self.known.retain(ProcessId::lives);
        &self.known
    }

    /// Who waits and whose turn it is, if somebody waits.
    pub fn waiting(&mut self) -> Option<(u32, u32)> {
        self.waiting = self.waiting.filter(|(process, _)| process.lives());
        Some((self.waiting?.1, self.active?.1))
    }

    /// Learns from a line of the log.
    pub fn note(&mut self, event: Event) {
        match event {
            Event::ServerStarts { pid, user } => {
                self.active = Some((pid, user));
                self.waiting = self.waiting.filter(|(_, waiting)| *waiting != user);
            }
            Event::ClientWaits { pid, user } => {
                let other = self.active.is_some_and(|(_, active)| active != user);
                self.waiting = ProcessId::of(pid).map(|process| (process, user)).filter(|_| other).or(self.waiting);
            }
            Event::ClientServed { pid, .. } => self.known.extend(ProcessId::of(pid)),
            Event::ServerEnded { pid, .. } => self.active = self.active.filter(|(server, _)| *server != pid),
            Event::Fault | Event::LimitSet => {}
        }
    }

    /// Asks for all of them.
    pub async fn ask(&mut self, front_end: &FrontEnd) -> Result<(), AskError> {
        for server in pids(&front_end.ask(&[Command::Servers], PATIENCE).await?) {
            let answer = front_end.ask(&[Command::Clients(server)], PATIENCE).await?;
            self.known.extend(pids(&answer).into_iter().filter_map(ProcessId::of));
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
        let mut clients = Clients::remembered(BTreeSet::from([own, ended]));
        assert_eq!(clients.living(), &BTreeSet::from([own]));
        clients.note(Event::ClientServed { pid: own.pid, user: 0 });
        assert_eq!(clients.living().len(), 1);
    }
}
