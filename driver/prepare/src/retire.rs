// SPDX-License-Identifier: Apache-2.0
//! What the last instance on a node takes with it when it stops, so that an uninstalled driver leaves nothing behind.
//!
//! Base specs are made again by the first prepare, so a mere restart loses nothing.

use std::time::Instant;

use dra_cdi::Kind;
use tracing::warn;

use crate::engine::Engine;
use crate::error::chain;

impl Engine {
    /// Removes the base specs and the locks if no claim needs them, gives back what is owed to GPUs, and says whether
    /// nothing of this driver is left on the node.
    /// The caller is the only instance and serves no call any more.
    pub fn retire(&self) -> bool {
        if !self.has_no_claim() {
            return false;
        }
        let owes_nothing = self.pay_all(&self.call(Instant::now()));
        if let Err(error) = self.locks.remove() {
            warn!(error = chain(&error), "unable to remove the folder of locks");
        }
        let specs = match self.specs.list() {
            Ok(listing) => listing.specs,
            Err(error) => {
                warn!(error = chain(&error), "unable to look for specs to remove");
                return false;
            }
        };
        let kept = specs.iter().filter(|kind| !self.remove_base(kind)).count();
        kept == 0 && owes_nothing
    }

    /// A record that was set aside counts: someone has to look at it.
    fn has_no_claim(&self) -> bool {
        let (listing, quarantined) = (self.records.list(), self.records.quarantined());
        listing.is_ok_and(|listing| listing.records.is_empty() && listing.quarantined.is_empty())
            && quarantined.is_ok_and(|quarantined| quarantined.is_empty())
    }

    fn remove_base(&self, kind: &Kind) -> bool {
        match kind {
            Kind::Claim(_) => false,
            Kind::Base(_) => match self.specs.remove(kind) {
                Ok(()) => true,
                Err(error) => {
                    warn!(error = chain(&error), "unable to remove a base spec");
                    false
                }
            },
        }
    }
}
