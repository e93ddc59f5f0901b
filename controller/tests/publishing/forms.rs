// SPDX-License-Identifier: Apache-2.0
//! GPUs in the configured forms, and in fewer where the API server does not support the others.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use dra_controller::publisher::{RoundOutcome, Timing};
use dra_resource::{Form, Offer, ShareSettings};
use serde_json::Value;

use super::api_server::{ApiServer, World};
use super::{COUNTERS, DEVICES, OF_COUNTERS, Running, Stepped, hardware, node, received, timing, without_mig, writes};

/// Six whole GPUs and nine MIG devices; with all forms the six GPUs also once for each sharing strategy.
const HARDWARE: usize = 15;
const EVERY_FORM: usize = HARDWARE + 2 * 6;

fn every_form() -> Offer {
    Offer { forms: Form::ALL.into(), ..hardware() }
}

fn devices(world: &World) -> Vec<Value> {
    let devices = |slice: &Value| slice["spec"]["devices"].as_array().cloned().unwrap_or_default();
    world.slices.values().flat_map(devices).collect()
}

fn is_shared(device: &Value) -> bool {
    device["allowMultipleAllocations"] == true
}

/// The number of devices by type and strategy.
fn kinds(world: &World) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for device in devices(world) {
        let of = |name: &str| device["attributes"][name]["string"].as_str().unwrap_or_default().to_owned();
        *kinds.entry(of("type") + &of("sharingStrategy")).or_default() += 1;
    }
    kinds
}

#[tokio::test]
async fn every_form_is_published_after_a_dry_run_and_a_restart_repeats_that_of_taints_only() {
    let server = ApiServer::start().await;
    let mut first = Stepped::offering(&server, received(node()), every_form());
    assert_eq!(first.round().await.unwrap(), RoundOutcome::UpToDate { writes: 2 });
    assert_eq!(writes(&server), [format!("create {COUNTERS}"), format!("create {DEVICES}")]);
    assert_eq!(server.with(|world| (devices(world).len(), world.dry_runs)), (EVERY_FORM, 3));
    let before = server.with(|world| world.slices.clone());
    let mut restarted = Stepped::offering(&server, received(node()), every_form());
    assert_eq!(restarted.round().await.unwrap(), RoundOutcome::UpToDate { writes: 0 });
    assert_eq!(server.with(|world| (world.slices.clone(), world.dry_runs)), (before, 4));
}

#[tokio::test]
async fn forms_that_are_not_configured_are_neither_published_nor_probed() {
    for (given, expect, dry_runs) in [
        ("gpu,mig", vec![("gpu", 6), ("mig", 9)], 2),
        ("mig", vec![("mig", 9)], 2),
        ("gpu,timeSlicing", vec![("gpu", 6), ("shared-gpuTimeSlicing", 6)], 3),
        ("gpu,mig,mps", vec![("gpu", 6), ("mig", 9), ("shared-gpuMPS", 6)], 3),
    ] {
        let server = ApiServer::start().await;
        let forms = given.split(',').map(|form| form.parse().unwrap()).collect();
        Stepped::offering(&server, received(node()), Offer { forms, ..hardware() }).round().await.unwrap();
        let expect = expect.into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect();
        assert_eq!(server.with(|world| (kinds(world), world.dry_runs)), (expect, dry_runs), "{given}");
    }
}

#[tokio::test]
async fn the_numbers_of_shares_reach_the_slices() {
    let server = ApiServer::start().await;
    let number = |number| NonZeroU32::new(number).unwrap();
    let shares = ShareSettings { default_shares: number(4), max_time_slices: number(3), ..ShareSettings::default() };
    Stepped::offering(&server, received(node()), Offer { shares, ..every_form() }).round().await.unwrap();
    let found = server.with(|world| devices(world));
    let found = |strategy: &str, path: &str| {
        let of = |device: &&Value| device["attributes"]["sharingStrategy"]["string"] == strategy;
        found.iter().find(of).unwrap().pointer(path).unwrap().clone()
    };
    assert_eq!(found("MPS", "/capacity/activeThreadPercentage/requestPolicy/default"), "25");
    // A quarter of the free memory of an idle GPU: 480 of 81559 MiB are reserved.
    assert_eq!(found("MPS", "/capacity/memory/requestPolicy/default"), "20261Mi");
    assert_eq!(found("TimeSlicing", "/capacity/shares/value"), "3");
}

#[tokio::test]
async fn a_server_without_shares_gets_gpus_and_mig_devices_and_an_event_has_the_reason() {
    let drops = |what: &str, gate: &str| format!("the API server v1.37.0 drops {what}; enable its feature gate {gate}");
    let of_shares = || drops("allowMultipleAllocations or requestPolicy", "DRAConsumableCapacity");
    for (minor, dropped, forbidden, why) in [
        (
            36,
            &[][..],
            None,
            "the API server is v1.36.0, and schedulers before Kubernetes 1.37 may allocate a shared GPU twice; \
             upgrade Kubernetes"
                .to_owned(),
        ),
        (37, &["allowMultipleAllocations"], None, of_shares()),
        (37, &["requestPolicy"], None, of_shares()),
        (37, OF_COUNTERS, None, drops("shared counters", "DRAPartitionableDevices")),
        (
            37,
            &[],
            Some("allowMultipleAllocations"),
            "a dry run with these fields failed: the API server refused the request: simulated: Invalid (Invalid); \
             check the admission policies"
                .to_owned(),
        ),
    ] {
        let server = ApiServer::start().await;
        server.with(|world| (world.minor, world.dropped, world.forbidden) = (minor, dropped, forbidden));
        let mut controller = Running::offering(&server, received(node()), every_form(), timing());
        controller.until_ready().await;
        assert!(writes(&server).iter().all(|write| write.starts_with("create ")), "the dry run is no write");
        assert_eq!(server.with(|world| kinds(world)), [("gpu".to_owned(), 6), ("mig".to_owned(), 9)].into(), "{why}");
        let is_it = |event: &&Value| event["reason"] == "SharedDevicesUnavailable";
        server.until("the Event is recorded", |world| world.events.iter().any(|event| is_it(&event))).await;
        let note = server.with(|world| world.events.iter().find(is_it).unwrap()["note"].clone());
        assert_eq!(note, format!("GPUs are published without the forms mps, timeSlicing: {why}"));
        let mut restarted = Stepped::offering(&server, received(node()), every_form());
        assert_eq!(restarted.round().await.unwrap(), RoundOutcome::UpToDate { writes: 0 }, "{why}");
    }
}

#[tokio::test]
async fn what_is_dropped_later_is_replaced_in_the_same_round() {
    for dropped in [&["allowMultipleAllocations"][..], &["requestPolicy"], OF_COUNTERS] {
        let server = ApiServer::start().await;
        let mut publisher = Stepped::offering(&server, received(node()), every_form());
        publisher.round().await.unwrap();
        // The version request fails, because the round must not need it.
        server.with(|world| (world.dropped, world.hides_version) = (dropped, true));
        publisher.report.send_replace(received(without_mig(node())));
        publisher.round().await.unwrap();
        assert_eq!(server.with(|world| kinds(world)), [("gpu".to_owned(), 6)].into(), "{dropped:?}");
        assert_eq!(publisher.round().await.unwrap(), RoundOutcome::UpToDate { writes: 0 });
    }
}

#[tokio::test]
async fn forms_come_and_go_with_the_version_of_the_server() {
    let server = ApiServer::start().await;
    server.with(|world| world.minor = 36);
    let often = Timing { recheck: (Duration::from_millis(50), Duration::from_millis(100)), ..timing() };
    let _controller = Running::offering(&server, received(node()), every_form(), often);
    let reported =
        |reason: &'static str| move |world: &World| world.events.iter().any(|event| event["reason"] == reason);
    server.until("the missing forms are reported", reported("SharedDevicesUnavailable")).await;
    server.with(|world| world.minor = 37);
    server.until("they are published", |world| devices(world).len() == EVERY_FORM).await;
    server.until("the recovery is reported", reported("SharedDevicesAvailable")).await;
    server.with(|world| world.minor = 36);
    server.until("they are withdrawn", |world| devices(world).len() == HARDWARE).await;
    assert!(!server.with(|world| devices(world).iter().any(is_shared)));
}
