// SPDX-License-Identifier: Apache-2.0
//! Streams the state of this node to the controller in the same pod.
//!
//! The input is the inventory and the registration as watch channels. The output is the current state, then each change.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use dra_model::{Finding, GpuUuid, Inventory};
use dra_proto::node_v1 as pb;
use dra_proto::node_v1::node_server::NodeServer;
use dra_serve::StreamLimit;
use futures::Stream;
use futures::StreamExt as _;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tracing::error;

use crate::registration::Registration;

/// Streams at a time. There is one controller, and a broken stream may not be closed yet.
const MAX_STREAMS: usize = 4;

/// The request is empty.
const MAX_REQUEST_BYTES: usize = 1024;

/// The state of this node that the controller needs.
#[derive(Debug, Clone, Default)]
pub struct NodeState {
    /// Not accepted if a newer instance superseded this one.
    pub registration: Registration,
    /// Absent until the hardware is read for the first time.
    pub inventory: Option<Arc<Inventory>>,
    pub findings: Arc<Findings>,
    /// Whether the findings are there: those of an earlier process are read at the start.
    pub is_judged: bool,
}

/// What is wrong with GPUs; none without a finding.
pub type Findings = BTreeMap<GpuUuid, Vec<Finding>>;

/// Serves `WatchNode`.
#[derive(Debug)]
pub struct NodeService {
    state: watch::Receiver<NodeState>,
    streams: StreamLimit,
    stop: CancellationToken,
}

impl NodeService {
    /// A service that streams the channel until `stop` is cancelled.
    pub fn new(state: watch::Receiver<NodeState>, stop: CancellationToken) -> Self {
        Self { state, streams: StreamLimit::new(MAX_STREAMS), stop }
    }

    pub fn server(self) -> NodeServer<Self> {
        NodeServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }
}

#[tonic::async_trait]
impl pb::node_server::Node for NodeService {
    type WatchNodeStream = Pin<Box<dyn Stream<Item = Result<pb::NodeState, Status>> + Send>>;

    async fn watch_node(
        &self,
        _request: Request<pb::WatchNodeRequest>,
    ) -> Result<Response<Self::WatchNodeStream>, Status> {
        let states = WatchStream::new(self.state.clone()).map(|state| encode(&state));
        let states = self.streams.count(states.take_until(self.stop.clone().cancelled_owned()))?;
        Ok(Response::new(Box::pin(states)))
    }
}

fn encode(state: &NodeState) -> Result<pb::NodeState, Status> {
    let inventory = match &state.inventory {
        None => String::new(),
        Some(inventory) => serde_json::to_string(&with_findings(inventory, &state.findings)).map_err(|error| {
            error!(%error, "failed to encode the inventory");
            Status::internal(error.to_string())
        })?,
    };
    let Registration { accepted, count } = state.registration;
    Ok(pb::NodeState { registered: accepted, registrations: count, inventory })
}

fn with_findings<'a>(inventory: &'a Inventory, findings: &Findings) -> Cow<'a, Inventory> {
    if findings.is_empty() {
        return Cow::Borrowed(inventory);
    }
    Cow::Owned(Inventory { findings: findings.clone(), ..inventory.clone() })
}
