// SPDX-License-Identifier: Apache-2.0
//! Processes of this machine, as `/proc` shows them.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::thread::yield_now;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dra_mps::launch::{FOREGROUND, PIPE_VARIABLE};
use serde::{Deserialize, Serialize};

/// What start times are counted in (`USER_HZ`): 100 wherever NVIDIA's driver runs.
const TICKS_PER_SECOND: u64 = 100;

/// What a daemon is given is shorter.
const MAX_ENVIRONMENT: usize = 64 << 10;

/// How often a process is checked at that is becoming another program; it takes it a few.
const MAX_READS: usize = 1000;

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

    /// Whether it was started before a moment, as far as whole seconds tell.
    pub fn is_older_than(&self, moment: SystemTime) -> bool {
        let since_boot = Duration::from_secs(self.started / TICKS_PER_SECOND);
        boot_time().is_some_and(|boot| boot + since_boot <= moment + Duration::from_secs(1))
    }

    /// Whether it has not ended.
    pub fn is_alive(&self) -> bool {
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

/// The processes of a daemon: itself, its servers and front ends that we ask it with. They are in the control group of this
/// process, as all that it starts, and have the whole environment that it gives them. Whoever only knows the pipe
/// directory is somebody else. The group is checked at first, since the environment of a foreign process that hangs may
/// not be readable for as long as that hangs (`proc(5)`: it is read from its memory).
pub fn of_daemon(pipe_dir: &Path, program_dir: &Path) -> io::Result<Vec<ProcessId>> {
    let own_group = fs::read("/proc/self/cgroup")?;
    let variable = |name: &str, dir: &Path| format!("{name}={}", dir.display()).into_bytes();
    let wanted = [variable(PIPE_VARIABLE, pipe_dir), variable("PATH", program_dir)];
    let entries = fs::read_dir("/proc")?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_beside = |id: &ProcessId| fs::read(format!("/proc/{}/cgroup", id.pid)).is_ok_and(|group| group == own_group);
    // The number is checked up before the environment: a process that took it over since then is not the one that is returned.
    let candidates = pids.filter_map(ProcessId::of).filter(is_beside);
    Ok(candidates.filter(|id| has_variables(id.pid, &wanted)).collect())
}

/// Whether this is no server, which goes on without its daemon: the daemon itself, or what will be it.
pub fn is_daemon(id: &ProcessId) -> bool {
    let line = fs::read(format!("/proc/{}/cmdline", id.pid)).unwrap_or_default();
    line.split(|byte| *byte == 0).any(|argument| argument == FOREGROUND.as_bytes())
}

fn has_variables(pid: u32, wanted: &[Vec<u8>]) -> bool {
    let environment = environment(pid);
    let has = |wanted: &Vec<u8>| environment.split(|byte| *byte == 0).any(|variable| variable == wanted);
    wanted.iter().all(has)
}

/// What a process was given. One that is becoming another program shows none for a moment, in the midst of `execve(2)`.
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

/// At once: between two reads the process may become another program, of which the second one knows nothing.
fn read_once(path: &str) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; MAX_ENVIRONMENT];
    let length = File::open(path)?.read(&mut bytes)?;
    bytes.truncate(length);
    Ok(bytes)
}

/// Whether a process has no environment and gets none: threads of the kernel and dead processes have no memory, and of
/// others it is known where the code ends, which is told last, and where the environment begins and ends
/// (`proc_pid_stat(5)`, fields 23, 27, 50 and 51).
fn has_none(stat: &str) -> bool {
    let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or("0");
    field(23) == "0" || (field(27) != "0" && field(50) == field(51))
}

/// When this machine was started, to the second (`proc(5)`, `btime`).
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
    fn a_process_is_older_than_what_comes_after_it() {
        let own = ProcessId::of(std::process::id()).unwrap();
        let now = SystemTime::now();
        assert!(own.is_older_than(now) && !own.is_older_than(now - Duration::from_hours(9999)));
    }

    #[test]
    fn the_processes_of_a_daemon_are_told_from_those_that_know_its_directory() {
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
    fn a_process_that_becomes_another_program_stays_the_same() {
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
