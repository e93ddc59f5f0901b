// SPDX-License-Identifier: Apache-2.0
//! The cleanup DaemonSet of an uninstallation: waited for and deleted, also after a timeout.

use std::time::Duration;

use dra_controller::cluster::RequestError;
use dra_controller::node_cleanup::{NodeCleanup, WaitOutcome, finish};
use serde_json::{Value, json};

use super::{ApiServer, cluster};

const NAME: &str = "restore";
const DELETED: &str = "delete restore Foreground";

fn cleanup(timeout: Duration) -> NodeCleanup {
    NodeCleanup { namespace: "ns".to_owned(), daemon_set: NAME.to_owned(), selector: "a=b".to_owned(), timeout }
}

/// A DaemonSet of generation 2 with this number of ready pods of three and this observed generation.
fn daemon_set(ready: i32, observed: i64) -> Value {
    json!({
        "spec": {},
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": NAME, "namespace": "ns", "generation": 2},
        "status": {"observedGeneration": observed, "desiredNumberScheduled": 3, "numberReady": ready,
            "currentNumberScheduled": 3, "numberMisscheduled": 0},
    })
}

async fn with(ready: i32, observed: i64) -> ApiServer {
    let server = ApiServer::start().await;
    server.with(|world| world.daemon_sets.insert(NAME.to_owned(), daemon_set(ready, observed)));
    server
}

#[tokio::test]
async fn work_on_all_nodes_is_waited_for_and_then_its_pods() {
    let server = with(2, 2).await;
    let finishing = tokio::spawn({
        let cluster = cluster(&server);
        async move { finish(&cluster, &cleanup(Duration::from_secs(20))).await }
    });
    server.until("the DaemonSet is read", |world| world.daemon_set_reads > 1).await;
    assert_eq!(
        server.with(|world| world.writes.clone()),
        Vec::<String>::new(),
        "the cleanup of one node is incomplete"
    );
    server.with(|world| world.daemon_sets.insert(NAME.to_owned(), daemon_set(3, 2)));
    server.until("it is deleted", |world| world.writes == [DELETED]).await;
    assert!(!finishing.is_finished(), "the pods still exist");
    server.with(|world| world.daemon_sets.clear());
    assert_eq!(finishing.await.unwrap().unwrap(), [WaitOutcome::Done, WaitOutcome::Done]);
}

#[tokio::test]
async fn an_unreachable_node_does_not_block_the_others() {
    for (ready, observed, expect) in
        [(2, 2, WaitOutcome::TimedOut), (3, 1, WaitOutcome::TimedOut), (3, 2, WaitOutcome::Done)]
    {
        let server = with(ready, observed).await;
        let finished = finish(&cluster(&server), &cleanup(Duration::ZERO)).await.unwrap();
        assert_eq!(finished, [expect, WaitOutcome::TimedOut], "{ready} ready, {observed} observed");
        assert_eq!(server.with(|world| world.writes.clone()), [DELETED]);
    }
}

#[tokio::test]
async fn a_second_try_finds_nothing_left_to_do() {
    let server = ApiServer::start().await;
    assert_eq!(
        finish(&cluster(&server), &cleanup(Duration::ZERO)).await.unwrap(),
        [WaitOutcome::Done, WaitOutcome::Done]
    );
}

#[tokio::test]
async fn a_forbidden_request_fails_at_once() {
    let server = with(3, 2).await;
    server.with(|world| world.refuses_daemon_sets = true);
    let refused = finish(&cluster(&server), &cleanup(Duration::from_secs(20))).await;
    assert!(matches!(refused, Err(RequestError::Refused { code: 403, .. })), "{refused:?}");
}

#[tokio::test]
async fn requests_are_repeated_while_the_api_server_is_unreachable() {
    let mut server = with(3, 2).await;
    server.go_down().await;
    let finishing = tokio::spawn({
        let cluster = cluster(&server);
        async move { finish(&cluster, &cleanup(Duration::from_secs(20))).await }
    });
    server.come_up().await;
    server.until("it is deleted", |world| world.writes == [DELETED]).await;
    server.with(|world| world.daemon_sets.clear());
    assert_eq!(finishing.await.unwrap().unwrap(), [WaitOutcome::Done, WaitOutcome::Done]);
}
