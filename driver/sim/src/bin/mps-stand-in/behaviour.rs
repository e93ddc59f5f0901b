// SPDX-License-Identifier: Apache-2.0
//! The behaviour of a daemon: one line each in `behaviour` beside its pipe directory, and for all daemons of a driver root in
//! `nvidia-cuda-mps-control.behaviour` beside the program. The files are read again all the time; replace them by a rename.
//!
//! ```text
//! slow-start MS      is ready after a delay
//! hang-start         creates no socket and does not exit
//! no-answer          has its sockets and does not answer
//! ignore-set         answers a `set_` command and does not apply it
//! hang-quit          does not exit after `quit`
//! exit-at-once       exits with 1 and leaves servers and sockets
//! old                does not have -M
//! client PID UID     a client process, as long as it runs and is in the file
//! ```
//!
//! Without `-M` the server has one user at a time, as with NVIDIA's program: a client of another user waits until the server has
//! no clients.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

/// The parsed lines of both files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Behaviour {
    faults: BTreeSet<Fault>,
    pub(crate) slow_start: Duration,
    /// User of each client by process.
    pub(crate) clients: BTreeMap<u32, u32>,
}

/// A fault of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    HangStart,
    NoAnswer,
    IgnoreSet,
    HangQuit,
    ExitAtOnce,
    Old,
}

impl Behaviour {
    /// Reads the behaviour of the daemon of a pipe directory.
    pub(crate) fn of(pipe_dir: &Path) -> Result<Self, String> {
        let mut program_path = std::env::current_exe().map_err(|error| error.to_string())?.into_os_string();
        program_path.push(".behaviour");
        let mut behaviour = Self::default();
        for path in [program_path.into(), pipe_dir.with_file_name("behaviour")] {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            for line in text.lines().filter(|line| !line.trim().is_empty()) {
                behaviour.add(line).ok_or_else(|| format!("{}: `{line}` is no behaviour", path.display()))?;
            }
        }
        Ok(behaviour)
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    fn add(&mut self, line: &str) -> Option<()> {
        let fault = match *line.split_whitespace().collect::<Vec<_>>() {
            ["slow-start", millis] => {
                self.slow_start = Duration::from_millis(millis.parse().ok()?);
                return Some(());
            }
            ["client", pid, user] => {
                self.clients.insert(pid.parse().ok()?, user.parse().ok()?);
                return Some(());
            }
            ["hang-start"] => Fault::HangStart,
            ["no-answer"] => Fault::NoAnswer,
            ["ignore-set"] => Fault::IgnoreSet,
            ["hang-quit"] => Fault::HangQuit,
            ["exit-at-once"] => Fault::ExitAtOnce,
            ["old"] => Fault::Old,
            _ => return None,
        };
        self.faults.insert(fault);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_files_count_and_typing_errors_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let pipe_dir = dir.path().join("pipe");
        assert_eq!(Behaviour::of(&pipe_dir), Ok(Behaviour::default()));
        std::fs::write(dir.path().join("behaviour"), "slow-start 20\n\nold\nclient 7 1000\nclient 8 0\n").unwrap();
        let behaviour = Behaviour::of(&pipe_dir).unwrap();
        assert_eq!(behaviour.slow_start, Duration::from_millis(20));
        assert_eq!(behaviour.clients, BTreeMap::from([(7, 1000), (8, 0)]));
        assert!(behaviour.has(Fault::Old) && !behaviour.has(Fault::ExitAtOnce));
        for bad in ["exit-at-onec", "client 7", "client x 0", "slow-start", "exit-at-once now"] {
            std::fs::write(dir.path().join("behaviour"), bad).unwrap();
            assert!(Behaviour::of(&pipe_dir).unwrap_err().ends_with(&format!("`{bad}` is no behaviour")), "{bad}");
        }
    }
}
