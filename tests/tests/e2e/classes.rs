// SPDX-License-Identifier: Apache-2.0
//! Classes that select the driver and no type, as tutorials have them: shares go only to requests that name an amount.

use crate::{
    arena::{Arena, checked},
    mps, pods, sharing,
};
use dra_demo::text;
use serde_json::{Value, json};

crate::case::cases![
    a_class_of_the_driver_only_gets_a_whole_gpu_or_waits,
    all_devices_of_the_driver_can_be_looked_at,
    a_template_that_names_no_amount_is_completed_and_can_be_applied_again,
];

const NODE: &str = "node-2";
const CLASS: &str = "any-gpu.example.com";

fn with_class(arena: &Arena, play: impl FnOnce()) {
    let selector = json!({"cel": {"expression": "device.driver == 'gpu.nvidia.com'"}});
    let class = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": CLASS},
        "spec": {"selectors": [selector]},
    });
    arena.apply(&class.to_string());
    play();
    arena.kubectl(&["delete", "deviceclass", CLASS]);
}

/// The names of the devices allocated to a claim.
fn allocated(arena: &Arena, namespace: &str, claim: &str) -> Vec<String> {
    let claims = arena.list(&["resourceclaims", "-n", namespace]);
    let claim = claims.iter().find(|one| text(one, "/metadata/name") == claim).unwrap();
    let results = claim.pointer("/status/allocation/devices/results").and_then(Value::as_array);
    results.into_iter().flatten().map(|result| text(result, "/device").to_owned()).collect()
}

fn a_class_of_the_driver_only_gets_a_whole_gpu_or_waits(arena: &Arena) {
    let stage = arena.stage();
    for (holder, gpu) in [("holder-2", "2"), ("holder-3", "3")] {
        pods::start(arena, holder, NODE, &mps::share(arena, gpu, &json!({"memory": "9Gi"})));
        checked(stage.saw(holder));
    }
    with_class(arena, || {
        let mut devices = pods::gpu("device.attributes['gpu.nvidia.com'].productName.contains('T4')");
        devices["requests"][0]["exactly"]["deviceClassName"] = json!(CLASS);
        pods::start(arena, "any", NODE, &devices);
        sharing::waits(arena, "any");
        pods::remove(arena, "holder-3");
        checked(stage.saw("any"));
        let whole = format!("gpu-{}", arena.setting(NODE, "3").uuid.trim_start_matches("GPU-").split_at(8).0);
        assert_eq!(allocated(arena, "default", "any"), [whole]);
        pods::remove(arena, "any");
    });
    pods::remove(arena, "holder-2");
}

fn all_devices_of_the_driver_can_be_looked_at(arena: &Arena) {
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "watchers", "labels": {"resource.kubernetes.io/admin-access": "true"}},
    });
    arena.apply(&namespace.to_string());
    with_class(arena, || {
        let request = json!({"deviceClassName": CLASS, "allocationMode": "All", "adminAccess": true});
        let devices = json!({"requests": [{"name": "all", "exactly": request}]});
        pods::start_as(arena, ("watchers", 0), "watcher", NODE, &devices);
        arena.until("a pod that looks at all devices", || {
            let pods = arena.list(&["pods", "-n", "watchers"]);
            pods.iter().any(|pod| text(pod, "/status/phase") == "Running").then_some(())
        });
        let found = allocated(arena, "watchers", "watcher");
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found.iter().all(|device| !device.ends_with("-mps") && !device.ends_with("-ts")), "{found:?}");
        pods::remove_in(arena, "watchers", "watcher");
    });
    arena.kubectl(&["delete", "namespace", "watchers"]);
}

fn a_template_that_names_no_amount_is_completed_and_can_be_applied_again(arena: &Arena) {
    let request = |class: &str| json!({"deviceClassName": class});
    let alternative = |name: &str, class: &str| json!({"name": name, "deviceClassName": class});
    let devices = json!({"requests": [
        {"name": "mps", "exactly": {"deviceClassName": mps::CLASS, "capacity": {"requests": {"memory": "1Gi"}}}},
        {"name": "time-slices", "exactly": request(sharing::TIME_SLICING)},
        {"name": "whole", "exactly": request("gpu.nvidia.com")},
        {"name": "either", "firstAvailable": [
            alternative("gpu", "gpu.nvidia.com"), alternative("share", sharing::TIME_SLICING),
        ]},
        {"name": "asked", "exactly": {
            "deviceClassName": mps::CLASS, "capacity": {"requests": {"activeThreadPercentage": "30"}},
        }},
    ]});
    let template = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate", "metadata": {"name": "incomplete"},
        "spec": {"spec": {"devices": devices}},
    });
    for _ in 0..2 {
        arena.apply(&template.to_string());
        let templates = arena.list(&["resourceclaimtemplates"]);
        let found = templates.iter().find(|one| text(one, "/metadata/name") == "incomplete").unwrap();
        let amounts =
            |path: &str| found.pointer(&format!("/spec/spec/devices/requests/{path}/capacity/requests")).cloned();
        assert_eq!(amounts("0/exactly"), Some(json!({"memory": "1Gi", "activeThreadPercentage": "10"})));
        assert_eq!(amounts("1/exactly"), Some(json!({"shares": "1"})));
        assert_eq!(amounts("2/exactly"), None);
        assert_eq!(amounts("3/firstAvailable/0"), None);
        assert_eq!(amounts("3/firstAvailable/1"), Some(json!({"shares": "1"})));
        assert_eq!(amounts("4/exactly"), Some(json!({"activeThreadPercentage": "30"})));
    }
    arena.kubectl(&["delete", "resourceclaimtemplate", "incomplete"]);
}
