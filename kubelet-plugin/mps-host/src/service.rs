// SPDX-License-Identifier: Apache-2.0
//! The gRPC service: requests to the registry, and the states of the daemons.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dra_mps_api::ObservedDaemons;
use dra_mps_api::failed::failed_of;
use dra_mps_api::wire::{changes, daemon, id_of, observed_message, spec_of, status_from};
use dra_proto::mps_v1 as pb;
use dra_serve::{StreamLimit, stopping};
use futures::{Stream, StreamExt as _, stream};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::daemon_registry::{DaemonRegistry, Stopping};

/// Concurrent streams. Each plugin instance of a node has one.
const MAX_STREAMS: usize = 16;

/// Serves `gpu_dra.mps.v1`.
#[derive(Debug)]
pub struct MpsService {
    daemons: Arc<DaemonRegistry>,
    observed: watch::Receiver<ObservedDaemons>,
    streams: StreamLimit,
    stop: CancellationToken,
}

impl MpsService {
    /// Its streams end when `stop` is cancelled.
    pub fn new(
        daemons: Arc<DaemonRegistry>,
        observed: watch::Receiver<ObservedDaemons>,
        stop: CancellationToken,
    ) -> Self {
        Self { daemons, observed, streams: StreamLimit::new(MAX_STREAMS), stop }
    }
}

#[tonic::async_trait]
impl pb::mps_server::Mps for MpsService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::Daemon, Status>> + Send>>;

    /// The supervisor continues when the call is dropped.
    async fn start(&self, request: Request<pb::StartRequest>) -> Result<Response<pb::Daemon>, Status> {
        let pb::StartRequest { spec, timeout_ms, claim } = request.into_inner();
        let spec = spec_of(spec.unwrap_or_default())?;
        let sharer = (!claim.is_empty()).then_some(claim);
        let started = self.daemons.start(spec.clone(), sharer, Duration::from_millis(timeout_ms.into())).await;
        let started = started.map_err(|Stopping| stopping())?.map_err(|error| status_from(&error))?;
        Ok(Response::new(daemon(&spec, &started)))
    }

    async fn stop(&self, request: Request<pb::StopRequest>) -> Result<Response<pb::StopResponse>, Status> {
        let pb::StopRequest { id, timeout_ms, unless_used } = request.into_inner();
        let stopped = self.daemons.stop(&id_of(&id)?, unless_used, Duration::from_millis(timeout_ms.into())).await;
        stopped.map_err(|Stopping| stopping())?.map_err(|error| status_from(&error))?;
        Ok(Response::new(pb::StopResponse {}))
    }

    async fn leave(&self, request: Request<pb::LeaveRequest>) -> Result<Response<pb::LeaveResponse>, Status> {
        let pb::LeaveRequest { id, claim } = request.into_inner();
        self.daemons.leave(&id_of(&id)?, &claim).await.map_err(|Stopping| stopping())?;
        Ok(Response::new(pb::LeaveResponse {}))
    }

    async fn set_failed(
        &self,
        request: Request<pb::SetFailedRequest>,
    ) -> Result<Response<pb::SetFailedResponse>, Status> {
        self.daemons.set_failed(failed_of(request.into_inner())?).map_err(|Stopping| stopping())?;
        Ok(Response::new(pb::SetFailedResponse {}))
    }

    async fn list(&self, _request: Request<pb::ListRequest>) -> Result<Response<pb::ListResponse>, Status> {
        let daemons = self.observed.borrow().values().map(observed_message).collect();
        Ok(Response::new(pb::ListResponse { daemons }))
    }

    async fn watch(&self, _request: Request<pb::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let mut sent = ObservedDaemons::new();
        let all = WatchStream::new(self.observed.clone()).flat_map(move |observed| {
            let new = changes(&sent, &observed);
            sent = observed;
            stream::iter(new.into_iter().map(Ok))
        });
        let all = self.streams.count(all.take_until(self.stop.clone().cancelled_owned()))?;
        Ok(Response::new(Box::pin(all)))
    }
}
