// SPDX-License-Identifier: Apache-2.0
//! All that is measured at one time: GPUs, MIG devices, processes, and the claims that have them.

use std::collections::BTreeMap;
use std::sync::Arc;

use dra_hardware::{Host, Measurements, Pod};
use dra_model::{ClaimRef, DeviceNames, Gpu, explain};
use dra_prepare::{Engine, PreparedDevice};
use dra_resource::Consumer;
use futures::future::join_all;
use tokio::task::spawn_blocking;
use tracing::{debug, warn};

use super::consumers::ClaimConsumers;

/// The most processes of a GPU whose pods are looked up.
const MAX_PROCESSES: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Snapshot {
    pub(super) gpus: Vec<MeasuredGpu>,
    pub(super) claims: Vec<PreparedClaim>,
    pub(super) names: Option<DeviceNames>,
}

#[derive(Debug)]
pub(super) struct MeasuredGpu {
    /// The name of its device.
    pub(super) device: String,
    pub(super) gpu: Gpu,
    pub(super) measurements: Measurements,
    /// Bytes that the processes of each pod use.
    pub(super) pods: BTreeMap<Pod, u64>,
}

#[derive(Debug)]
pub(super) struct PreparedClaim {
    pub(super) claim: ClaimRef,
    pub(super) devices: Vec<PreparedDevice>,
    pub(super) consumers: Vec<Consumer>,
}

impl Snapshot {
    pub(super) async fn of_gpus(host: &Arc<Host>) -> Self {
        let inventory = host.latest();
        let names = inventory.names();
        let measure = |gpu: &Gpu| {
            let (host, gpu, device) = (Arc::clone(host), gpu.clone(), names.gpu(&gpu.uuid));
            spawn_blocking(move || measured(&host, gpu, device))
        };
        let gpus = join_all(inventory.known_gpus().map(|(gpu, _)| measure(gpu))).await;
        Self { gpus: gpus.into_iter().flatten().flatten().collect(), claims: Vec::new(), names: Some(names) }
    }

    /// Adds the claims that are prepared, and the memory that pods use.
    pub(super) async fn add_claims(&mut self, host: &Arc<Host>, engine: &Arc<Engine>, consumers: &ClaimConsumers) {
        let engine = Arc::clone(engine);
        match spawn_blocking(move || engine.claims()).await {
            Ok(Ok(claims)) => self.claims = with_consumers(claims, consumers),
            Ok(Err(failed)) => warn!(error = explain(&failed), "the metrics of claims are not complete"),
            Err(_panicked) => {}
        }
        let processes: Vec<_> = self.gpus.iter().map(|gpu| gpu.measurements.processes.clone()).collect();
        let host = Arc::clone(host);
        let pods = spawn_blocking(move || processes.iter().map(|all| memory_of_pods(&host, all)).collect::<Vec<_>>());
        for (gpu, pods) in self.gpus.iter_mut().zip(pods.await.unwrap_or_default()) {
            gpu.pods = pods;
        }
    }
}

fn measured(host: &Host, gpu: Gpu, device: String) -> Option<MeasuredGpu> {
    match host.measurements(&gpu.uuid) {
        Ok(measurements) => Some(MeasuredGpu { device, gpu, measurements, pods: BTreeMap::new() }),
        Err(failed) => {
            debug!(error = explain(&failed), "the GPU is not measured");
            None
        }
    }
}

fn memory_of_pods(host: &Host, processes: &[(u32, u64)]) -> BTreeMap<Pod, u64> {
    let mut pods = BTreeMap::new();
    for (id, bytes) in processes.iter().take(MAX_PROCESSES) {
        if let Some(pod) = host.pod_of(*id) {
            *pods.entry(pod).or_default() += bytes;
        }
    }
    pods
}

fn with_consumers(claims: Vec<(ClaimRef, Vec<PreparedDevice>)>, consumers: &ClaimConsumers) -> Vec<PreparedClaim> {
    let claims = claims.into_iter().map(|(claim, devices)| {
        let consumers = consumers.of(&claim);
        PreparedClaim { claim, devices, consumers }
    });
    claims.collect()
}
