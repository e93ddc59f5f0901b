// SPDX-License-Identifier: Apache-2.0
//! The servers of a daemon: idle processes, one at a time for each user, or one for all users with `-M`.
//!
//! Input are the clients. A server outlives its daemon, as NVIDIA's does, and exits when the pipe directory is removed, so that
//! none outlives a test.

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
    /// Process and user of the waiting clients, in the order of their connection.
    pending: Vec<(u32, u32)>,
    seen_clients: BTreeSet<u32>,
    /// Exit code of the daemon: 1 after a server failed.
    pub(crate) exit_code: u8,
}

#[derive(Debug)]
struct Server {
    child: Child,
    user: u32,
    clients: BTreeSet<u32>,
}

impl Servers {
    pub(crate) const fn new(multi_user: bool) -> Self {
        Self { multi_user, active: None, pending: Vec::new(), seen_clients: BTreeSet::new(), exit_code: 0 }
    }

    /// Connects new clients and removes those that exited. Returns the lines for the log.
    pub(crate) fn update(&mut self, clients: &BTreeMap<u32, u32>) -> io::Result<Vec<String>> {
        let mut log = self.reap()?;
        let running: BTreeMap<u32, u32> =
            clients.iter().filter(|(pid, _)| is_running(**pid)).map(|(pid, user)| (*pid, *user)).collect();
        self.seen_clients.retain(|pid| running.contains_key(pid));
        self.pending.retain(|(pid, _)| running.contains_key(pid));
        if let Some(server) = &mut self.active {
            server.clients.retain(|pid| running.contains_key(pid));
        }
        for (pid, user) in running {
            if self.seen_clients.insert(pid) {
                log.push(self.connect(pid, user));
            }
        }
        log.extend(self.start_next_server()?);
        Ok(log)
    }

    pub(crate) fn list(&self) -> Vec<u32> {
        self.active.iter().map(|server| server.child.id()).collect()
    }

    /// The clients of a server, if it runs.
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

    fn connect(&mut self, pid: u32, user: u32) -> String {
        let user_of_server = self.server_user(user);
        if let Some(server) = self.active.as_mut().filter(|server| server.user == user_of_server) {
            server.clients.insert(pid);
            return format!("NEW CLIENT {pid} from user {user}: Server already exists");
        }
        self.pending.push((pid, user));
        format!("NEW CLIENT {pid} from user {user}: Server is not ready, push client to pending list")
    }

    /// Replaces a server without clients by one for the user that waits first, with all waiting clients of that user.
    fn start_next_server(&mut self) -> io::Result<Vec<String>> {
        let Some((_, user)) = self.pending.first().copied() else { return Ok(Vec::new()) };
        if self.active.as_ref().is_some_and(|server| !server.clients.is_empty()) {
            return Ok(Vec::new());
        }
        let mut log: Vec<String> = self.end()?.into_iter().collect();
        let user = self.server_user(user);
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

    const fn server_user(&self, user: u32) -> u32 {
        if self.multi_user { 0 } else { user }
    }

    /// Removes an exited server. Its clients connect to the next one.
    fn reap(&mut self) -> io::Result<Vec<String>> {
        let Some(server) = &mut self.active else { return Ok(Vec::new()) };
        let Some(status) = server.child.try_wait()? else { return Ok(Vec::new()) };
        let code = code_of(status);
        self.exit_code = self.exit_code.max(u8::from(code != 0));
        let pid = server.child.id();
        let clients = std::mem::take(&mut server.clients);
        self.seen_clients.retain(|client| !clients.contains(client));
        self.active = None;
        Ok(vec![format!("Server {pid} exited with status {code}")])
    }
}

fn code_of(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().or_else(|| status.signal().map(|signal| -signal)).unwrap_or(-1)
}

/// Whether the process runs. A zombie does not.
fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// A server: waits until the pipe directory is removed.
pub(crate) fn serve(pipe_dir: &Path) {
    while pipe_dir.exists() {
        wait_for(Duration::from_millis(50));
    }
}

/// Sleeps.
pub(crate) fn wait_for(time: Duration) {
    poll(&mut [], Timespec::try_from(time).ok().as_ref()).map(|_none| ()).ok();
}
