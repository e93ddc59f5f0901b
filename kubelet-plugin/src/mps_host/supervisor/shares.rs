// SPDX-License-Identifier: Apache-2.0
//! The claims that share a daemon, and the end of what they left in its shared memory.

use std::io;
use std::os::fd::OwnedFd;

use dra_hardware::Sharer;
use rustix::fs::CWD;
use tracing::warn;

use super::super::removal::open_dir;
use super::super::sharers::{Entry, Sharers};
use super::super::sweep::{entries, path_of, sweep};
use super::{Life, Supervisor};

impl Supervisor {
    /// Notes a claim; of one that leaves, what it may have left is removed in a while. Without a daemon there is nothing.
    pub(super) fn share(&mut self, claim: &str, change: Sharer) {
        if matches!(self.life, Life::Absent | Life::Leaving(_)) {
            return;
        }
        let Some((opened, found)) = self.shared_memory() else { return };
        match change {
            Sharer::Comes => self.sharers.comes(claim, &found),
            Sharer::Leaves => {
                let left = self.sharers.leaves(claim, found);
                tokio::spawn(sweep(opened, left));
            }
        }
    }

    /// Begins to note the claims of a daemon that an earlier process left.
    pub(super) fn find_sharers(&mut self) {
        self.sharers = self.shared_memory().map(|(_, found)| Sharers::found(&found)).unwrap_or_default();
    }

    /// Held open, so that nothing is ever looked for in the shared memory of a later daemon.
    fn shared_memory(&self) -> Option<(OwnedFd, Vec<Entry>)> {
        let opened = open_dir(CWD, self.place.shm_dir());
        let read = opened.map_err(io::Error::from).and_then(|opened| Ok((entries(&path_of(&opened))?, opened)));
        match read {
            Ok((found, opened)) => Some((opened, found)),
            Err(error) => {
                warn!(daemon = %self.id, %error, "the shared memory of an MPS daemon cannot be read and is not swept");
                None
            }
        }
    }
}
