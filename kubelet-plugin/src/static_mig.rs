// SPDX-License-Identifier: Apache-2.0
//! Divides GPUs into the static MIG devices of a mig-parted configuration: each GPU when it is read for the first time, before it is
//! published, so that no claim is allocated what the division takes.
//!
//! A GPU that does not get its devices is tried again. One that has them is left alone from then on: an administrator may destroy
//! them. A GPU that was absent, as while the NVIDIA driver is loaded again, is read for the first time after it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dra_hardware::Host;
use dra_mig_parted::{Gpus, Layouts, MigDevices};
use dra_model::{Gpu, GpuEntry, GpuUuid, Health, Inventory, explain};
use dra_prepare::{Engine, StaticMig};
use dra_runtime::tasks::TaskError;
use futures::future::join_all;
use parking_lot::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::event_text::EventText;
use crate::report_channel::ReportSender;
use crate::static_mig_file::{self, StaticMigFile};

/// A claim that uses the whole GPU, or a process that holds it, may be gone by then.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// The longest time between two attempts, which doubles: one that can never succeed must not keep the GPU busy.
const MAX_RETRY_INTERVAL: Duration = Duration::from_mins(5);

#[derive(Debug, Clone)]
pub struct Divider {
    layouts: Arc<Layouts>,
    host: Arc<Host>,
    engine: Arc<Engine>,
    reports: ReportSender,
    /// What became of each GPU that is there.
    gpus: Arc<Mutex<BTreeMap<GpuUuid, Outcome>>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// It has its devices, or the configuration has none for it.
    Divided,
    Failed {
        /// It was reported.
        error: String,
        /// The time until the next attempt, and that attempt.
        delay: Duration,
        next: Instant,
    },
}

impl Divider {
    /// A file that cannot be used is reported, and takes nothing from the claims of the node.
    pub fn of_file(file: &StaticMigFile, host: Arc<Host>, engine: Arc<Engine>, reports: ReportSender) -> Option<Self> {
        match static_mig_file::read(file) {
            Ok(layouts) => Some(Self { layouts: Arc::new(layouts), host, engine, reports, gpus: Arc::default() }),
            Err(failed) => {
                let error = explain(&failed);
                error!(error, "no static MIG devices are created");
                reports.send_about_node(EventText::StaticMigFailed { error });
                None
            }
        }
    }

    /// Divides the GPUs that were not there before, and returns whether some GPU may have changed.
    pub async fn divide_new(&self, inventory: &Inventory) -> bool {
        let is_there = |gpu: &GpuUuid| inventory.usable_gpus().any(|one| one.uuid == *gpu);
        self.gpus.lock().retain(|gpu, _| is_there(gpu));
        self.divide(inventory, |before| before.is_none()).await
    }

    /// Divides GPUs again that did not get their devices, until `stop` is cancelled.
    pub async fn retry(self, stop: CancellationToken) -> Result<(), TaskError> {
        while stop.run_until_cancelled(sleep(RETRY_INTERVAL)).await.is_some() {
            let now = Instant::now();
            let is_due =
                |before: Option<&Outcome>| matches!(before, Some(Outcome::Failed { next, .. }) if *next <= now);
            self.divide(&self.host.latest(), is_due).await;
        }
        Ok(())
    }

    /// GPUs are divided side by side.
    async fn divide(&self, inventory: &Inventory, is_due: impl Fn(Option<&Outcome>) -> bool) -> bool {
        let due = {
            let gpus = self.gpus.lock();
            let usable = (0_u64..).zip(&inventory.gpus).filter_map(|(index, entry)| Some((index, usable(entry)?)));
            usable.filter(|(_, gpu)| is_due(gpus.get(&gpu.uuid))).collect::<Vec<_>>()
        };
        join_all(due.into_iter().map(|(index, gpu)| self.divide_gpu(index, gpu))).await.contains(&true)
    }

    /// `index` is the position of the GPU in PCI order.
    async fn divide_gpu(&self, index: u64, gpu: &Gpu) -> bool {
        let uuid = gpu.uuid.clone();
        let Some(Gpus::Parted(devices)) = self.layouts.of_gpu(index, self.host.pci_ids(gpu.pci)) else {
            self.gpus.lock().insert(uuid, Outcome::Divided);
            return false;
        };
        let wanted: Vec<StaticMig> = devices.iter().map(static_mig).collect();
        let engine = Arc::clone(&self.engine);
        let created = spawn_blocking(move || engine.create_static_mig(&uuid, &wanted)).await;
        let created = match created {
            Ok(created) => created.map_err(|error| explain(&error)),
            Err(error) => Err(format!("a bug in the driver stopped the division of {} ({error})", gpu.uuid)),
        };
        let is_changed = !matches!(&created, Ok(devices) if devices.is_empty());
        self.record(&gpu.uuid, created);
        is_changed
    }

    fn record(&self, gpu: &GpuUuid, created: Result<Vec<String>, String>) {
        let mut gpus = self.gpus.lock();
        let known = match gpus.get(gpu) {
            Some(Outcome::Failed { error, delay, .. }) => Some((error.clone(), *delay)),
            Some(Outcome::Divided) | None => None,
        };
        let outcome = match &created {
            Ok(_) => Outcome::Divided,
            Err(error) => {
                let delay = known.as_ref().map_or(RETRY_INTERVAL, |(_, delay)| (*delay * 2).min(MAX_RETRY_INTERVAL));
                Outcome::Failed { error: error.clone(), delay, next: Instant::now() + delay }
            }
        };
        gpus.insert(gpu.clone(), outcome);
        drop(gpus);
        match created {
            Ok(devices) if !devices.is_empty() => {
                let devices = devices.join(", ");
                info!(%gpu, devices, "static MIG devices created");
                self.reports.send_about_node(EventText::StaticMigCreated { devices });
            }
            Err(error) if known.is_none_or(|(reported, _)| reported != error) => {
                error!(%gpu, error, "static MIG devices are missing, will retry");
                self.reports.send_about_node(EventText::StaticMigFailed { error });
            }
            Ok(_) | Err(_) => {}
        }
    }
}

fn usable(entry: &GpuEntry) -> Option<&Gpu> {
    match entry {
        GpuEntry::Known { gpu, health: Health::Usable } => Some(gpu),
        GpuEntry::Known { .. } | GpuEntry::Unidentified { .. } => None,
    }
}

fn static_mig(MigDevices { profile, count, .. }: &MigDevices) -> StaticMig {
    StaticMig { profile: profile.gpu_instance(), compute_slices: profile.compute_slices(), count: *count }
}
