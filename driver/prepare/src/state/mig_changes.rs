// SPDX-License-Identifier: Apache-2.0
//! The MIG devices that were created and destroyed, until they are reported as Events.

use std::collections::VecDeque;
use std::time::Duration;

use dra_model::{ClaimRef, DeviceName, MigIds};
use parking_lot::Mutex;

/// The oldest change is dropped when there are more.
const MAX_CHANGES: usize = 256;

/// One MIG device of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigChange {
    pub claim: ClaimRef,
    pub device: DeviceName,
    pub kind: MigChangeKind,
    pub took: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MigChangeKind {
    Created(MigIds),
    Destroyed,
}

#[derive(Debug, Default)]
pub(crate) struct MigChanges(Mutex<VecDeque<MigChange>>);

impl MigChanges {
    pub(crate) fn add(&self, change: MigChange) {
        let mut changes = self.0.lock();
        if changes.len() == MAX_CHANGES {
            changes.pop_front();
        }
        changes.push_back(change);
    }

    pub(crate) fn take(&self) -> Vec<MigChange> {
        std::mem::take(&mut *self.0.lock()).into()
    }
}
