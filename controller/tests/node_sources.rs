// SPDX-License-Identifier: Apache-2.0
//! The two sources of node reports: the stream of a plugin that restarts, and a file that changes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test")]

use std::path::Path;
use std::time::Duration;

use dra_controller::node_report::NodeReport;
use dra_controller::node_source::{file, stream};
use dra_model::Inventory;
use dra_proto::node_v1::node_server::{Node, NodeServer};
use dra_proto::node_v1::{NodeState, WatchNodeRequest};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tokio_util::sync::CancellationToken;

/// A plugin that sends the states of a channel.
struct Plugin(watch::Receiver<Result<NodeState, tonic::Status>>);

#[tonic::async_trait]
impl Node for Plugin {
    type WatchNodeStream = WatchStream<Result<NodeState, tonic::Status>>;

    async fn watch_node(
        &self,
        _: tonic::Request<WatchNodeRequest>,
    ) -> Result<tonic::Response<Self::WatchNodeStream>, tonic::Status> {
        Ok(tonic::Response::new(WatchStream::new(self.0.clone())))
    }
}

fn listen(socket: &Path, states: &watch::Receiver<Result<NodeState, tonic::Status>>) -> tokio::task::JoinHandle<()> {
    std::fs::remove_file(socket).ok();
    let listener = UnixListenerStream::new(UnixListener::bind(socket).unwrap());
    let server = tonic::transport::Server::builder().add_service(NodeServer::new(Plugin(states.clone())));
    tokio::spawn(async move { server.serve_with_incoming(listener).await.unwrap() })
}

async fn until(report: &mut watch::Receiver<NodeReport>, description: &str, holds: impl Fn(&NodeReport) -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(20), report.wait_for(|report| holds(report))).await;
    assert!(waited.is_ok(), "timed out waiting until {description}");
    waited.unwrap().unwrap();
}

fn state(registered: bool, inventory: &str) -> NodeState {
    NodeState { registered, registrations: 1, inventory: inventory.to_owned() }
}

#[tokio::test]
async fn a_broken_stream_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("node.sock");
    let (sender, mut report) = NodeReport::channel();
    let stop = CancellationToken::new();
    let following = tokio::spawn(stream::follow(socket.clone(), sender, stop.clone()));
    let named = format!("failed to connect to the kubelet plugin at {}", socket.display());
    until(
        &mut report,
        "the failed connection is reported",
        |report| matches!(report, NodeReport::Unavailable { reason } if reason.starts_with(&named)),
    )
    .await;

    let (state_sender, states) = watch::channel(Ok(state(false, "")));
    let plugin = listen(&socket, &states);
    let unread = NodeReport::Received { registered: false, registrations: 1, inventory: None };
    until(&mut report, "the state of the plugin is received", |report| *report == unread).await;
    let inventory = serde_json::to_string(&Inventory::without_driver("none".to_owned())).unwrap();
    drop(state_sender.send_replace(Ok(state(true, &inventory))));
    until(&mut report, "the inventory is received", |report| report.publishable().is_ok()).await;

    drop(state_sender.send_replace(Err(tonic::Status::unavailable("shutting down"))));
    let broken =
        NodeReport::Unavailable { reason: "the stream of the kubelet plugin failed: shutting down".to_owned() };
    until(&mut report, "the broken stream is reported", |report| *report == broken).await;
    plugin.abort();
    drop(state_sender.send_replace(Ok(state(true, &inventory))));
    let plugin = listen(&socket, &states);
    until(&mut report, "the state of the next plugin is received", |report| report.publishable().is_ok()).await;

    drop(state_sender.send_replace(Ok(state(true, "{\"gpus\": 3}"))));
    until(
        &mut report,
        "an invalid inventory is reported",
        |report| matches!(report, NodeReport::Unavailable { reason } if reason.contains("run both containers from one image")),
    )
    .await;
    stop.cancel();
    following.await.unwrap();
    plugin.abort();
}

#[tokio::test]
async fn a_changed_file_is_read_again_and_an_invalid_one_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("inventory.json");
    let inventory = |reason: &str| Inventory::without_driver(reason.to_owned());
    let write = |inventory: &Inventory| std::fs::write(&path, serde_json::to_string(inventory).unwrap()).unwrap();
    let (sender, mut report) = NodeReport::channel();
    let stop = CancellationToken::new();
    let following = tokio::spawn(file::follow(path.clone(), sender, stop.clone()));
    let shows = |expect: Inventory| move |report: &NodeReport| report.inventory().is_some_and(|found| *found == expect);
    write(&inventory("first"));
    until(&mut report, "the file is read", shows(inventory("first"))).await;
    std::fs::write(&path, "{").unwrap();
    assert!(file::read(&path).await.is_err());
    write(&inventory("the second one"));
    until(&mut report, "the change is read", shows(inventory("the second one"))).await;
    stop.cancel();
    following.await.unwrap();
}
