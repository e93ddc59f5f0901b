// SPDX-License-Identifier: Apache-2.0
//! Processes of this machine, as `/proc` shows them.

use std::fs;
use std::path::Path;

use dra_mps::launch::PIPE_VARIABLE;
use serde::{Deserialize, Serialize};

/// A process, told from a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: u32,
    /// When it was started, in clock ticks since boot (`proc_pid_stat(5)`, field 22).
    pub started: u64,
}

impl ProcessId {
    /// The process that has this number now. One that ended and was not waited for is none.
    pub fn of(pid: u32) -> Option<Self> {
        parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Whether it has not ended.
    pub fn lives(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }
}

/// The name of a program is in parentheses and may hold any of the separators.
fn parse(pid: u32, stat: &str) -> Option<ProcessId> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(ProcessId { pid, started })
}

/// The processes that have this pipe directory in their environment: a daemon, its servers and its front ends. Containers
/// know the directory by another path.
pub fn using(pipe_dir: &Path) -> Vec<ProcessId> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let wanted = format!("{PIPE_VARIABLE}={}", pipe_dir.display());
    // The number is looked up before the environment: a process that took it over since then is not the one that is returned.
    let candidates = pids.filter_map(ProcessId::of);
    candidates.filter(|id| has_variable(id.pid, wanted.as_bytes())).collect()
}

fn has_variable(pid: u32, wanted: &[u8]) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|variable| variable == wanted)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_known_by_number_and_start() {
        let stat = "12 (a) b) S 1 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2 3";
        assert_eq!(parse(12, stat), Some(ProcessId { pid: 12, started: 98765 }));
        assert_eq!(parse(12, &stat.replace(") S", ") Z")), None);
        assert_eq!(parse(12, "12 (a) S 1"), None);
        let own = ProcessId::of(std::process::id()).unwrap();
        assert!(own.lives() && !ProcessId { started: own.started + 1, ..own }.lives());
    }

    #[test]
    fn the_users_of_a_pipe_directory_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let other = dir.path().join("other");
        let mut child = Command::new("cat")
            .env(PIPE_VARIABLE, dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let id = ProcessId::of(child.id()).unwrap();
        assert_eq!((using(dir.path()), using(&other)), (vec![id], vec![]));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(using(dir.path()).is_empty() && !id.lives());
    }
}
