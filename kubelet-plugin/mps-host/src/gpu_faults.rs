// SPDX-License-Identifier: Apache-2.0
//! The faults of GPUs because of which daemons must not run: set by the plugin, followed by the supervisors.
//!
//! They are in memory only: after a restart of this process the plugin sets them again, and an adopted daemon ends then.

use dra_model::DaemonId;
use dra_mps_api::FailedDaemons;
use tokio::sync::watch;

/// The daemons of the last call of the plugin.
#[derive(Debug, Default)]
pub struct GpuFaults(watch::Sender<FailedDaemons>);

impl GpuFaults {
    pub fn set(&self, failed: FailedDaemons) {
        self.0.send_if_modified(|current| {
            let is_changed = *current != failed;
            *current = failed;
            is_changed
        });
    }

    /// The fault because of which a daemon must not run.
    pub fn of(&self, id: &DaemonId) -> Option<String> {
        self.0.borrow().get(id).cloned()
    }

    /// Waits until the fault of a daemon is another one than the known one, and returns it.
    pub async fn next(&self, id: &DaemonId, known: Option<&str>) -> Option<String> {
        let mut failed = self.0.subscribe();
        let is_other = |failed: &FailedDaemons| failed.get(id).map(String::as_str) != known;
        let next = failed.wait_for(is_other).await.map(|failed| failed.get(id).cloned());
        match next {
            Ok(fault) => fault,
            // The sender is a field of `self`, so it is never dropped before.
            Err(_closed) => std::future::pending().await,
        }
    }
}
