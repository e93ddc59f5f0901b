// SPDX-License-Identifier: Apache-2.0
//! Counts how settings were restored and daemons stopped since this process started; for metrics.

use std::collections::BTreeMap;

use dra_hardware::Setting;
use parking_lot::Mutex;

/// The outcome of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RestoreOutcome {
    SettingRestored(Setting),
    SettingNotRestored(Setting),
    /// A setting that was changed outside this driver was set again.
    SettingCorrected(Setting),
    DaemonStopped,
    DaemonNotStopped,
}

#[derive(Debug, Default)]
pub struct Counters(Mutex<BTreeMap<RestoreOutcome, u64>>);

impl Counters {
    pub(crate) fn count(&self, outcome: RestoreOutcome) {
        *self.0.lock().entry(outcome).or_default() += 1;
    }

    pub(crate) fn counts(&self) -> BTreeMap<RestoreOutcome, u64> {
        self.0.lock().clone()
    }
}
