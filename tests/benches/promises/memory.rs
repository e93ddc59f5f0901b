// SPDX-License-Identifier: Apache-2.0
//! Memory and processor time of processes, as the kernel counts them (`proc_pid_status(5)`, `proc_pid_stat(5)`).

use std::fs;

use crate::stage::Stage;

/// Memory of one process, in MiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process {
    /// `VmRSS`.
    pub all: f64,
    /// `RssAnon`: without the pages of programs and libraries, which the kernel can drop and share.
    pub anonymous: f64,
}

/// Memory of both processes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rss {
    pub plugin: Process,
    pub controller: Process,
}

impl Rss {
    pub(crate) fn all(&self) -> f64 {
        self.plugin.all + self.controller.all
    }
}

impl Stage<'_> {
    /// How much memory both have now.
    pub(crate) fn rss(&self) -> Rss {
        let [plugin, controller] = self.process_ids().map(memory);
        Rss { plugin, controller }
    }

    /// Processor time both have used so far, in milliseconds.
    pub(crate) fn processor_time(&self) -> [f64; 2] {
        self.process_ids().map(processor_time)
    }
}

pub(crate) fn memory(process_id: u32) -> Process {
    let status = fs::read_to_string(format!("/proc/{process_id}/status")).expect("the process runs");
    let field = |name: &str| -> f64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux has this line");
        let kib: u32 = line.trim_end_matches("kB").trim().parse().expect("a number of kB");
        f64::from(kib) / 1024.0
    };
    Process { all: field("VmRSS:"), anonymous: field("RssAnon:") }
}

/// Ticks of user space are 10 ms on every Linux architecture we build for.
fn processor_time(process_id: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process_id}/stat")).expect("the process runs");
    // The program's name, the only field that may hold a space, ends with the last parenthesis; then comes field 3.
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
    let ticks = |field: usize| -> f64 { fields[field - 3].parse().expect("a number of ticks") };
    (ticks(14) + ticks(15)) * 10.0
}
