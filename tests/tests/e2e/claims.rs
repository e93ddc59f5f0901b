// SPDX-License-Identifier: Apache-2.0
//! What claims show their users: their devices and Events, for each pod and each allocation.

use crate::{
    arena::{Arena, checked},
    mps, pods, sharing,
};
use dra_demo::text;
use serde_json::{Value, json};

crate::case::cases![
    a_claim_shows_its_device_and_an_event_for_each_of_the_pods_that_use_it_one_after_another,
    a_claim_shows_its_device_in_whatever_order_the_keys_of_its_configuration_are,
    a_configuration_for_other_devices_does_not_keep_a_share_from_its_pod,
    claims_that_one_container_cannot_use_together_cause_a_warning,
    a_claim_of_another_namespace_is_named_on_the_node_only,
];

const NODE: &str = "node-2";
/// A T4.
const GPU: &str = "2";

fn claim(arena: &Arena, name: &str) -> Value {
    serde_json::from_str(&arena.kubectl(&["get", "resourceclaim", name, "-o", "json"])).unwrap()
}

fn apply_claim(arena: &Arena, name: &str, devices: &Value) {
    let claim = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": name},
        "spec": {"devices": devices},
    });
    arena.apply(&claim.to_string());
}

/// The texts of the Events on a claim with this reason.
pub(crate) fn events(arena: &Arena, claim: &str, reason: &str) -> Vec<String> {
    let about = format!("involvedObject.kind=ResourceClaim,involvedObject.name={claim},reason={reason}");
    let events = arena.list(&["events", "--field-selector", &about]);
    events.iter().map(|event| text(event, "/message").to_owned()).collect()
}

/// The API server drops the statuses of the devices when the claim is deallocated.
fn a_claim_shows_its_device_and_an_event_for_each_of_the_pods_that_use_it_one_after_another(arena: &Arena) {
    let devices = pods::gpu("device.attributes['gpu.nvidia.com'].architecture == 'Ampere'");
    apply_claim(arena, "reused", &devices);
    for round in 1..=3 {
        pods::start_using(arena, "reuser", NODE, &["reused"]);
        checked(arena.stage().saw("reuser"));
        arena.until(&format!("the device of round {round}"), || {
            claim(arena, "reused").pointer("/status/devices/0/data/uuid").map(drop)
        });
        arena.until(&format!("the Event of round {round}"), || {
            (events(arena, "reused", "DevicesPrepared").len() == round).then_some(())
        });
        arena.kubectl(&["delete", "pod", "reuser", "--timeout=60s"]);
        arena.until("the deallocation", || {
            let claim = claim(arena, "reused");
            assert!(claim.pointer("/status/allocation").is_some() || claim.pointer("/status/devices").is_none());
            claim.pointer("/status/allocation").is_none().then_some(())
        });
    }
    arena.kubectl(&["delete", "resourceclaim", "reused", "--timeout=60s"]);
    arena.kubectl(&["delete", "events", "--field-selector", "involvedObject.name=reused"]);
}

/// As Go programs write it, for example; kubectl alone orders keys. The API server takes no apply of a status then.
fn a_claim_shows_its_device_in_whatever_order_the_keys_of_its_configuration_are(arena: &Arena) {
    let parameters = r#"{"kind":"GpuConfig","apiVersion":"resource.nvidia.com/v1beta1"}"#;
    let requests = r#"[{"name": "gpu", "exactly": {"deviceClassName": "gpu.nvidia.com"}}]"#;
    let claim_text = format!(
        r#"{{"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {{"name": "unsorted"}}, "spec": {{"devices": {{
            "requests": {requests},
            "config": [{{"opaque": {{"driver": "gpu.nvidia.com", "parameters": {parameters}}}}}]}}}}}}"#
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), claim_text).unwrap();
    let path = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
    arena.kubectl(&["create", "--raw", path, "-f", &file.path().display().to_string()]);
    pods::start_using(arena, "unsorted", NODE, &["unsorted"]);
    checked(arena.stage().saw("unsorted"));
    arena.until("the device", || claim(arena, "unsorted").pointer("/status/devices/0/data/uuid").map(drop));
    arena.kubectl(&["delete", "pod", "unsorted", "--timeout=60s"]);
    arena.kubectl(&["delete", "resourceclaim", "unsorted", "--timeout=60s"]);
}

/// The text of an Event on a claim.
fn event(arena: &Arena, claim: &str, reason: &str) -> String {
    arena.until(&format!("the Event {reason} on claim {claim}"), || events(arena, claim, reason).pop())
}

fn a_configuration_for_other_devices_does_not_keep_a_share_from_its_pod(arena: &Arena) {
    let long = json!({"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": "Long"}});
    let requests = json!([
        {"name": "train", "exactly": {"deviceClassName": "gpu.nvidia.com"}},
        {"name": "preview", "exactly": {"deviceClassName": "mps.gpu.nvidia.com"}},
    ]);
    let for_all = pods::shared_by(json!({ "requests": requests }), &long);
    let no_such = json!([{"cel": {"expression": "device.attributes['gpu.nvidia.com'].productName == 'none'"}}]);
    let alternatives = json!([{"name": "gpu", "firstAvailable": [
        {"name": "whole", "deviceClassName": "gpu.nvidia.com", "selectors": no_such},
        {"name": "part", "deviceClassName": "mps.gpu.nvidia.com"},
    ]}]);
    let limits = json!({"strategy": "MPS", "mpsConfig": {"defaultActiveThreadPercentage": 50}});
    let mut for_parent = pods::shared_by(json!({ "requests": alternatives }), &limits);
    for_parent["config"][0]["requests"] = json!(["gpu"]);
    for (pod, devices, request) in
        [("mixed", for_all, "request preview"), ("first-available", for_parent, "request gpu/part")]
    {
        pods::start(arena, pod, NODE, &devices);
        checked(arena.stage().saw(pod));
        let note = event(arena, pod, "ConfigIgnored");
        assert!(note.contains(request), "{note}");
        pods::remove(arena, pod);
    }
}

fn claims_that_one_container_cannot_use_together_cause_a_warning(arena: &Arena) {
    for claim in ["share-a", "share-b"] {
        apply_claim(arena, claim, &mps::share(arena, GPU, &json!({})));
    }
    pods::start_using(arena, "both", NODE, &["share-a", "share-b"]);
    checked(arena.stage().saw("both"));
    let note = event(arena, "share-b", "MultipleMPSShares");
    assert!(note.contains("share-a and share-b"), "{note}");
    arena.kubectl(&["delete", "pod", "both", "--timeout=60s"]);
    for claim in ["share-a", "share-b"] {
        arena.kubectl(&["delete", "resourceclaim", claim, "--timeout=60s"]);
        arena.kubectl(&["delete", "events", "--field-selector", &format!("involvedObject.name={claim}")]);
    }
}

fn a_claim_of_another_namespace_is_named_on_the_node_only(arena: &Arena) {
    arena.kubectl(&["create", "namespace", "team-c"]);
    let time_slices = |interval: &str| {
        let sharing = json!({"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": interval}});
        let uuid = arena.setting(NODE, GPU).uuid;
        pods::shared_by(pods::share(sharing::TIME_SLICING, &uuid, &json!({})), &sharing)
    };
    pods::start_as(arena, ("team-c", 0), "first", NODE, &time_slices("Long"));
    checked(arena.stage().saw_in("team-c", "first", "main"));
    pods::start(arena, "second", NODE, &time_slices("Short"));
    let message = pods::failure_of(arena, "second");
    assert!(message.contains("a claim of another namespace") && !message.contains("team-c"), "{message}");
    let on_node = arena.until("the Event on the Node", || {
        let about = format!("involvedObject.kind=Node,involvedObject.name={NODE},reason=DeviceBusy");
        arena.list(&["events", "--field-selector", &about]).pop()
    });
    assert!(text(&on_node, "/message").contains("team-c/first"), "{on_node}");
    pods::remove_in(arena, "team-c", "first");
    checked(arena.stage().saw("second"));
    pods::remove(arena, "second");
    arena.kubectl(&["delete", "events", "--field-selector", "involvedObject.kind=Node,reason=DeviceBusy"]);
    arena.kubectl(&["delete", "namespace", "team-c", "--wait=false"]);
}
