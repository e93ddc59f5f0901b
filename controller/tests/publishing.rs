// SPDX-License-Identifier: Apache-2.0
//! The publisher against an API server on loopback: content, time and number of its writes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test")]

use std::sync::Arc;
use std::time::Duration;

use dra_controller::args::PoolIdentity;
use dra_controller::cluster::Cluster;
use dra_controller::metrics::Metrics;
use dra_controller::node_report::NodeReport;
use dra_controller::publisher::{PublishError, Publisher, RoundOutcome, Timing};
use dra_controller::slice_events;
use dra_controller::withdraw::{WithdrawError, WithdrawTiming, withdraw};
use dra_model::{GpuEntry, Inventory, MigMode};
use dra_resource::{Features, Offer};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

#[path = "support/api_server.rs"]
mod api_server;

#[path = "publishing/metrics.rs"]
mod metrics;

#[path = "publishing/forms.rs"]
mod forms;

#[path = "publishing/problems.rs"]
mod problems;

#[path = "publishing/node_cleanup.rs"]
mod node_cleanup;

use api_server::ApiServer;

const COUNTERS: &str = "00000-gpu.nvidia.com-n";
const DEVICES: &str = "00001-gpu.nvidia.com-n";

/// The fields that an API server without counters drops.
const OF_COUNTERS: &[&str] = &["sharedCounters", "consumesCounters"];

fn identity() -> PoolIdentity {
    PoolIdentity { driver: "gpu.nvidia.com".parse().unwrap(), node: "n".parse().unwrap() }
}

fn node() -> Inventory {
    serde_json::from_str(include_str!("../../driver/resource/testdata/h100-8.json")).unwrap()
}

fn without_mig(mut inventory: Inventory) -> Inventory {
    for entry in &mut inventory.gpus {
        if let GpuEntry::Known { gpu, .. } = entry
            && let MigMode::On { devices, .. } = &mut gpu.mig
        {
            devices.clear();
        }
    }
    inventory
}

fn received(inventory: Inventory) -> NodeReport {
    NodeReport::Received { registered: true, registrations: 1, inventory: Some(Arc::new(inventory)) }
}

fn unavailable() -> NodeReport {
    NodeReport::Unavailable { reason: "the stream broke".to_owned() }
}

/// A publisher that runs single rounds.
struct Stepped {
    publisher: Publisher,
    report: watch::Sender<NodeReport>,
}

impl Stepped {
    fn new(server: &ApiServer, report: NodeReport) -> Self {
        Self::offering(server, report, hardware())
    }

    fn offering(server: &ApiServer, report: NodeReport, offer: Offer) -> Self {
        let (report, receiver) = watch::channel(report);
        let (publisher, _) = publisher(server, offer, timing(), receiver);
        Self { publisher, report }
    }

    async fn round(&mut self) -> Result<RoundOutcome, PublishError> {
        self.publisher.round().await
    }
}

fn hardware() -> Offer {
    Offer::of_hardware(Features::ALL)
}

/// Rounds without a trigger are later than the end of any test.
fn timing() -> Timing {
    Timing {
        debounce: Duration::from_millis(20),
        retry: (Duration::from_millis(20), Duration::from_millis(200)),
        ..Timing::default()
    }
}

fn publisher(
    server: &ApiServer,
    offer: Offer,
    timing: Timing,
    report: watch::Receiver<NodeReport>,
) -> (Publisher, watch::Receiver<Result<(), String>>) {
    let (ready, readiness) = watch::channel(Err("no round yet".to_owned()));
    let (metrics, _) = Metrics::registered();
    (Publisher::new(cluster(server), identity(), offer, report, timing, metrics, ready), readiness)
}

fn cluster(server: &ApiServer) -> Cluster {
    Cluster::new(server.client(), &identity().driver, Some(&identity().node))
}

/// A running controller, stopped when it is dropped.
struct Running {
    report: watch::Sender<NodeReport>,
    readiness: watch::Receiver<Result<(), String>>,
    _stop: DropGuard,
}

impl Running {
    fn start(server: &ApiServer, report: NodeReport) -> Self {
        Self::offering(server, report, hardware(), timing())
    }

    fn offering(server: &ApiServer, report: NodeReport, offer: Offer, timing: Timing) -> Self {
        let stop = CancellationToken::new();
        let (report, receiver) = watch::channel(report);
        let (publisher, readiness) = publisher(server, offer, timing, receiver);
        let (sender, receiver) = mpsc::channel(64);
        tokio::spawn(slice_events::follow(cluster(server), sender, stop.clone()));
        tokio::spawn(publisher.run(receiver, stop.clone()));
        Self { report, readiness, _stop: stop.drop_guard() }
    }

    async fn until_ready(&mut self) {
        let ready = self.readiness.wait_for(Result::is_ok);
        tokio::time::timeout(Duration::from_secs(20), ready)
            .await
            .expect("timed out waiting until it is ready")
            .unwrap()
            .clone()
            .unwrap();
    }

    async fn until_not_ready(&mut self) -> String {
        let not_ready = self.readiness.wait_for(Result::is_err);
        let reason = tokio::time::timeout(Duration::from_secs(20), not_ready).await.expect("it stayed ready");
        reason.unwrap().clone().unwrap_err()
    }
}

fn writes(server: &ApiServer) -> Vec<String> {
    server.with(|world| std::mem::take(&mut world.writes))
}

#[tokio::test]
async fn a_node_is_published_once_and_a_restart_writes_nothing() {
    let server = ApiServer::start().await;
    let mut first = Stepped::new(&server, received(node()));
    assert_eq!(first.round().await.unwrap(), RoundOutcome::UpToDate { writes: 2 });
    assert_eq!(writes(&server), [format!("create {COUNTERS}"), format!("create {DEVICES}")]);
    assert_eq!(first.round().await.unwrap(), RoundOutcome::UpToDate { writes: 0 });
    let mut restarted = Stepped::new(&server, received(node()));
    assert_eq!(restarted.round().await.unwrap(), RoundOutcome::UpToDate { writes: 0 });
    assert_eq!(writes(&server), Vec::<String>::new());
    let owner = server.with(|world| world.slices[DEVICES]["metadata"]["ownerReferences"][0].clone());
    assert_eq!((owner["kind"].as_str(), owner["uid"].as_str()), (Some("Node"), Some("node-uid")));
}

#[tokio::test]
async fn removed_and_created_mig_devices_are_one_write_each() {
    let server = ApiServer::start().await;
    let mut controller = Running::start(&server, received(node()));
    controller.until_ready().await;
    writes(&server);
    for inventory in [without_mig(node()), node()] {
        let devices = if inventory == node() { 15 } else { 6 };
        controller.report.send_replace(received(inventory));
        let published = |world: &api_server::World| world.slices[DEVICES]["spec"]["devices"].as_array().unwrap().len();
        server.until("the devices change", |world| published(world) == devices).await;
        assert_eq!(writes(&server), [format!("update {DEVICES}")]);
    }
}

#[tokio::test]
async fn slices_that_other_clients_delete_or_edit_are_repaired_by_one_write() {
    let server = ApiServer::start().await;
    let mut controller = Running::start(&server, received(node()));
    controller.until_ready().await;
    writes(&server);
    server.with(|world| world.remove(DEVICES));
    server.until("the slice is back", |world| world.slices.contains_key(DEVICES)).await;
    assert_eq!(writes(&server), [format!("create {DEVICES}")]);
    server.with(|world| world.edit(DEVICES, |slice| slice["spec"]["devices"][0]["name"] = json!("gpu-0")));
    let repaired = |world: &api_server::World| world.slices[DEVICES]["spec"]["devices"][0]["name"] != json!("gpu-0");
    server.until("the edit is undone", repaired).await;
    assert_eq!(writes(&server), [format!("update {DEVICES}")]);
}

#[tokio::test]
async fn after_a_kubelet_restart_the_slices_are_back_within_three_seconds() {
    let server = ApiServer::start().await;
    let mut controller = Running::start(&server, received(node()));
    controller.until_ready().await;
    let begin = std::time::Instant::now();
    server.with(|world| world.names().iter().for_each(|name| world.remove(name)));
    let again = NodeReport::Received { registered: true, registrations: 2, inventory: Some(Arc::new(node())) };
    controller.report.send_replace(again);
    server.until("both slices are back", |world| world.slices.len() == 2).await;
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn nothing_is_written_or_deleted_while_the_plugin_is_unreachable_or_not_registered() {
    let server = ApiServer::start().await;
    let mut publisher = Stepped::new(&server, received(node()));
    publisher.round().await.unwrap();
    writes(&server);
    let lists = server.with(|world| world.lists);
    let unregistered =
        NodeReport::Received { registered: false, registrations: 1, inventory: Some(Arc::new(without_mig(node()))) };
    let unread = NodeReport::Received { registered: true, registrations: 1, inventory: None };
    for (report, expect) in [
        (unavailable(), "the stream broke"),
        (unregistered, "the plugin is not registered with the kubelet"),
        (unread, "the plugin has not read the hardware yet"),
    ] {
        publisher.report.send_replace(report);
        server.with(|world| world.slices.contains_key(DEVICES).then(|| world.remove(DEVICES)));
        assert_eq!(publisher.round().await.unwrap(), RoundOutcome::Withheld(expect.to_owned()));
        assert_eq!(writes(&server), Vec::<String>::new());
    }
    assert_eq!(server.with(|world| world.lists), lists, "no request is sent");
    publisher.report.send_replace(received(node()));
    assert_eq!(publisher.round().await.unwrap(), RoundOutcome::UpToDate { writes: 1 });
}

#[tokio::test]
async fn a_plugin_that_reconnects_unchanged_causes_no_write() {
    let server = ApiServer::start().await;
    let mut controller = Running::start(&server, received(node()));
    controller.until_ready().await;
    writes(&server);
    controller.report.send_replace(unavailable());
    assert_eq!(controller.until_not_ready().await, "the stream broke");
    controller.report.send_replace(received(node()));
    controller.until_ready().await;
    assert_eq!(writes(&server), Vec::<String>::new());
}

#[tokio::test]
async fn slices_are_published_after_the_api_server_was_unreachable() {
    let mut server = ApiServer::start().await;
    let mut controller = Running::start(&server, received(node()));
    controller.until_ready().await;
    writes(&server);
    server.go_down().await;
    controller.report.send_replace(received(without_mig(node())));
    let reason = controller.until_not_ready().await;
    assert!(
        reason.starts_with("failed to list the ResourceSlices of this node: failed to reach the API server"),
        "{reason}"
    );
    server.come_up().await;
    controller.until_ready().await;
    assert_eq!(writes(&server), [format!("update {DEVICES}")]);
    server.with(|world| world.remove(COUNTERS));
    server.until("the watch works again", |world| world.slices.contains_key(COUNTERS)).await;
}

#[tokio::test]
async fn conflicts_are_resolved_by_listing_again() {
    let server = ApiServer::start().await;
    let mut publisher = Stepped::new(&server, received(node()));
    server.with(|world| world.conflicts = 3);
    assert_eq!(
        publisher.round().await.unwrap(),
        RoundOutcome::UpToDate { writes: 2 },
        "failed attempts are not counted as writes"
    );
    assert_eq!(server.with(|world| world.names()), [COUNTERS, DEVICES]);
    server.with(|world| world.conflicts = 100);
    publisher.report.send_replace(received(without_mig(node())));
    let error = dra_model::explain(&publisher.round().await.unwrap_err());
    let advice = "run only one gpu-controller per node and driver name";
    assert_eq!(error, format!("ResourceSlice {DEVICES}: concurrent writes in every attempt; {advice}"));
    server.with(|world| world.conflicts = 0);
    writes(&server);
    publisher.round().await.unwrap();
    assert_eq!(writes(&server), [format!("update {DEVICES}")]);
}

#[tokio::test]
async fn devices_are_published_under_another_name_if_a_foreign_slice_has_the_first() {
    let of = |driver: &str, node: &str| {
        let pool = json!({"name": node, "generation": 1, "resourceSliceCount": 99});
        json!({"driver": driver, "nodeName": node, "pool": pool})
    };
    let other = |slice: &str| slice.replacen('-', "x1-", 1);
    for spec in [of("gpu.nvidia.com", "m"), of("net.example.com", "n")] {
        let server = ApiServer::start().await;
        server.with(|world| [COUNTERS, DEVICES].map(|name| world.add(name, &spec)));
        let mut publisher = Stepped::new(&server, received(node()));
        assert_eq!(publisher.round().await.unwrap(), RoundOutcome::UpToDate { writes: 2 });
        assert_eq!(writes(&server), [COUNTERS, DEVICES].map(|name| format!("create {}", other(name))));
        assert_eq!(publisher.round().await.unwrap(), RoundOutcome::UpToDate { writes: 0 });
        server.with(|world| world.remove(COUNTERS));
        let mut restarted = Stepped::new(&server, received(node()));
        assert_eq!(restarted.round().await.unwrap(), RoundOutcome::UpToDate { writes: 0 });
        assert_eq!(server.with(|world| world.names()), [&other(COUNTERS), DEVICES, &other(DEVICES)]);
    }
}

#[tokio::test]
async fn a_round_fails_after_its_attempts_if_foreign_slices_have_all_names() {
    let server = ApiServer::start().await;
    let pool = json!({"name": "m", "generation": 1, "resourceSliceCount": 1});
    let spec = json!({"driver": "gpu.nvidia.com", "nodeName": "m", "pool": pool});
    let names = (1..=255).map(|other| format!("00000x{other:x}-gpu.nvidia.com-n"));
    server.with(|world| names.chain([COUNTERS.to_owned()]).for_each(|name| world.add(&name, &spec)));
    let (report, receiver) = watch::channel(received(node()));
    let fast = Timing { write_limit: (1000, Duration::from_millis(1)), ..timing() };
    let (mut publisher, _readiness) = publisher(&server, hardware(), fast, receiver);
    let error = publisher.round().await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("ResourceSlice {COUNTERS}: concurrent writes")), "{error}");
    drop(report);
}

#[tokio::test]
async fn a_server_without_counters_gets_only_devices_without_overlap_and_an_event_has_the_reason() {
    for (minor, note) in [
        (35, "the API server is v1.35.0, and shared counters need Kubernetes 1.36; upgrade Kubernetes"),
        (37, "the API server v1.37.0 drops shared counters; enable its feature gate DRAPartitionableDevices"),
    ] {
        let server = ApiServer::start().await;
        server.with(|world| (world.minor, world.dropped) = (minor, OF_COUNTERS));
        let mut controller = Running::start(&server, received(node()));
        controller.until_ready().await;
        assert_eq!(writes(&server), [format!("create {COUNTERS}")], "the first slice holds the devices");
        let devices = server.with(|world| world.slices[COUNTERS]["spec"]["devices"].as_array().unwrap().len());
        assert_eq!(devices, 15);
        let is_it = |event: &&serde_json::Value| event["reason"] == "SharedCountersUnavailable";
        server.until("the Event is recorded", |world| world.events.iter().any(|event| is_it(&event))).await;
        let event = server.with(|world| world.events.iter().find(is_it).unwrap().clone());
        assert_eq!(event["regarding"]["name"], "n");
        assert_eq!(event["reportingController"], "gpu.nvidia.com/controller");
        assert_eq!(
            event["note"],
            format!("GPUs and existing MIG devices are published without shared counters: {note}")
        );
        let mut restarted = Stepped::new(&server, received(node()));
        assert_eq!(restarted.round().await.unwrap(), RoundOutcome::UpToDate { writes: 0 });
    }
}

#[tokio::test]
async fn counters_that_are_dropped_later_are_replaced_in_the_same_round() {
    let server = ApiServer::start().await;
    let mut publisher = Stepped::new(&server, received(node()));
    publisher.round().await.unwrap();
    server.with(|world| world.dropped = OF_COUNTERS);
    writes(&server);
    publisher.report.send_replace(received(without_mig(node())));
    publisher.round().await.unwrap();
    assert_eq!(server.with(|world| world.names()), [COUNTERS]);
    assert!(server.with(|world| world.slices[COUNTERS]["spec"]["sharedCounters"].is_null()));
    assert_eq!(publisher.round().await.unwrap(), RoundOutcome::UpToDate { writes: 0 });
}

#[tokio::test]
async fn a_node_that_was_created_anew_owns_its_slices() {
    let server = ApiServer::start().await;
    let mut publisher = Stepped::new(&server, received(node()));
    publisher.round().await.unwrap();
    server.with(|world| {
        world.node_uid = "new-uid".to_owned();
        world.names().iter().for_each(|name| world.remove(name));
    });
    publisher.round().await.unwrap();
    let owner = server.with(|world| world.slices[DEVICES]["metadata"]["ownerReferences"][0]["uid"].clone());
    assert_eq!(owner, "new-uid");
}

#[tokio::test]
async fn withdrawing_deletes_own_slices_until_they_stay_away() {
    let server = ApiServer::start().await;
    Stepped::new(&server, received(node())).round().await.unwrap();
    let other = json!({"metadata": {"name": "other"}, "spec": {"driver": "gpu.nvidia.com", "nodeName": "m"}});
    let foreign = json!({"metadata": {"name": "foreign"}, "spec": {"driver": "net.example.com", "nodeName": "n"}});
    server.with(|world| {
        for slice in [other, foreign] {
            world.slices.insert(slice["metadata"]["name"].as_str().unwrap().to_owned(), slice);
        }
    });
    let timing = WithdrawTiming {
        quiet_period: Duration::from_millis(50),
        poll_interval: Duration::from_millis(10),
        timeout: Duration::from_secs(10),
    };
    assert_eq!(withdraw(&cluster(&server), timing).await.unwrap(), 2);
    assert_eq!(server.with(|world| world.names()), ["foreign", "other"]);
    let everywhere = Cluster::new(server.client(), &identity().driver, None);
    assert_eq!(withdraw(&everywhere, timing).await.unwrap(), 1);
    assert_eq!(server.with(|world| world.names()), ["foreign"]);
}

#[tokio::test]
async fn withdrawing_under_a_running_controller_fails_with_advice() {
    let server = ApiServer::start().await;
    let mut controller = Running::start(&server, received(node()));
    controller.until_ready().await;
    // The controller creates the slices again long before the quiet period ends.
    let timing = WithdrawTiming {
        quiet_period: Duration::from_secs(10),
        poll_interval: Duration::from_millis(10),
        timeout: Duration::from_millis(50),
    };
    assert!(matches!(withdraw(&cluster(&server), timing).await, Err(WithdrawError::Reappearing)));
}
