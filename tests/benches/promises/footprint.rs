// SPDX-License-Identifier: Apache-2.0
//! What the plugin, the MPS host and its daemons occupy on the node, to be compared with what they did before.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::memory::memory;
use crate::stage::Stage;

/// Between two counts: threads without work end sooner. Not a fraction of a second, because the plugin has a thread for half of
/// each second, and counts in step with it would always or never include that thread.
const COUNT_INTERVAL: Duration = Duration::from_millis(700);
/// Looks at a node that does not come to rest, or not to the rest it had.
const LOOKS: usize = 40;

/// What can be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Daemons, and whatever was started to talk to them.
    pub processes: usize,
    /// Of plugin and MPS host.
    pub threads: usize,
    /// Of plugin and MPS host.
    pub open_files: usize,
    /// Files and directories below those the driver writes to.
    pub files: usize,
    /// Shared memory of daemons.
    pub mounts: usize,
}

/// The counts, and memory without the pages of files, in MiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Footprint {
    pub counts: Counts,
    pub plugin_memory: f64,
    pub mps_host_memory: f64,
}

impl Counts {
    fn fit_into(&self, other: &Self) -> bool {
        let Self { processes, threads, open_files, files, mounts } = *self;
        processes <= other.processes
            && threads <= other.threads
            && open_files <= other.open_files
            && files <= other.files
            && mounts <= other.mounts
    }
}

impl Stage<'_> {
    /// What there is when nothing changes any more, and if it comes to that, no more than before.
    pub(crate) async fn footprint(&self, before: Option<&Footprint>) -> Footprint {
        let mut counts = interval(COUNT_INTERVAL);
        counts.set_missed_tick_behavior(MissedTickBehavior::Delay);
        counts.tick().await;
        let mut last = self.counts();
        for _ in 0..LOOKS {
            counts.tick().await;
            let now = self.counts();
            if now == last && before.is_none_or(|before| now.fit_into(&before.counts)) {
                break;
            }
            last = now;
        }
        let [plugin, mps_host] = self.node_processes().map(|id| memory(id).anonymous);
        Footprint { counts: last, plugin_memory: plugin, mps_host_memory: mps_host }
    }

    fn counts(&self) -> Counts {
        let of_processes = |name: &str| self.node_processes().map(|id| entries_in(id, name)).iter().sum();
        Counts {
            processes: self.mps_host.processes().len(),
            threads: of_processes("task"),
            open_files: of_processes("fd"),
            files: self.driver_dirs().iter().map(|dir| entries_below(dir)).sum(),
            mounts: self.mps_host.mounts(),
        }
    }

    /// The plugin and the MPS host.
    fn node_processes(&self) -> [u32; 2] {
        let [plugin, _controller] = self.process_ids();
        [plugin, self.mps_host.process_id()]
    }
}

fn entries_in(process_id: u32, name: &str) -> usize {
    fs::read_dir(format!("/proc/{process_id}/{name}")).expect("the process runs").count()
}

/// What disappears while it is looked at is not there.
fn entries_below(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let is_dir = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries.map(|entry| 1 + if is_dir(&entry) { entries_below(&entry.path()) } else { 0 }).sum()
}
