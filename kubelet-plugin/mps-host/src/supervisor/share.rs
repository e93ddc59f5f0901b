// SPDX-License-Identifier: Apache-2.0
//! The claims that use a daemon, and the removal of what they leave in its shared memory.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::fs::CWD;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::warn;

use super::{Lifecycle, Supervisor};
use crate::remove_tree::open_dir;
use crate::sharing_claims::{Entry, SharingClaims};
use crate::sweep::{entries, path_of, sweep};

/// Time that the end of a claim waits for the removal of its files, which continues afterwards. Shorter than the timeout of
/// the plugin.
const CLEANUP_WAIT: Duration = Duration::from_secs(1);

impl Supervisor {
    /// Records a claim that starts to share the daemon.
    pub(super) fn join(&mut self, claim: &str) {
        if let Some((_, found)) = self.shared_memory() {
            self.sharing_claims.join(claim, &found);
        }
    }

    /// Records the end of a claim. It is answered after the unused files of the claim are removed. Without a daemon nothing
    /// happens.
    pub(super) fn leave(&mut self, claim: &str, reply: oneshot::Sender<()>) {
        let begun = self.begin_sweep(claim);
        tokio::spawn(async move {
            if let Some(begun) = begun {
                timeout(CLEANUP_WAIT, begun).await.ok();
            }
            reply.send(()).ok();
        });
    }

    /// Returns what to wait for if a sweep began.
    fn begin_sweep(&mut self, claim: &str) -> Option<oneshot::Receiver<()>> {
        if matches!(self.lifecycle, Lifecycle::Absent | Lifecycle::Stopping(_)) {
            return None;
        }
        let (opened, found) = self.shared_memory()?;
        let left = self.sharing_claims.leave(claim, found);
        let (waiting, begun) = oneshot::channel();
        tokio::spawn(sweep(opened, left, waiting));
        Some(begun)
    }

    /// Begins to record the claims of an adopted daemon.
    pub(super) fn find_sharing_claims(&mut self) {
        self.sharing_claims =
            self.shared_memory().map(|(_, found)| SharingClaims::after_restart(&found)).unwrap_or_default();
    }

    /// The open directory, so that a sweep never reaches the shared memory of a later daemon, and its entries.
    fn shared_memory(&self) -> Option<(OwnedFd, Vec<Entry>)> {
        let opened = open_dir(CWD, self.dir.shm_dir());
        let read = opened.map_err(io::Error::from).and_then(|opened| Ok((entries(&path_of(&opened))?, opened)));
        match read {
            Ok((found, opened)) => Some((opened, found)),
            Err(error) => {
                warn!(daemon = %self.id, %error, "failed to read the shared memory of an MPS daemon, it is not swept");
                None
            }
        }
    }
}
