// SPDX-License-Identifier: Apache-2.0
//! The states of all daemons: written by their supervisors, read by `List` and `Watch`.

use dra_model::DaemonId;
use dra_mps_api::{ObservedDaemon, ObservedDaemons};
use tokio::sync::watch;

use crate::metrics::Metrics;

/// The published states.
#[derive(Debug)]
pub struct DaemonStates {
    observed: watch::Sender<ObservedDaemons>,
    metrics: Metrics,
}

impl DaemonStates {
    pub fn new(metrics: Metrics) -> Self {
        Self { observed: watch::Sender::default(), metrics }
    }

    /// Publishes a daemon. Readers are notified only of changes.
    pub fn publish(&self, daemon: &ObservedDaemon) {
        self.change(|observed| observed.insert(daemon.spec.id.clone(), daemon.clone()).as_ref() != Some(daemon));
    }

    pub fn remove(&self, id: &DaemonId) {
        self.change(|observed| observed.remove(id).is_some());
    }

    /// The states now and every later change.
    pub fn subscribe(&self) -> watch::Receiver<ObservedDaemons> {
        self.observed.subscribe()
    }

    fn change(&self, change: impl FnOnce(&mut ObservedDaemons) -> bool) {
        self.observed.send_if_modified(|observed| {
            let changed = change(observed);
            if changed {
                self.metrics.daemons(observed);
            }
            changed
        });
    }
}
