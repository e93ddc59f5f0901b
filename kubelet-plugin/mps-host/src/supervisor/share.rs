// SPDX-License-Identifier: Apache-2.0
//! The claims that use a daemon, and the removal of what they leave in its shared memory.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use dra_hardware::ClaimUse;
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
    /// Records a claim. The end of a claim is answered after its unused files are removed. Without a daemon nothing happens.
    pub(super) fn share(&mut self, claim: &str, change: ClaimUse, reply: oneshot::Sender<()>) {
        let begun = self.share_now(claim, change);
        tokio::spawn(async move {
            if let Some(begun) = begun {
                timeout(CLEANUP_WAIT, begun).await.ok();
            }
            reply.send(()).ok();
        });
    }

    /// Records a claim. Returns what to wait for if a sweep began.
    fn share_now(&mut self, claim: &str, change: ClaimUse) -> Option<oneshot::Receiver<()>> {
        if matches!(self.lifecycle, Lifecycle::Absent | Lifecycle::Stopping(_)) {
            return None;
        }
        let (opened, found) = self.shared_memory()?;
        match change {
            ClaimUse::Starts => {
                self.sharing_claims.join(claim, &found);
                None
            }
            ClaimUse::Ends => {
                let left = self.sharing_claims.leave(claim, found);
                let (waiting, begun) = oneshot::channel();
                tokio::spawn(sweep(opened, left, waiting));
                Some(begun)
            }
        }
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
