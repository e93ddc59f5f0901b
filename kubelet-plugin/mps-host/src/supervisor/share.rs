// SPDX-License-Identifier: Apache-2.0
//! The claims that share a daemon, and the end of what they left in its shared memory.

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

/// How long a claim that leaves waits at most for what it left to be removed; that goes on then. Less than a plugin waits.
const CLEANUP_WAIT: Duration = Duration::from_secs(1);

impl Supervisor {
    /// Notes a claim; what one that leaves may have left is removed before it is replied, but for what is used. Without a
    /// daemon there is nothing.
    pub(super) fn share(&mut self, claim: &str, change: ClaimUse, reply: oneshot::Sender<()>) {
        let begun = self.share_now(claim, change);
        tokio::spawn(async move {
            if let Some(begun) = begun {
                timeout(CLEANUP_WAIT, begun).await.ok();
            }
            reply.send(()).ok();
        });
    }

    /// Of a sweep that was begun, what to wait for.
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

    /// Begins to note the claims of a daemon that an earlier process left.
    pub(super) fn find_sharing_claims(&mut self) {
        self.sharing_claims =
            self.shared_memory().map(|(_, found)| SharingClaims::after_restart(&found)).unwrap_or_default();
    }

    /// Held open, so that nothing is ever checked for in the shared memory of a later daemon.
    fn shared_memory(&self) -> Option<(OwnedFd, Vec<Entry>)> {
        let opened = open_dir(CWD, self.dir.shm_dir());
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
