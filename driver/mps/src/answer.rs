// SPDX-License-Identifier: Apache-2.0
//! The answers of the control program.
//!
//! A refused command prints a sentence instead of an answer, so a text that is not exactly an answer counts as none.

use std::fmt;

use dra_model::{Bytes, ThreadPercentage};

use crate::command::{Command, MIB};

/// One limit of a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Active thread percentage.
    Threads(ThreadPercentage),
    /// Pinned memory of the device at this index.
    Memory(u32, Bytes),
}

impl Limit {
    /// The command that sets the limit.
    pub fn setting(self) -> Command {
        match self {
            Self::Threads(percentage) => Command::SetThreads(percentage),
            Self::Memory(index, bytes) => Command::SetMemory(index, bytes),
        }
    }

    /// The command that reads the limit back.
    pub fn query(self) -> Command {
        match self {
            Self::Threads(_) => Command::Threads,
            Self::Memory(index, _) => Command::Memory(index),
        }
    }

    /// Whether an answer is this limit.
    pub fn matches(self, answer: &str) -> bool {
        match self {
            Self::Threads(percentage) => is_percentage(percentage, answer),
            Self::Memory(_, bytes) => is_memory_limit(bytes, answer),
        }
    }

    /// The value in the notation of the command.
    pub fn value(self) -> String {
        match self {
            Self::Threads(percentage) => percentage.to_string(),
            Self::Memory(_, bytes) => format!("{}M", bytes.0 / MIB),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Threads(_) => f.write_str("active thread percentage"),
            Self::Memory(index, _) => write!(f, "pinned memory limit of device {index}"),
        }
    }
}

/// Whether an answer is this percentage: `30.0`, with one decimal always (seen).
pub fn is_percentage(wanted: ThreadPercentage, answer: &str) -> bool {
    let zeros = |rest: &str| !rest.is_empty() && rest.bytes().all(|digit| digit == b'0');
    let rest = answer.trim().strip_prefix(&wanted.to_string());
    rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix('.').is_some_and(zeros))
}

/// Whether an answer is this limit: `512M`, and from 1 GiB on whole GiB rounded down, `1G` for 1536M (seen). The answer is
/// empty without a limit.
pub fn is_memory_limit(wanted: Bytes, answer: &str) -> bool {
    let mib = wanted.0 / MIB;
    let answer = answer.trim();
    let number = |unit| answer.strip_suffix(unit).and_then(|number| number.parse::<u64>().ok());
    number('M') == Some(mib) || (mib >= 1024 && number('G') == Some(mib / 1024))
}

/// The process ids of an answer, one per line. A sentence such as `Server 4711 not found` is an empty list: the server has
/// exited.
pub fn pids(answer: &str) -> Vec<u32> {
    let lines = answer.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| line.parse().ok().filter(|pid| *pid > 0)).collect::<Option<_>>().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_read_back() {
        let thirty = ThreadPercentage::try_from(30).unwrap();
        for (answer, expect) in [
            ("30.0\n", true),
            ("30", true),
            ("30.00", true),
            ("30.5", false),
            ("100.0", false),
            ("3.0", false),
            ("", false),
            (".0", false),
            ("30.", false),
            ("Unknown command \"30.0\"", false),
        ] {
            assert_eq!(is_percentage(thirty, answer), expect, "{answer}");
        }
    }

    #[test]
    fn memory_is_read_back_as_coarse_as_it_is_printed() {
        for (mib, answer, expect) in [
            (512, "512M\n", true),
            (512, "511M", false),
            (512, "0G", false),
            (1023, "1023M", true),
            (1024, "1G", true),
            (1536, "1G", true),
            (1536, "1536M", true),
            (1536, "2G", false),
            (81_559, "79G", true),
            (81_559, "80G", false),
            (10_240, "", false),
            (10_240, "10", false),
            (10_240, "10240K", false),
            (10_240, "-10G", false),
        ] {
            assert_eq!(is_memory_limit(Bytes(mib << 20), answer), expect, "{mib} {answer}");
        }
    }

    #[test]
    fn lists_are_pids_or_nothing() {
        for (answer, expect) in [
            ("", &[][..]),
            ("4711\n", &[4711]),
            ("4711\n12\n", &[4711, 12]),
            ("Server 4711 not found\n", &[]),
            ("0\n", &[]),
            ("-1\n", &[]),
            ("99999999999\n", &[]),
        ] {
            assert_eq!(pids(answer), expect, "{answer}");
        }
    }

    #[test]
    fn a_limit_names_itself_and_its_commands() {
        let threads = Limit::Threads(ThreadPercentage::try_from(25).unwrap());
        let memory = Limit::Memory(1, Bytes(3 << 30));
        let texts =
            [threads, memory].map(|limit| format!("{limit} {}: {}, {}", limit.value(), limit.setting(), limit.query()));
        assert_eq!(
            texts,
            [
                "active thread percentage 25: set_default_active_thread_percentage 25, get_default_active_thread_percentage",
                "pinned memory limit of device 1 3072M: set_default_device_pinned_mem_limit 1 3072M, \
                 get_default_device_pinned_mem_limit 1",
            ]
        );
        assert!(threads.matches("25.0") && memory.matches("3G") && !memory.matches("25.0"));
    }
}
