// SPDX-License-Identifier: Apache-2.0
//! The processes of this machine in `/proc`.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::thread::yield_now;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dra_mps::launch::{FOREGROUND, PIPE_VARIABLE};
use serde::{Deserialize, Serialize};

/// Unit of start times (`USER_HZ`): 100 on all architectures of NVIDIA's driver.
const TICKS_PER_SECOND: u64 = 100;

/// Bytes of an environment that are read. That of a daemon is shorter.
const MAX_ENVIRONMENT: usize = 64 << 10;

/// Reads of the environment of a process in `execve(2)`, which takes a few.
const MAX_READS: usize = 1000;

/// A process, distinct from a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessId {
    pub pid: u32,
    /// Start time in clock ticks since boot (`proc_pid_stat(5)`, field 22).
    pub started: u64,
}

impl ProcessId {
    /// The process that has this number now. A zombie is none.
    pub fn of(pid: u32) -> Option<Self> {
        parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Whether it started before a moment, in whole seconds.
    pub fn is_older_than(&self, moment: SystemTime) -> bool {
        let since_boot = Duration::from_secs(self.started / TICKS_PER_SECOND);
        boot_time().is_some_and(|boot| boot + since_boot <= moment + Duration::from_secs(1))
    }

    pub fn is_alive(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }
}

/// The name of the program is in parentheses and may contain any of the separators.
fn parse(pid: u32, stat: &str) -> Option<ProcessId> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(ProcessId { pid, started })
}

/// The processes of a daemon: itself, its servers and the control clients of this process. They are in the control group of
/// this process and have the environment that it gives them. A process that only has the pipe directory in its environment
/// is another client. The control group is compared first, because reading the environment of a process that hangs may
/// hang too (`proc(5)`: it is read from its memory).
pub fn of_daemon(pipe_dir: &Path, program_dir: &Path) -> io::Result<Vec<ProcessId>> {
    let own_group = fs::read("/proc/self/cgroup")?;
    let variable = |name: &str, dir: &Path| format!("{name}={}", dir.display()).into_bytes();
    let wanted = [variable(PIPE_VARIABLE, pipe_dir), variable("PATH", program_dir)];
    let entries = fs::read_dir("/proc")?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_in_own_group =
        |id: &ProcessId| fs::read(format!("/proc/{}/cgroup", id.pid)).is_ok_and(|group| group == own_group);
    // The start time is read before the environment: a process that reuses the number later is not the returned one.
    let candidates = pids.filter_map(ProcessId::of).filter(is_in_own_group);
    Ok(candidates.filter(|id| has_variables(id.pid, &wanted)).collect())
}

/// Whether this is the control daemon, or the child that becomes it, and no server.
pub fn is_daemon(id: &ProcessId) -> bool {
    let line = fs::read(format!("/proc/{}/cmdline", id.pid)).unwrap_or_default();
    line.split(|byte| *byte == 0).any(|argument| argument == FOREGROUND.as_bytes())
}

fn has_variables(pid: u32, wanted: &[Vec<u8>]) -> bool {
    let environment = environment(pid);
    let has = |wanted: &Vec<u8>| environment.split(|byte| *byte == 0).any(|variable| variable == wanted);
    wanted.iter().all(has)
}

/// The environment of a process. It is empty for a moment within `execve(2)`.
fn environment(pid: u32) -> Vec<u8> {
    for _ in 0..MAX_READS {
        let found = read_once(&format!("/proc/{pid}/environ")).unwrap_or_default();
        if !found.is_empty() || has_none(&fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default()) {
            return found;
        }
        yield_now();
    }
    Vec::new()
}

/// Reads a file in one call: between two, the process may execute another program.
fn read_once(path: &str) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; MAX_ENVIRONMENT];
    let length = File::open(path)?.read(&mut bytes)?;
    bytes.truncate(length);
    Ok(bytes)
}

/// Whether a process has no environment for good: kernel threads and zombies have no memory; of another process the end of
/// the code is set last, and then the bounds of the environment are equal (`proc_pid_stat(5)`, fields 23, 27, 50 and 51).
fn has_none(stat: &str) -> bool {
    let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or("0");
    field(23) == "0" || (field(27) != "0" && field(50) == field(51))
}

/// Boot time of this machine in whole seconds (`proc(5)`, `btime`).
fn boot_time() -> Option<SystemTime> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime "))?.parse().ok()?;
    Some(UNIX_EPOCH + Duration::from_secs(seconds))
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
        assert!(own.is_alive() && !ProcessId { started: own.started + 1, ..own }.is_alive());
    }

    #[test]
    fn a_process_is_older_than_a_later_moment() {
        let own = ProcessId::of(std::process::id()).unwrap();
        let now = SystemTime::now();
        assert!(own.is_older_than(now) && !own.is_older_than(now - Duration::from_hours(9999)));
    }

    #[test]
    fn the_processes_of_a_daemon_differ_from_those_with_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let program_dir = dir.path().join("driver");
        let start = |path: &Path| {
            let mut command = Command::new("/bin/cat");
            command.env_clear().env(PIPE_VARIABLE, dir.path()).env("PATH", path);
            command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
        };
        let (ours, foreign) = (start(&program_dir), start(Path::new("/usr/bin")));
        let id = ProcessId::of(ours.id()).unwrap();
        let found = || of_daemon(dir.path(), &program_dir).unwrap();
        assert_eq!((found(), of_daemon(&dir.path().join("other"), &program_dir).unwrap()), (vec![id], vec![]));
        for mut child in [ours, foreign] {
            drop(child.stdin.take());
            child.wait().unwrap();
        }
        assert!(found().is_empty() && !id.is_alive());
    }

    #[test]
    fn the_environment_is_readable_while_a_process_executes_a_program() {
        let becomes = "exec /bin/sh -c \"$becomes\"";
        let mut command = Command::new("/bin/sh");
        let mut child = command.args(["-c", becomes]).env_clear().env("becomes", becomes).spawn().unwrap();
        let wanted = [format!("becomes={becomes}").into_bytes()];
        let missed = (0..2000).filter(|_| !has_variables(child.id(), &wanted)).count();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(missed, 0);
        let mut bare = Command::new("/bin/cat").env_clear().stdin(Stdio::piped()).spawn().unwrap();
        assert!(!has_variables(bare.id(), &wanted) && !has_variables(child.id(), &wanted));
        drop(bare.stdin.take());
        bare.wait().unwrap();
    }
}
