// SPDX-License-Identifier: Apache-2.0
//! Reports from the kubelet plugin's stream on a unix socket. A broken stream is opened again after a short delay; until then the
//! report is unavailable and nothing is written.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dra_model::{Advice, Inventory, explain};
use dra_proto::node_v1::node_client::NodeClient;
use dra_proto::node_v1::{NodeState, WatchNodeRequest};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tracing::{info, warn};

use crate::node_report::{NodeReport, send_if_changed};
use crate::rate_limits::Backoff;
use crate::repeated_failures::RepeatedFailures;

/// Interval and timeout of keep-alive pings: a plugin that hangs is detected after twice this time.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// The stream of the kubelet plugin is not available.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("failed to connect to the kubelet plugin at {}", socket.display())]
    Connect {
        socket: PathBuf,
        #[source]
        source: tonic::transport::Error,
    },
    #[error("the stream of the kubelet plugin failed")]
    Broken(#[source] StatusMessage),
    #[error("the kubelet plugin closed its stream")]
    Ended,
    /// The plugin is of another version.
    #[error("failed to parse the inventory of the kubelet plugin")]
    Inventory(#[source] serde_json::Error),
}

impl Advice for StreamError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Inventory(_) => Some("run both containers from one image".into()),
            Self::Connect { .. } | Self::Broken(_) | Self::Ended => None,
        }
    }
}

/// A gRPC status that is displayed as its message; tonic displays it with the `Debug` of its cause.
#[derive(Debug)]
pub struct StatusMessage(Box<tonic::Status>);

impl fmt::Display for StatusMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.message().is_empty() { self.0.code().fmt(f) } else { f.write_str(self.0.message()) }
    }
}

impl Error for StatusMessage {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// Sends the reports of the plugin behind a socket until `stop`.
pub async fn follow(socket: PathBuf, report: watch::Sender<NodeReport>, stop: CancellationToken) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    let mut failures = RepeatedFailures::default();
    info!(socket = %socket.display(), "connecting to the kubelet plugin");
    loop {
        let on_report = |received| {
            backoff.reset();
            if let Some(elapsed) = failures.recovered() {
                info!(failed_s = elapsed.as_secs(), "connected to the kubelet plugin again");
            }
            send_if_changed(&report, received);
        };
        let error = tokio::select! {
            () = stop.cancelled() => return,
            error = receive(&socket, on_report) => error,
        };
        let reason = explain(&error);
        if failures.should_log(&reason) {
            warn!(reason, "no connection to the kubelet plugin, the slices are unchanged; retrying");
        }
        send_if_changed(&report, NodeReport::Unavailable { reason });
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(backoff.next_delay()) => {}
        }
    }
}

/// Passes on the reports of the plugin until the stream fails.
async fn receive(socket: &Path, mut on_report: impl FnMut(NodeReport)) -> StreamError {
    let broken = |status| StreamError::Broken(StatusMessage(Box::new(status)));
    let mut client = match connect(socket).await {
        Ok(client) => client,
        Err(source) => return StreamError::Connect { socket: socket.to_owned(), source },
    };
    let mut stream = match client.watch_node(WatchNodeRequest {}).await {
        Ok(response) => response.into_inner(),
        Err(status) => return broken(status),
    };
    loop {
        match stream.message().await {
            Ok(Some(state)) => match report_of(state) {
                Ok(received) => on_report(received),
                Err(error) => return StreamError::Inventory(error),
            },
            Ok(None) => return StreamError::Ended,
            Err(status) => return broken(status),
        }
    }
}

async fn connect(socket: &Path) -> Result<NodeClient<tonic::transport::Channel>, tonic::transport::Error> {
    let channel = Endpoint::from_shared(format!("unix://{}", socket.display()))?
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_INTERVAL)
        .keep_alive_while_idle(true)
        .connect_timeout(KEEP_ALIVE_INTERVAL)
        .connect()
        .await?;
    Ok(NodeClient::new(channel))
}

fn report_of(state: NodeState) -> Result<NodeReport, serde_json::Error> {
    let NodeState { registered, registrations, inventory } = state;
    let inventory: Option<Inventory> =
        if inventory.is_empty() { None } else { Some(serde_json::from_str(&inventory)?) };
    Ok(NodeReport::Received { registered, registrations, inventory: inventory.map(Arc::new) })
}
