// SPDX-License-Identifier: Apache-2.0
//! How often something was given back, or was not, since this process began; for metrics.

use std::collections::BTreeMap;

use dra_hardware::Setting;
use parking_lot::Mutex;

/// Something that is worth counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    /// A setting is as it was found.
    Restored(Setting),
    /// It is not yet.
    NotRestored(Setting),
    /// A setting that someone else had changed was set again.
    PutRight(Setting),
    /// An MPS daemon was ended.
    Stopped,
    /// It was not yet.
    NotStopped,
}

/// The counts.
#[derive(Debug, Default)]
pub struct Tally(Mutex<BTreeMap<Deed, u64>>);

impl Tally {
    /// One more.
    pub(crate) fn count(&self, deed: Deed) {
        *self.0.lock().entry(deed).or_default() += 1;
    }

    /// All of them so far.
    pub(crate) fn counts(&self) -> BTreeMap<Deed, u64> {
        self.0.lock().clone()
    }
}
