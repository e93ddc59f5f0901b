// SPDX-License-Identifier: Apache-2.0
//! Watches the hardware and the registration, and publishes the state of the node in a channel.
//!
//! Each second a cheap query compares the hardware with the last one; a difference leads to a full discovery. So the slices have
//! a new MIG device within two seconds, and follow an NVIDIA driver that is installed or removed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dra_hardware::Host;
use dra_model::{DriverState, Gpu, Inventory};
use dra_runtime::tasks::TaskError;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::inventory_file::InventoryFile;
use crate::metrics::Metrics;
use crate::node_service::NodeState;
use crate::registration::{ActiveInstance, Registration};
use crate::static_mig::Divider;

const QUERY_INTERVAL: Duration = Duration::from_secs(1);

/// The number of queries between two full discoveries: a GPU that starts to fail may still answer the cheap query.
const FULL_READ_INTERVAL: u64 = 30;

#[derive(Debug)]
pub struct Observer {
    pub host: Arc<Host>,
    pub registration: watch::Receiver<Registration>,
    /// The socket that the kubelet calls. After its removal only a restart of this process creates it.
    pub dra_path: PathBuf,
    pub active: ActiveInstance,
    /// Notified when a GPU becomes readable: a pending restore of its settings may succeed.
    pub readable: Arc<Notify>,
    pub state: watch::Sender<NodeState>,
    pub metrics: Metrics,
    /// For the next start.
    pub file: InventoryFile,
    /// Divides GPUs before they are published.
    pub divider: Option<Divider>,
}

impl Observer {
    /// Runs until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), TaskError> {
        let mut ticks = interval(QUERY_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut registrations, mut queries) = (0, 0);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = ticks.tick() => {
                    tokio::select! {
                        read = self.read(queries % FULL_READ_INTERVAL == 0) => read?,
                        () = stop.cancelled() => return Ok(()),
                    }
                    queries += 1;
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

    /// A superseded instance counts as not registered, so that its controller stops publishing.
    fn effective_registration(&mut self) -> Registration {
        let registration = *self.registration.borrow_and_update();
        Registration { accepted: registration.accepted && !self.active.is_superseded(), ..registration }
    }

    async fn read(&self, in_full: bool) -> Result<(), TaskError> {
        if !self.dra_path.exists() {
            return Err(format!(
                "socket {} was removed; this process stops, and its restart creates the socket",
                self.dra_path.display()
            )
            .into());
        }
        let host = Arc::clone(&self.host);
        let mut inventory = spawn_blocking(move || {
            if in_full {
                return host.refresh();
            }
            host.refresh_if_changed();
            host.latest()
        })
        .await?;
        if let Some(divider) = &self.divider
            && divider.divide_new(&inventory).await
        {
            let host = Arc::clone(&self.host);
            inventory = spawn_blocking(move || host.refresh()).await?;
        }
        let mut is_readable_again = false;
        let changed = self.state.send_if_modified(|state| {
            let changed = state.inventory.as_deref() != Some(inventory.as_ref());
            if changed {
                is_readable_again =
                    state.inventory.as_ref().is_some_and(|before| some_gpu_is_readable_again(before, &inventory));
                state.inventory = Some(Arc::clone(&inventory));
            }
            changed
        });
        if is_readable_again {
            self.readable.notify_one();
        }
        if changed {
            self.metrics.inventory(&inventory);
            log_inventory(&inventory);
            let file = self.file.clone();
            spawn_blocking(move || file.save(&inventory)).await?;
        }
        Ok(())
    }
}

/// Whether a GPU is usable now that was not, or was absent, before.
fn some_gpu_is_readable_again(before: &Inventory, now: &Inventory) -> bool {
    let was_usable = |gpu: &Gpu| before.usable_gpus().any(|earlier| earlier.uuid == gpu.uuid);
    now.usable_gpus().any(|gpu| !was_usable(gpu))
}

fn log_inventory(inventory: &Inventory) {
    match &inventory.driver {
        DriverState::Loaded { version, cuda } => {
            let (gpus, devices) = (inventory.gpus.len(), inventory.forms().len());
            let cuda = cuda.map_or_else(|| "unknown".to_owned(), |cuda| cuda.to_string());
            info!(%version, cuda, gpus, devices, "hardware read");
        }
        DriverState::Missing { reason } => warn!(reason, "the NVIDIA driver is not available, waiting for it"),
    }
    for (index, entry) in inventory.gpus.iter().enumerate() {
        if let Some(failure) = entry.failure() {
            let uuid = entry.uuid().map_or("unknown", |uuid| uuid.as_str());
            let pci = entry.pci().map_or_else(|| "unknown".to_owned(), |pci| pci.to_string());
            warn!(index, uuid, pci, reason = failure.reason, "GPU cannot be read and gets no new claims");
        }
    }
}
