// SPDX-License-Identifier: Apache-2.0
//! What every daemon is right now: written by its supervisor, read by whoever lists or watches.

use dra_model::DaemonId;
use dra_mps_api::{ObservedDaemon, ObservedDaemons};
use tokio::sync::watch;

use crate::metrics::Metrics;

/// Where they are shown.
#[derive(Debug)]
pub struct DaemonStates {
    shown: watch::Sender<ObservedDaemons>,
    metrics: Metrics,
}

impl DaemonStates {
    /// Nothing yet.
    pub fn new(metrics: Metrics) -> Self {
        Self { shown: watch::Sender::default(), metrics }
    }

    /// Shows a daemon as it is now.
    pub fn publish(&self, seen: &ObservedDaemon) {
        self.change(|shown| shown.insert(seen.spec.id.clone(), seen.clone()).as_ref() != Some(seen));
    }

    /// Shows it no more.
    pub fn remove(&self, id: &DaemonId) {
        self.change(|shown| shown.remove(id).is_some());
    }

    /// All of them, now and later.
    pub fn subscribe(&self) -> watch::Receiver<ObservedDaemons> {
        self.shown.subscribe()
    }

    fn change(&self, change: impl FnOnce(&mut ObservedDaemons) -> bool) {
        self.shown.send_if_modified(|shown| {
            let changed = change(shown);
            if changed {
                self.metrics.daemons(shown);
            }
            changed
        });
    }
}
