// SPDX-License-Identifier: Apache-2.0
//! Servers and whose turn it is: processes that do nothing, one for each user, or one for all with `-M`.
//!
//! In come the clients there should be. A server outlives its daemon, as NVIDIA's does, and ends with the pipe directory,
//! so that none outlives a test.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{Timespec, poll};

/// The argument that makes this program a server.
pub(crate) const ROLE: &str = "serve";

/// The servers of a daemon.
#[derive(Debug)]
pub(crate) struct Servers {
    multi_user: bool,
    active: Option<Server>,
    /// Users of clients by process, in the order they came.
    pending: Vec<(u32, u32)>,
    known: BTreeSet<u32>,
    /// What the daemon ends with: 1 once a server did.
    pub(crate) worst_end: u8,
}

#[derive(Debug)]
struct Server {
    child: Child,
    user: u32,
    clients: BTreeSet<u32>,
}

impl Servers {
    pub(crate) const fn new(multi_user: bool) -> Self {
        Self { multi_user, active: None, pending: Vec::new(), known: BTreeSet::new(), worst_end: 0 }
    }

    /// Takes clients in and lets those go that ended. Returns what is to be logged.
    pub(crate) fn follow(&mut self, clients: &BTreeMap<u32, u32>) -> io::Result<Vec<String>> {
        let mut log = self.reap()?;
        let living: BTreeMap<u32, u32> =
            clients.iter().filter(|(pid, _)| is_running(**pid)).map(|(pid, user)| (*pid, *user)).collect();
        self.known.retain(|pid| living.contains_key(pid));
        self.pending.retain(|(pid, _)| living.contains_key(pid));
        if let Some(server) = &mut self.active {
            server.clients.retain(|pid| living.contains_key(pid));
        }
        for (pid, user) in living {
            if self.known.insert(pid) {
                log.push(self.meet(pid, user));
            }
        }
        log.extend(self.next_turn()?);
        Ok(log)
    }

    pub(crate) fn list(&self) -> Vec<u32> {
        self.active.iter().map(|server| server.child.id()).collect()
    }

    /// The clients of a server, if it is one.
    pub(crate) fn clients(&self, pid: u32) -> Option<Vec<u32>> {
        let server = self.active.as_ref().filter(|server| server.child.id() == pid)?;
        Some(server.clients.iter().copied().collect())
    }

    pub(crate) fn are_idle(&self) -> bool {
        self.pending.is_empty() && self.active.as_ref().is_none_or(|server| server.clients.is_empty())
    }

    pub(crate) fn end(&mut self) -> io::Result<Option<String>> {
        let Some(mut server) = self.active.take() else { return Ok(None) };
        server.child.kill()?;
        server.child.wait()?;
        Ok(Some(format!("Server {} exited with status 0", server.child.id())))
    }

    fn meet(&mut self, pid: u32, user: u32) -> String {
        let user_of_server = self.turn_of(user);
        if let Some(server) = self.active.as_mut().filter(|server| server.user == user_of_server) {
            server.clients.insert(pid);
            return format!("NEW CLIENT {pid} from user {user}: Server already exists");
        }
        self.pending.push((pid, user));
        format!("NEW CLIENT {pid} from user {user}: Server is not ready, push client to pending list")
    }

    /// A server that nobody uses makes way for those who wait, and takes all of the first one's user.
    fn next_turn(&mut self) -> io::Result<Vec<String>> {
        let Some((_, user)) = self.pending.first().copied() else { return Ok(Vec::new()) };
        if self.active.as_ref().is_some_and(|server| !server.clients.is_empty()) {
            return Ok(Vec::new());
        }
        let mut log: Vec<String> = self.end()?.into_iter().collect();
        let user = self.turn_of(user);
        let child =
            Command::new(std::env::current_exe()?).arg(ROLE).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        log.push(format!("Starting new server {} for user {user}", child.id()));
        log.push(format!("NEW SERVER {}: Ready", child.id()));
        let multi_user = self.multi_user;
        let is_served = |client: &(u32, u32)| multi_user || client.1 == user;
        let clients = self.pending.iter().filter(|client| is_served(client)).map(|(pid, _)| *pid).collect();
        self.pending.retain(|client| !is_served(client));
        self.active = Some(Server { child, user, clients });
        Ok(log)
    }

    const fn turn_of(&self, user: u32) -> u32 {
        if self.multi_user { 0 } else { user }
    }

    /// Its clients meet the next one.
    fn reap(&mut self) -> io::Result<Vec<String>> {
        let Some(server) = &mut self.active else { return Ok(Vec::new()) };
        let Some(status) = server.child.try_wait()? else { return Ok(Vec::new()) };
        let code = code_of(status);
        self.worst_end = self.worst_end.max(u8::from(code != 0));
        let pid = server.child.id();
        let clients = std::mem::take(&mut server.clients);
        self.known.retain(|client| !clients.contains(client));
        self.active = None;
        Ok(vec![format!("Server {pid} exited with status {code}")])
    }
}

fn code_of(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().or_else(|| status.signal().map(|signal| -signal)).unwrap_or(-1)
}

/// A zombie runs no more.
fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The work of a server.
pub(crate) fn serve(pipe_dir: &Path) {
    while pipe_dir.exists() {
        pause(Duration::from_millis(50));
    }
}

/// Nothing, for a while.
pub(crate) fn pause(time: Duration) {
    poll(&mut [], Timespec::try_from(time).ok().as_ref()).map(|_none| ()).ok();
}
