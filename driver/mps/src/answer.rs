// SPDX-License-Identifier: Apache-2.0
//! What a front end prints for a command.
//!
//! A refused command prints a sentence instead of an answer, so whatever is not exactly an answer is none.

use std::fmt;

use dra_model::{Bytes, ThreadPercentage};

use crate::command::{Command, MIB};

/// One limit a daemon should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Of threads.
    Threads(ThreadPercentage),
    /// Of memory, of the device at this index.
    Memory(u32, Bytes),
}

impl Limit {
    /// How it is set.
    pub fn setting(self) -> Command {
        match self {
            Self::Threads(percentage) => Command::SetThreads(percentage),
            Self::Memory(index, bytes) => Command::SetMemory(index, bytes),
        }
    }

    /// How it is read back.
    pub fn question(self) -> Command {
        match self {
            Self::Threads(_) => Command::Threads,
            Self::Memory(index, _) => Command::Memory(index),
        }
    }

    /// Whether that is what was answered.
    pub fn agrees(self, answer: &str) -> bool {
        match self {
            Self::Threads(percentage) => threads_are(percentage, answer),
            Self::Memory(_, bytes) => memory_is(bytes, answer),
        }
    }

    /// The value, as it is set.
    pub fn value(self) -> String {
        match self {
            Self::Threads(percentage) => percentage.to_string(),
            Self::Memory(_, bytes) => format!("{}M", bytes.0 / MIB),
        }
    }
}

/// Names it for people.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Threads(_) => f.write_str("active thread percentage"),
            Self::Memory(index, _) => write!(f, "pinned memory limit of device {index}"),
        }
    }
}

/// Whether an answer is this percentage: `30.0`, one decimal always (seen).
pub fn threads_are(wanted: ThreadPercentage, answer: &str) -> bool {
    let zeros = |rest: &str| !rest.is_empty() && rest.bytes().all(|digit| digit == b'0');
    let rest = answer.trim().strip_prefix(&wanted.to_string());
    rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix('.').is_some_and(zeros))
}

/// Whether an answer is this limit: `512M`, and from 1 GiB on whole GiB with the rest cut off, `1G` for 1536M (seen). No
/// limit is an empty answer.
pub fn memory_is(wanted: Bytes, answer: &str) -> bool {
    let mib = wanted.0 / MIB;
    let answer = answer.trim();
    let number = |unit| answer.strip_suffix(unit).and_then(|number| number.parse::<u64>().ok());
    number('M') == Some(mib) || (mib >= 1024 && number('G') == Some(mib / 1024))
}

/// The process ids of an answer, one a line. A sentence such as `Server 4711 not found` is no list: the server is gone.
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
            assert_eq!(threads_are(thirty, answer), expect, "{answer}");
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
            assert_eq!(memory_is(Bytes(mib << 20), answer), expect, "{mib} {answer}");
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
        let said = [threads, memory]
            .map(|limit| format!("{limit} {}: {}, {}", limit.value(), limit.setting(), limit.question()));
        assert_eq!(
            said,
            [
                "active thread percentage 25: set_default_active_thread_percentage 25, get_default_active_thread_percentage",
                "pinned memory limit of device 1 3072M: set_default_device_pinned_mem_limit 1 3072M, \
                 get_default_device_pinned_mem_limit 1",
            ]
        );
        assert!(threads.agrees("25.0") && memory.agrees("3G") && !memory.agrees("25.0"));
    }
}
