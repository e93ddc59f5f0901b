// SPDX-License-Identifier: Apache-2.0
//! What Prometheus reads about GPUs and claims, measured when it asks: an idle plugin measures nothing.

pub mod consumers;

mod claim_series;

mod gpu_series;

mod snapshot;

mod series;

use std::sync::Arc;
use std::time::Duration;

use dra_hardware::Host;
use dra_prepare::Engine;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use consumers::ClaimConsumers;
use snapshot::Snapshot;

/// Scrapes within this time get the same values, so that a flood of them costs one measurement.
const MIN_AGE: Duration = Duration::from_secs(1);

/// Reads GPUs and claims for each scrape. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Monitoring {
    host: Arc<Host>,
    engine: Arc<Engine>,
    consumers: ClaimConsumers,
    /// Whether claims and pods are named.
    names_claims: bool,
    latest: Latest,
    /// The time of the last measurement, locked while one is made.
    measured: Arc<tokio::sync::Mutex<Option<Instant>>>,
}

/// The last measurement.
#[derive(Debug, Clone, Default)]
struct Latest(Arc<Mutex<Arc<Snapshot>>>);

impl Monitoring {
    pub fn new(host: Arc<Host>, engine: Arc<Engine>, consumers: ClaimConsumers, names_claims: bool) -> Self {
        Self { host, engine, consumers, names_claims, latest: Latest::default(), measured: Arc::default() }
    }

    pub fn register(&self, registry: &mut Registry) {
        registry.sub_registry_with_prefix("gpu_dra").register_collector(Box::new(self.latest.clone()));
    }

    /// Measures all GPUs side by side. One that does not answer is absent.
    pub async fn measure(&self) {
        let mut measured = self.measured.lock().await;
        if measured.is_some_and(|at| at.elapsed() < MIN_AGE) {
            return;
        }
        let mut snapshot = Snapshot::of_gpus(&self.host).await;
        if self.names_claims {
            snapshot.add_claims(&self.host, &self.engine, &self.consumers).await;
        }
        *self.latest.0.lock() = Arc::new(snapshot);
        *measured = Some(Instant::now());
    }
}

impl Collector for Latest {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let snapshot = Arc::clone(&self.0.lock());
        gpu_series::encode(&snapshot, &mut encoder)?;
        claim_series::encode(&snapshot, &mut encoder)
    }
}
