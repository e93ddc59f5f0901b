// SPDX-License-Identifier: Apache-2.0
//! What claims show their users: their devices and Events, for each pod and each allocation.

use crate::{
    arena::{Arena, told},
    pods,
};
use dra_demo::text;
use serde_json::{Value, json};

crate::cases![a_claim_shows_its_device_and_an_event_for_each_of_the_pods_that_use_it_one_after_another];

const NODE: &str = "node-2";

fn claim(arena: &Arena, name: &str) -> Value {
    serde_json::from_str(&arena.kubectl(&["get", "resourceclaim", name, "-o", "json"])).unwrap()
}

/// The texts of the Events on a claim with this reason.
fn events(arena: &Arena, claim: &str, reason: &str) -> Vec<String> {
    let about = format!("involvedObject.kind=ResourceClaim,involvedObject.name={claim},reason={reason}");
    let events = arena.list(&["events", "--field-selector", &about]);
    events.iter().map(|event| text(event, "/message").to_owned()).collect()
}

/// The API server drops the statuses of the devices when the claim is deallocated.
fn a_claim_shows_its_device_and_an_event_for_each_of_the_pods_that_use_it_one_after_another(arena: &Arena) {
    let devices = pods::gpu("device.attributes['gpu.nvidia.com'].architecture == 'Ampere'");
    let reused = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "reused"},
        "spec": {"devices": devices},
    });
    arena.apply(&reused.to_string());
    for round in 1..=3 {
        pods::start_using(arena, "reuser", NODE, "reused");
        told(arena.stage().saw("reuser"));
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
