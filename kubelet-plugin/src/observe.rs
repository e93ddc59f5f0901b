// SPDX-License-Identifier: Apache-2.0
//! Watches the hardware and the registration, and publishes what the node is as a channel.
//!
//! The hardware is asked for its shape once a second, which is cheap; a difference leads to a full discovery. So a MIG
//! device that an administrator makes shows in the slices within two seconds, and a driver that comes or goes does too.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dra_hardware::Host;
use dra_model::{DriverState, Gpu, GpuEntry, Inventory};
use dra_runtime::tasks::TaskError;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::metrics::Metrics;
use crate::node_service::NodeState;
use crate::registration::{ActiveInstance, Registration};

/// How often the hardware is asked whether anything changed.
const PERIOD: Duration = Duration::from_secs(1);

/// Every how many periods it is read in full: a GPU that begins to fail may still answer what its shape is made of.
const FULL_READ: u64 = 30;

/// What this task looks at and where it says what it saw.
#[derive(Debug)]
pub struct Observer {
    /// The machine.
    pub host: Arc<Host>,
    /// What the kubelet said last.
    pub registration: watch::Receiver<Registration>,
    /// The socket the kubelet calls; when someone removes it only a restart makes it again.
    pub dra_path: PathBuf,
    /// Whether a newer instance took over.
    pub active: ActiveInstance,
    /// Woken when a GPU can be read that could not be before: it may take the settings that it is owed.
    pub returned: Arc<Notify>,
    /// For whom the node state is.
    pub state: watch::Sender<NodeState>,
    /// Shows the devices.
    pub metrics: Metrics,
}

impl Observer {
    /// Runs until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), TaskError> {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut registrations, mut periods) = (0, 0);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = ticks.tick() => {
                    tokio::select! {
                        looked = self.look(periods % FULL_READ == 0) => looked?,
                        () = stop.cancelled() => return Ok(()),
                    }
                    periods += 1;
                }
                changed = self.registration.changed() => changed?,
            }
            let registration = self.effective_registration();
            if registration.count > registrations {
                registrations = registration.count;
                self.metrics.registered();
            }
            self.state.send_if_modified(|state| {
                let changed = state.registration != registration;
                state.registration = registration;
                changed
            });
        }
    }

    /// A superseded instance counts as not registered: whoever publishes must stop.
    fn effective_registration(&mut self) -> Registration {
        let said = *self.registration.borrow_and_update();
        Registration { accepted: said.accepted && !self.active.is_superseded(), ..said }
    }

    async fn look(&self, in_full: bool) -> Result<(), TaskError> {
        if !self.dra_path.exists() {
            return Err(format!(
                "{} was removed: this process ends, to begin again with a new one",
                self.dra_path.display()
            )
            .into());
        }
        let host = Arc::clone(&self.host);
        let inventory = spawn_blocking(move || {
            if in_full {
                return host.refresh();
            }
            host.refresh_if_changed();
            host.latest()
        })
        .await?;
        let mut has_returned = false;
        let changed = self.state.send_if_modified(|state| {
            let changed = state.inventory.as_deref() != Some(inventory.as_ref());
            if changed {
                has_returned = state.inventory.as_ref().is_some_and(|before| some_gpu_returned(before, &inventory));
                state.inventory = Some(Arc::clone(&inventory));
            }
            changed
        });
        if has_returned {
            self.returned.notify_one();
        }
        if changed {
            self.metrics.inventory(&inventory);
            log_inventory(&inventory);
        }
        Ok(())
    }
}

/// Whether a GPU is good now that was broken, or not there, before.
fn some_gpu_returned(before: &Inventory, now: &Inventory) -> bool {
    let was_good = |gpu: &Gpu| before.good_gpus().any(|earlier| earlier.uuid == gpu.uuid);
    now.good_gpus().any(|gpu| !was_good(gpu))
}

fn log_inventory(inventory: &Inventory) {
    match &inventory.driver {
        DriverState::Loaded { version, cuda } => {
            let (gpus, devices) = (inventory.gpus.len(), inventory.devices().len());
            let cuda = cuda.map_or_else(|| "unknown".to_owned(), |cuda| cuda.to_string());
            info!(%version, cuda, gpus, devices, "hardware read");
        }
        DriverState::Missing { reason } => warn!(reason, "no driver, waiting for it"),
    }
    for entry in &inventory.gpus {
        if let GpuEntry::Broken { index, uuid, pci, reason, .. } = entry {
            let uuid = uuid.as_ref().map_or("unknown", |uuid| uuid.as_str());
            let pci = pci.map_or_else(|| "unknown".to_owned(), |pci| pci.to_string());
            warn!(index, uuid, pci, reason, "GPU cannot be read and is not published");
        }
    }
}
