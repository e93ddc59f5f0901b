// SPDX-License-Identifier: Apache-2.0
//! Kubelet, node and driver start again; pods go on or come back.

use crate::{
    arena::{Arena, checked, state_dir},
    mps, pods,
};
use dra_demo::{driver, published, text};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

crate::case::cases![
    slices_are_back_soon_after_a_kubelet_restart_and_pods_go_on measures,
    pods_start_all_the_while_during_a_rolling_upgrade,
    pods_and_their_devices_come_back_after_a_reboot,
];

/// The A100s, which are all on `node-2`.
const AMPERE: &str = "device.attributes['gpu.nvidia.com'].architecture == 'Ampere'";
/// How soon a restarted kubelet has its slices again.
const SLICES_BACK: Duration = Duration::from_secs(3);

fn started(pods: &[Value]) -> BTreeSet<&str> {
    pods.iter().map(|pod| text(pod, "/status/containerStatuses/0/containerID")).collect()
}

fn uuids(arena: &Arena, app: &str) -> BTreeSet<String> {
    let saw = checked(arena.stage().all_saw(app));
    saw.iter().flat_map(|pod| pod.seen.uuids()).map(str::to_owned).collect()
}

fn slice_uids(arena: &Arena, node: &str) -> BTreeSet<String> {
    let slices = checked(published::slices(&arena.cluster));
    let of_node = slices.iter().filter(|slice| text(slice, "/spec/nodeName") == node);
    of_node.map(|slice| text(slice, "/metadata/uid").to_owned()).collect()
}

fn slices_are_back_soon_after_a_kubelet_restart_and_pods_go_on(arena: &Arena) {
    pods::with_deployment(arena, "pair", 2, &pods::gpu(AMPERE), |before| {
        let (devices, slices) = (arena.pools()["node-2"].devices.clone(), slice_uids(arena, "node-2"));
        let registrations = || arena.driver_log("node-2", "plugin").matches("registered with the kubelet").count();
        let registered = registrations();
        checked(arena.node("node-2").restart_kubelet());
        arena.until("the registration", || (registrations() > registered).then_some(()));
        let begun = Instant::now();
        arena.until("the slices", || {
            let pool = arena.pools().remove("node-2").unwrap_or_default();
            (pool.is_complete() && pool.devices == devices).then_some(())
        });
        assert!(begun.elapsed() < SLICES_BACK, "the slices took {:?}", begun.elapsed());
        assert!(slices.is_disjoint(&slice_uids(arena, "node-2")), "the kubelet removes all slices when it starts");
        checked(arena.cluster.wait_for_nodes());
        assert_eq!(started(before), started(&arena.ready_pods("app=pair", 2)), "a running container was touched");
        pods::start(arena, "after", "node-2", &pods::gpu(""));
        checked(arena.stage().saw("after"));
        pods::remove(arena, "after");
    });
}

fn pods_start_all_the_while_during_a_rolling_upgrade(arena: &Arena) {
    let driver_uids = || ["node-1", "node-2"].map(|node| text(&arena.driver_pod(node), "/metadata/uid").to_owned());
    let old = driver_uids();
    pods::start(arena, "client", "node-2", &mps::share(arena, "3", &json!({})));
    checked(arena.stage().saw("client"));
    let daemon = mps::only_daemon(arena, "node-2");
    pods::with_deployment(arena, "pair", 2, &pods::gpu(AMPERE), |before| {
        let change = ["--set-string", "kubeletPlugin.podAnnotations.generation=2"];
        checked(driver::upgrade(&arena.cluster, &arena.repository, &change));
        let failures = thread::scope(|scope| {
            let rollout = scope.spawn(|| driver::wait_for_pods(&arena.cluster));
            let mut failures = Vec::new();
            for number in 0.. {
                if rollout.is_finished() && number > 3 {
                    break;
                }
                let name = format!("during-{number}");
                let node = if number % 2 == 0 { "node-1" } else { "node-2" };
                pods::start(arena, &name, node, &pods::gpu(""));
                checked(arena.stage().saw(&name));
                failures.extend(pods::failures_of(arena, &name));
                pods::remove(arena, &name);
            }
            checked(rollout.join().unwrap());
            failures
        });
        assert!(failures.is_empty(), "{failures:?}");
        assert_eq!(started(before), started(&arena.ready_pods("app=pair", 2)), "a running container was touched");
    });
    let new = driver_uids();
    assert!(old.iter().all(|uid| !new.contains(uid)), "the driver's pods are new");
    assert_eq!(mps::only_daemon(arena, "node-2"), daemon, "a daemon was touched");
    assert_eq!(mps::asked(arena, "default", "client"), "100.0");
    pods::remove(arena, "client");
    assert!(arena.pools().values().all(published::Pool::is_complete));
}

fn pods_and_their_devices_come_back_after_a_reboot(arena: &Arena) {
    let share = mps::share(arena, "3", &json!({}));
    pods::with_deployment(arena, "sharer", 1, &share, |sharers| {
        pods::with_deployment(arena, "pair", 2, &pods::gpu(AMPERE), |pair| reboot(arena, &[sharers, pair].concat()));
    });
    let gone = || arena.files("node-2", &state_dir("claims")).is_empty().then_some(());
    arena.until("the end of all records", gone);
}

fn reboot(arena: &Arena, before: &[Value]) {
    let (was, devices) = (uuids(arena, "pair"), arena.pools()["node-2"].devices.clone());
    checked(arena.node("node-2").reboot());
    arena.until("new containers of the same pods", || {
        let pods = arena.list(&["pods", "-l", "app in (pair, sharer)"]);
        let new = started(&pods).is_disjoint(&started(before));
        (pods.len() == 3 && new && pods.iter().all(crate::arena::is_ready)).then_some(())
    });
    assert_eq!(uuids(arena, "pair"), was);
    let sharer = checked(arena.stage().only_pod_of("sharer"));
    assert_eq!(mps::asked(arena, "default", &sharer), "100.0", "the daemon is back before its clients");
    let specs = arena.files("node-2", "/var/run/cdi");
    assert_eq!(specs.len(), 4, "one spec of the driver and one for each claim: {specs:?}");
    let pools = checked(driver::wait_for_pools(&arena.cluster));
    assert_eq!(pools["node-2"].devices, devices);
    checked(driver::wait_for_pods(&arena.cluster));
    pods::start(arena, "after", "node-2", &pods::gpu(""));
    checked(arena.stage().saw("after"));
    pods::remove(arena, "after");
}
