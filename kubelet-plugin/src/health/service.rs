// SPDX-License-Identifier: Apache-2.0
//! Streams the health of all devices of the node to the kubelet, which writes it to the status of the pods that use them.
//!
//! The kubelet keeps what it receives for 30 s, and forgets everything when a stream ends. So the whole state is sent at the start,
//! at each change and every 10 s.

use std::pin::Pin;
use std::time::Duration;

use dra_model::{Device, Finding, Health, Inventory, NodeName, Verdict, worst};
use dra_proto::{health_v1 as v1, health_v1alpha1 as v1alpha1};
use dra_serve::StreamLimit;
use futures::{Stream, StreamExt as _, stream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::health::monitor::seconds;
use crate::node_service::NodeState;

const RESEND_INTERVAL: Duration = Duration::from_secs(10);

/// The kubelet's own default, which some versions ignore.
const TIMEOUT_SECONDS: i64 = 30;

/// The kubelet has one, and a broken one may not be closed yet.
const MAX_STREAMS: usize = 8;

/// The service of one version.
#[derive(Debug)]
pub struct HealthService {
    pool: NodeName,
    state: watch::Receiver<NodeState>,
    streams: StreamLimit,
    stop: CancellationToken,
}

impl HealthService {
    /// A service whose streams end when `stop` is cancelled.
    pub fn new(pool: NodeName, state: watch::Receiver<NodeState>, stop: CancellationToken) -> Self {
        Self { pool, state, streams: StreamLimit::new(MAX_STREAMS), stop }
    }

    fn stream(&self) -> Result<impl Stream<Item = Vec<v1::DeviceHealth>> + Send + use<>, Status> {
        let (pool, mut state) = (self.pool.clone(), self.state.clone());
        state.mark_changed();
        let responses = stream::unfold(state, move |mut state| {
            let pool = pool.clone();
            async move {
                // A timeout is the time to send again; an error means that the process stops.
                if timeout(RESEND_INTERVAL, state.changed()).await.is_ok_and(|changed| changed.is_err()) {
                    return None;
                }
                let devices = devices(&pool, &state.borrow_and_update());
                Some((devices, state))
            }
        });
        self.streams.count(responses.take_until(self.stop.clone().cancelled_owned()))
    }
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl v1::dra_resource_health_server::DraResourceHealth for HealthService {
    type NodeWatchResourcesStream = Responses<v1::NodeWatchResourcesResponse>;

    async fn node_watch_resources(
        &self,
        _request: Request<v1::NodeWatchResourcesRequest>,
    ) -> Result<Response<Self::NodeWatchResourcesStream>, Status> {
        let responses = self.stream()?.map(|devices| Ok(v1::NodeWatchResourcesResponse { devices }));
        Ok(Response::new(Box::pin(responses)))
    }
}

#[tonic::async_trait]
impl v1alpha1::dra_resource_health_server::DraResourceHealth for HealthService {
    type NodeWatchResourcesStream = Responses<v1alpha1::NodeWatchResourcesResponse>;

    async fn node_watch_resources(
        &self,
        _request: Request<v1alpha1::NodeWatchResourcesRequest>,
    ) -> Result<Response<Self::NodeWatchResourcesStream>, Status> {
        let responses = self.stream()?.map(|devices| {
            let devices = devices.into_iter().map(older).collect();
            Ok(v1alpha1::NodeWatchResourcesResponse { devices })
        });
        Ok(Response::new(Box::pin(responses)))
    }
}

fn older(device: v1::DeviceHealth) -> v1alpha1::DeviceHealth {
    let v1::DeviceHealth { device, health, last_updated_time, health_check_timeout_seconds, message } = device;
    let identifier =
        |v1::DeviceIdentifier { pool_name, device_name }| v1alpha1::DeviceIdentifier { pool_name, device_name };
    let device = device.map(identifier);
    v1alpha1::DeviceHealth { device, health, last_updated_time, health_check_timeout_seconds, message }
}

/// The health of every device; nothing before the hardware is read.
fn devices(pool: &NodeName, state: &NodeState) -> Vec<v1::DeviceHealth> {
    let Some(inventory) = &state.inventory else { return Vec::new() };
    let now = i64::try_from(seconds()).unwrap_or(i64::MAX);
    let names = inventory.names();
    let of_device = |(device, is_readable): (Device<'_>, bool)| {
        let findings = state.findings.get(&device.gpu().uuid).map_or(&[][..], Vec::as_slice);
        let (verdict, message) = judged(worst(findings, device.placement()), is_readable);
        v1::DeviceHealth {
            device: Some(v1::DeviceIdentifier { pool_name: pool.to_string(), device_name: names.device(device) }),
            health: status(verdict).into(),
            last_updated_time: now,
            health_check_timeout_seconds: TIMEOUT_SECONDS,
            message,
        }
    };
    all_devices(inventory).map(of_device).collect()
}

/// Every device, with whether its GPU can be read.
fn all_devices(inventory: &Inventory) -> impl Iterator<Item = (Device<'_>, bool)> {
    inventory.known_gpus().flat_map(|(gpu, health)| {
        let is_readable = *health == Health::Usable;
        gpu.forms().into_iter().map(move |device| (device, is_readable))
    })
}

/// Verdict and message, which are constant while nothing changes, so that no pod status is written.
fn judged(worst: Option<&Finding>, is_readable: bool) -> (Verdict, String) {
    match worst {
        Some(finding) if finding.verdict == Verdict::Unhealthy || is_readable => {
            (finding.verdict, finding.message.clone())
        }
        Some(_) | None if !is_readable => (Verdict::Unknown, "the GPU cannot be read".to_owned()),
        Some(_) | None => (Verdict::Healthy, String::new()),
    }
}

const fn status(verdict: Verdict) -> v1::HealthStatus {
    match verdict {
        Verdict::Healthy => v1::HealthStatus::Healthy,
        Verdict::Unknown => v1::HealthStatus::Unknown,
        Verdict::Unhealthy => v1::HealthStatus::Unhealthy,
    }
}
