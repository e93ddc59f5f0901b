// SPDX-License-Identifier: Apache-2.0
//! The commands of the control program, one per line of its input.
//!
//! The program exits with 0 even if a command was refused, and applies other values in place of some refused ones. So every
//! setting is read back.

use std::fmt;
use std::time::Duration;

use dra_model::{Bytes, ThreadPercentage};

/// The unit of memory limits, `M` for the program.
pub(crate) const MIB: u64 = 1 << 20;

/// One command. "Default" limits apply to servers that start later; clients can only lower them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Reads the default thread percentage. A new daemon answers this command first.
    Threads,
    /// Sets the default thread percentage. An impossible value leaves the old one and prints it (seen).
    SetThreads(ThreadPercentage),
    /// Reads the default memory limit of the device at an index in `CUDA_VISIBLE_DEVICES`. By UUID the answer is empty (seen).
    Memory(u32),
    /// Sets the default memory limit, rounded down to MiB. The answer is empty, and an unknown unit counts as M (seen).
    SetMemory(u32, Bytes),
    /// Lists the process ids of the servers.
    Servers,
    /// Lists the process ids of the clients of a server.
    Clients(u32),
    /// Ends the daemon. The daemon waits for its clients, in whole seconds, and then ends their servers; the control program
    /// waits for the daemon.
    Quit(Duration),
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Threads => f.write_str("get_default_active_thread_percentage"),
            Self::SetThreads(percentage) => write!(f, "set_default_active_thread_percentage {percentage}"),
            Self::Memory(index) => write!(f, "get_default_device_pinned_mem_limit {index}"),
            Self::SetMemory(index, limit) => {
                write!(f, "set_default_device_pinned_mem_limit {index} {}M", limit.0 / MIB)
            }
            Self::Servers => f.write_str("get_server_list"),
            Self::Clients(server) => write!(f, "get_client_list {server}"),
            Self::Quit(timeout) => write!(f, "quit -t {}", timeout.as_secs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::script;

    #[test]
    fn commands_are_lines_of_input() {
        let thirty = ThreadPercentage::try_from(30).unwrap();
        for (given, expect) in [
            (Command::Threads, "get_default_active_thread_percentage"),
            (Command::SetThreads(thirty), "set_default_active_thread_percentage 30"),
            (Command::Memory(1), "get_default_device_pinned_mem_limit 1"),
            (Command::SetMemory(0, Bytes(10 << 30)), "set_default_device_pinned_mem_limit 0 10240M"),
            (Command::SetMemory(3, Bytes((5 << 20) + 4096)), "set_default_device_pinned_mem_limit 3 5M"),
            (Command::Servers, "get_server_list"),
            (Command::Clients(4711), "get_client_list 4711"),
            (Command::Quit(Duration::from_millis(2500)), "quit -t 2"),
        ] {
            assert_eq!(given.to_string(), expect);
        }
        assert_eq!(
            script(&[Command::Servers, Command::Memory(0)]),
            "get_server_list\nget_default_device_pinned_mem_limit 0\n"
        );
    }
}
