// SPDX-License-Identifier: Apache-2.0
//! What goes wrong while pods start: a killed plugin, an API server out of reach, a bad configuration.

use crate::{
    arena::{Arena, checked, state_dir},
    pods,
};
use dra_cluster::Node;
use dra_demo::{driver, published};
use serde_json::{Value, json};
use std::{collections::BTreeSet, thread};

crate::case::cases![
    a_plugin_killed_again_and_again_under_load_loses_and_doubles_nothing,
    a_pod_starts_as_soon_as_the_api_server_is_back,
    a_bad_configuration_is_explained_in_the_pods_event,
    mig_turned_on_behind_the_schedulers_back_is_refused,
];

/// How often each node's plugin is killed.
const KILLS: usize = 3;

fn a_plugin_killed_again_and_again_under_load_loses_and_doubles_nothing(arena: &Arena) {
    arena.ensure_mig();
    let stage = arena.stage();
    let nodes = arena.cluster.nodes();
    // Slow hardware keeps prepares under way long enough to be cut.
    for node in nodes {
        checked(node.gpu_sim("delay", &["nvmlDeviceGetHandleByUUID*", "1500"]));
    }
    let ten = checked(stage.with("ten-gpus.yaml", || {
        thread::scope(|scope| nodes.iter().for_each(|node| drop(scope.spawn(|| kill_while_preparing(arena, node)))));
        stage.wait_for_deployment("ten-gpus")?;
        stage.all_saw("ten-gpus")
    }));
    let uuids: BTreeSet<_> = ten.iter().flat_map(|pod| pod.seen.uuids()).collect();
    assert_eq!((ten.len(), uuids.len()), (10, 10), "{ten:?}");
    checked(driver::wait_for_pods(&arena.cluster));
    for node in nodes {
        let gone = || arena.files(node.name(), &state_dir("claims")).is_empty().then_some(());
        arena.until("the end of the records of claims that are gone", gone);
        let specs = arena.files(node.name(), "/var/run/cdi");
        assert_eq!(specs.len(), 1, "only the driver's own spec is left: {specs:?}");
    }
}

/// Kills, lets the next run begin a prepare, kills again. A killed run leaves its lock files, which do not count.
fn kill_while_preparing(arena: &Arena, node: &Node) {
    let script = |script: &str| checked(node.shell(script));
    script("touch /run/killed");
    for _ in 0..KILLS {
        let under_way = "find /run/gpu-dra/locks -name 'claim-*' -newer /run/killed || :";
        arena.until("a prepare under way", || (!script(under_way).is_empty()).then_some(()));
        script("kill -KILL $(pgrep -f '^/usr/bin/[g]pu-kubelet-plugin'); touch /run/killed");
    }
    checked(node.gpu_sim("heal", &[]));
}

fn a_pod_starts_as_soon_as_the_api_server_is_back(arena: &Arena) {
    arena.cut_off("node-2");
    pods::start(arena, "away", "node-2", &pods::gpu(""));
    let message = pods::failure_of(arena, "away");
    assert!(message.contains("default/away") && message.contains("API server"), "{message}");
    arena.reconnect("node-2");
    checked(arena.stage().saw("away"));
    pods::remove(arena, "away");
}

fn a_bad_configuration_is_explained_in_the_pods_event(arena: &Arena) {
    let wrong = [("sharign", json!({})), ("sharing", json!({"strategy": "Shared"}))].map(|(field, value)| {
        let parameters = json!({"apiVersion": "resource.nvidia.com/v1beta1", "kind": "GpuConfig", field: value});
        let mut devices = pods::gpu("");
        devices["config"] = json!([{"opaque": {"driver": published::DRIVER, "parameters": parameters}}]);
        (field, devices)
    });
    without_policy(arena, &wrong[0].1, || {
        for (field, devices) in &wrong {
            pods::start(arena, "configured", "node-2", devices);
            let message = pods::failure_of(arena, "configured");
            assert!(message.contains(field), "{field} is not named in: {message}");
            pods::remove(arena, "configured");
        }
    });
}

/// Plays while the API server takes wrong configurations, as where the policy cannot be evaluated: then the node judges.
fn without_policy(arena: &Arena, wrong: &Value, play: impl FnOnce()) {
    let binding = ["validatingadmissionpolicybinding", "gpu-dra-driver-configuration"];
    let saved = arena.kubectl(&[&["get", "-o", "json"], &binding[..]].concat());
    let mut saved: Value = serde_json::from_str(&saved).unwrap();
    for field in ["creationTimestamp", "generation", "managedFields", "resourceVersion", "uid"] {
        saved["metadata"].as_object_mut().unwrap().remove(field);
    }
    arena.kubectl(&[&["delete"], &binding[..]].concat());
    let claim = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {"namespace": "default", "name": "taken"}, "spec": {"devices": wrong},
    });
    arena.until("a server that takes wrong configurations", || arena.cluster.apply(&claim.to_string()).ok());
    arena.kubectl(&["delete", "resourceclaim", "taken"]);
    play();
    arena.apply(&saved.to_string());
}

fn mig_turned_on_behind_the_schedulers_back_is_refused(arena: &Arena) {
    let (node, gpu) = (arena.node("node-1"), "5");
    let uuid = checked(node.nvidia_smi(&["--query-gpu=uuid", "--format=csv,noheader", "-i", gpu])).trim().to_owned();
    assert!(arena.pools()["node-1"].device(&uuid).is_some(), "GPU {gpu} is offered whole");
    // With the driver's pod cut off the slices go on to offer it whole.
    arena.cut_off("node-1");
    checked(node.nvidia_smi(&["-i", gpu, "-mig", "1"]));
    pods::start(arena, "late", "node-1", &pods::gpu(&format!("device.attributes['gpu.nvidia.com'].uuid == '{uuid}'")));
    arena.until("the scheduler's choice", || {
        let node = arena.kubectl(&["get", "pod", "late", "-o", "jsonpath={.spec.nodeName}"]);
        (!node.is_empty()).then_some(())
    });
    arena.reconnect("node-1");
    let message =
        arena.until("the refusal", || pods::failures_of(arena, "late").into_iter().find(|m| m.contains("MIG")));
    assert!(message.contains("gpu-"), "{message}");
    checked(node.nvidia_smi(&["-i", gpu, "-mig", "0"]));
    assert_eq!(checked(arena.stage().saw("late")).seen.uuids(), [uuid.as_str()]);
    pods::remove(arena, "late");
}
