// SPDX-License-Identifier: Apache-2.0
//! The view from the kubelet plugin's stream on a unix socket. A stream that breaks is opened again, quickly: until
//! then the view is silent and nothing is written.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dra_model::Inventory;
use dra_model::chain;
use dra_proto::node_v1::node_client::NodeClient;
use dra_proto::node_v1::{NodeState, WatchNodeRequest};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tracing::{info, warn};

use crate::node_report::{NodeReport, send_if_changed};
use crate::rate_limits::Backoff;
use crate::repeated_failures::RepeatedFailures;

/// A plugin that hangs is noticed after this time at the latest.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Why the stream is not there.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// Nobody listens.
    #[error("no kubelet plugin answers on {}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// The plugin refused or the stream broke.
    #[error("the kubelet plugin's stream broke")]
    Broken(#[source] StatusMessage),
    /// The plugin ended it.
    #[error("the kubelet plugin ended its stream")]
    Ended,
    /// The plugin speaks another version.
    #[error("the kubelet plugin sent an inventory that is not understood: run both containers from one image")]
    Inventory(#[source] serde_json::Error),
}

/// A status in words; tonic's own are for machines, with the `Debug` of its cause.
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

/// Follows the plugin behind a socket until `stop`.
pub async fn follow(socket: PathBuf, report: watch::Sender<NodeReport>, stop: CancellationToken) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    let mut failures = RepeatedFailures::default();
    info!(socket = %socket.display(), "following the kubelet plugin");
    loop {
        let on_report = |received| {
            backoff.reset();
            if let Some(away) = failures.recovered() {
                info!(away_s = away.as_secs(), "the kubelet plugin is heard again");
            }
            send_if_changed(&report, received);
        };
        let error = tokio::select! {
            () = stop.cancelled() => return,
            error = receive(&socket, on_report) => error,
        };
        let reason = chain(&error).to_string();
        if failures.should_log(&reason) {
            warn!(reason, "leaving the slices as they are until the kubelet plugin is back (will retry)");
        }
        send_if_changed(&report, NodeReport::Unavailable { reason });
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(backoff.next_delay()) => {}
        }
    }
}

/// Passes on what the plugin says until the stream ends, which it always does with a reason.
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
