// SPDX-License-Identifier: Apache-2.0
//! The metrics of the publisher while writes are refused and after all devices are removed.

use dra_controller::metrics::Metrics;
use dra_controller::publisher::Publisher;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::api_server::ApiServer;
use crate::{cluster, hardware, identity, node, received, timing, without_mig};

fn line(registry: &Registry, name: &str) -> String {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_generation_stays_the_last_known_one_in_conflicts_and_when_slices_are_only_deleted() {
    let server = ApiServer::start().await;
    let (report, receiver) = watch::channel(received(node()));
    let (metrics, registry) = Metrics::registered();
    let (ready, _readiness) = watch::channel(Ok(()));
    let mut publisher = Publisher::new(cluster(&server), identity(), hardware(), receiver, timing(), metrics, ready);
    let generation = || line(&registry, "gpu_dra_pool_generation");
    publisher.round().await.unwrap();
    assert_eq!(generation(), "gpu_dra_pool_generation 1");

    server.with(|world| world.conflicts = 100);
    report.send_replace(received(without_mig(node())));
    publisher.round().await.unwrap_err();
    assert_eq!(generation(), "gpu_dra_pool_generation 1");

    server.with(|world| world.conflicts = 0);
    publisher.round().await.unwrap();
    assert_eq!(generation(), "gpu_dra_pool_generation 1");

    let mut empty = node();
    empty.gpus.clear();
    report.send_replace(received(empty));
    publisher.round().await.unwrap();
    let newest = server.with(|world| {
        let generations = world.slices.values().filter_map(|slice| slice["spec"]["pool"]["generation"].as_i64());
        generations.max().unwrap()
    });
    assert_eq!(generation(), format!("gpu_dra_pool_generation {newest}"));
    publisher.round().await.unwrap();
    assert_eq!(generation(), format!("gpu_dra_pool_generation {newest}"));
}
