// SPDX-License-Identifier: Apache-2.0
//! Removes what the last instance of the driver on a node would leave behind.
//!
//! The first prepare writes base specs again, so a mere restart loses nothing.

use std::time::Instant;

use dra_cdi::{HookProgram, Kind};
use dra_model::{chain, explain};
use tracing::warn;

use crate::flows::restore::restore_pending;
use crate::state::node::Node;

/// Removes the base specs, the hook program and the locks if no claim needs them, restores the GPUs, and returns whether nothing of this driver
/// is left on the node. The caller is the only instance and serves no call any more.
pub(crate) fn retire(node: &Node) -> bool {
    if !has_no_claim(node) {
        return false;
    }
    let is_restored = restore_pending(node, &node.background_call(Instant::now()));
    if let Err(error) = node.locks.remove() {
        warn!(error = explain(&error), "failed to remove the lock directory");
    }
    let specs = match node.specs.list() {
        Ok(listing) => listing.specs,
        Err(error) => {
            warn!(error = %chain(&error), "failed to list CDI specs for removal");
            return false;
        }
    };
    let left = specs.iter().filter(|kind| !remove_base(node, kind)).count();
    left == 0 && remove_hook_program(node) && is_restored
}

/// A quarantined record counts: an administrator has to look at it.
fn has_no_claim(node: &Node) -> bool {
    let (listing, quarantined) = (node.records.list(), node.records.quarantined());
    listing.is_ok_and(|listing| listing.records.is_empty() && listing.quarantined.is_empty())
        && quarantined.is_ok_and(|quarantined| quarantined.is_empty())
}

fn remove_hook_program(node: &Node) -> bool {
    match node.hook.as_ref().map_or(Ok(()), HookProgram::remove_all) {
        Ok(()) => true,
        Err(error) => {
            warn!(error = explain(&error), "failed to remove the hook program");
            false
        }
    }
}

fn remove_base(node: &Node, kind: &Kind) -> bool {
    match kind {
        Kind::Claim(_) => false,
        Kind::Base(_) => match node.specs.remove(kind) {
            Ok(()) => true,
            Err(error) => {
                warn!(error = explain(&error), "failed to remove a base spec");
                false
            }
        },
    }
}
