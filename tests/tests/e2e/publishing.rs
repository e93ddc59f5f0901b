// SPDX-License-Identifier: Apache-2.0
//! Slices stay equal to the hardware, and only their own node writes them.

use crate::arena::{Arena, checked};
use dra_cluster::ClusterError;
use dra_demo::{driver, published, text};
use serde_json::{Value, json};
use std::{fs, process::Command};

crate::case::cases![
    slices_deleted_or_edited_by_hand_are_repaired,
    an_idle_driver_writes_no_slice,
    a_lost_gpu_stays_published_with_a_taint_and_affects_no_other,
    slices_catch_up_after_the_api_server_was_away,
    a_node_cannot_write_the_slices_of_another,
];

/// The slices without what the API server counts.
fn contents(arena: &Arena) -> Vec<Value> {
    let mut slices = checked(published::slices(&arena.cluster));
    slices.sort_by_key(|slice| text(slice, "/metadata/name").to_owned());
    slices
        .iter()
        .map(|slice| {
            json!({"name": slice["metadata"]["name"], "devices": slice["spec"]["devices"],
        "counters": slice["spec"]["sharedCounters"], "node": slice["spec"]["nodeName"]})
        })
        .collect()
}

fn versions(arena: &Arena) -> Vec<(String, String)> {
    let slices = checked(published::slices(&arena.cluster));
    let of =
        |slice: &Value| (text(slice, "/metadata/name").to_owned(), text(slice, "/metadata/resourceVersion").to_owned());
    slices.iter().map(of).collect()
}

fn slices_deleted_or_edited_by_hand_are_repaired(arena: &Arena) {
    let before = contents(arena);
    let with_devices = before.iter().find(|slice| !slice["devices"].is_null()).unwrap();
    let name = text(with_devices, "/name");
    arena.kubectl(&["delete", "resourceslice", name]);
    arena.until("the deleted slice again", || (contents(arena) == before).then_some(()));
    arena.kubectl(&[
        "patch",
        "resourceslice",
        name,
        "--type=json",
        "-p",
        r#"[{"op":"remove","path":"/spec/devices/0"}]"#,
    ]);
    arena.until("the edited slice repaired", || (contents(arena) == before).then_some(()));
    assert!(arena.pools().values().all(published::Pool::is_complete));
}

fn an_idle_driver_writes_no_slice(arena: &Arena) {
    let before = versions(arena);
    // A pod from start to end takes longer than any periodic check.
    checked(dra_demo::scenes::one_gpu(&arena.stage()));
    assert_eq!(versions(arena), before);
}

/// The names of the devices that no new claim gets.
fn tainted(arena: &Arena) -> Vec<String> {
    let slices = checked(published::slices(&arena.cluster));
    let devices = slices.iter().filter_map(|slice| slice.pointer("/spec/devices")?.as_array()).flatten();
    let is_tainted = |device: &&Value| {
        let taint = |taint: &Value| taint["key"] == "gpu.nvidia.com/unusable" && taint["effect"] == "NoSchedule";
        device["taints"].as_array().is_some_and(|taints| taints.iter().any(taint))
    };
    devices.filter(is_tainted).map(|device| text(device, "/name").to_owned()).collect()
}

fn a_lost_gpu_stays_published_with_a_taint_and_affects_no_other(arena: &Arena) {
    let before = contents(arena);
    let names = |arena: &Arena| arena.pools()["node-2"].devices.len();
    let devices = names(arena);
    let node = arena.node("node-2");
    checked(node.gpu_sim("lose", &["--gpu", "3"]));
    let forms = arena.until("the taint of the lost GPU", || Some(tainted(arena)).filter(|names| !names.is_empty()));
    assert_eq!(forms.len(), 3, "the whole GPU and both shared forms: {forms:?}");
    assert_eq!(names(arena), devices, "no device has left the slices");
    let event = arena.until("an event on the node", || {
        let events = arena.list(&["events", "--field-selector", "involvedObject.kind=Node,involvedObject.name=node-2"]);
        let ours = |event: &&Value| {
            text(event, "/source/component").contains(published::DRIVER)
                || text(event, "/reportingComponent").contains(published::DRIVER)
        };
        events.iter().find(ours).cloned()
    });
    assert_eq!(text(&event, "/type"), "Warning", "{event}");
    checked(node.gpu_sim("reset", &["--gpu", "3"]));
    arena.until("the GPU again", || (contents(arena) == before).then_some(()));
}

fn slices_catch_up_after_the_api_server_was_away(arena: &Arena) {
    let before = contents(arena);
    let node = arena.node("node-2");
    arena.cut_off("node-2");
    checked(node.gpu_sim("lose", &["--gpu", "3"]));
    arena.until("the controller's complaint", || {
        let log = arena.driver_log("node-2", "controller");
        log.lines().last().is_some_and(|line| line.contains(" WARN ") || line.contains(" ERROR ")).then_some(())
    });
    assert_eq!(contents(arena), before, "nothing can have been written");
    arena.reconnect("node-2");
    arena.until("the taint of the lost GPU", || (tainted(arena).len() == 3).then_some(()));
    checked(node.gpu_sim("reset", &["--gpu", "3"]));
    arena.until("the GPU again", || (contents(arena) == before).then_some(()));
}

fn a_node_cannot_write_the_slices_of_another(arena: &Arena) {
    let token = token_of_driver_on(arena, "node-1");
    let named = |name: &str| {
        let mut slice = slice("node-1", "node-1", published::DRIVER);
        slice["metadata"]["name"] = json!(name);
        slice
    };
    let other_name = Some("a pod on node node-1 creates only slices with names as 00000-gpu.nvidia.com-node-1");
    for (given, expect) in [
        (slice("node-1", "node-1", published::DRIVER), None),
        (named("000ffx1-gpu.nvidia.com-node-1"), None),
        (named("000ff-gpu.nvidia.com-node-2"), other_name),
        (named("000ff-gpu.nvidia.com-node-11"), other_name),
        (named("000ff-gpu.nvidia.com-my-node-1"), other_name),
        (named("by-hand"), other_name),
        (
            slice("node-2", "node-2", published::DRIVER),
            Some("a pod on node node-1 writes only the slices of that node"),
        ),
        (slice("node-1", "node-2", published::DRIVER), Some("a pod on node node-1 writes only the pool of that name")),
        (slice("node-1", "node-1", "other.example.com"), Some("this account writes slices only for driver")),
    ] {
        check_write(arena, &token, &["create", "--dry-run=server", "-f", "-"], &given.to_string(), expect);
    }
    let foreign =
        checked(published::slices(&arena.cluster)).into_iter().find(|slice| text(slice, "/spec/nodeName") == "node-2");
    let name = text(foreign.as_ref().unwrap(), "/metadata/name").to_owned();
    let refused = Some("a pod on node node-1 writes only the slices of that node");
    check_write(arena, &token, &["delete", "resourceslice", &name], "", refused);
    // A token that is bound to no pod says no node.
    let unbound = arena.kubectl(&["create", "token", driver::RELEASE, "-n", driver::NAMESPACE]);
    let refused = Some("only with a token that is bound to a pod on a node");
    let own = slice("node-1", "node-1", published::DRIVER).to_string();
    check_write(arena, &unbound, &["create", "--dry-run=server", "-f", "-"], &own, refused);
}

pub(crate) fn token_of_driver_on(arena: &Arena, node: &str) -> String {
    let pod = arena.driver_pod(node);
    let bound = ["--bound-object-kind=Pod", "--bound-object-name", text(&pod, "/metadata/name")];
    arena.kubectl(&[&["create", "token", driver::RELEASE, "-n", driver::NAMESPACE], &bound[..]].concat())
}

fn slice(node: &str, pool: &str, driver: &str) -> Value {
    json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": "000ff-gpu.nvidia.com-node-1"},
        "spec": {"driver": driver, "nodeName": node, "devices": [{"name": "gpu-0"}],
                 "pool": {"name": pool, "generation": 99, "resourceSliceCount": 1}},
    })
}

/// Writes as the driver of `node-1`, with nothing of the administrator's.
pub(crate) fn check_write(arena: &Arena, token: &str, args: &[&str], input: &str, expect: Option<&str>) {
    let admin = arena.kubectl(&["config", "view", "--raw", "-o", "json"]);
    let mut config: Value = serde_json::from_str(&admin).unwrap();
    config["users"][0]["user"] = json!({ "token": token.trim() });
    let config_path = arena.cluster.dir().join("driver.kubeconfig");
    let input_path = arena.cluster.dir().join("input.json");
    fs::write(&config_path, config.to_string()).unwrap();
    fs::write(&input_path, input).unwrap();
    let mut kubectl = Command::new(arena.cluster.programs().path("kubectl"));
    kubectl.arg("--kubeconfig").arg(&config_path).args(args).stdin(fs::File::open(&input_path).unwrap());
    let output = kubectl.output().map_err(|source| ClusterError::Start { program: "kubectl".to_owned(), source });
    let output = checked(output);
    let output_text = String::from_utf8_lossy(&output.stderr);
    match expect {
        None => assert!(output.status.success(), "{output_text}"),
        Some(reason) => {
            assert!(
                !output.status.success() && output_text.contains(reason),
                "{reason} is not in the output: {output_text}"
            );
        }
    }
}
