// SPDX-License-Identifier: Apache-2.0
//! A small cluster: golden slices of `dra-resource` under the names of several nodes, and claims that hold some of their devices.

use std::path::Path;

use dra_allocation::{Classes, Pools, SliceReader, Usage};
use serde_json::{Value, json};

pub(crate) const DRIVER: &str = "gpu.nvidia.com";

/// Golden slices under the name of a node.
pub(crate) fn slices(file: &str, node: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../driver/resource/tests/golden").join(file);
    let text = std::fs::read_to_string(path).unwrap().replace("node-1", node);
    serde_saphyr::from_multiple(&text).unwrap()
}

/// A device that a claim holds.
pub(crate) struct Held<'a> {
    pub(crate) claim: &'a str,
    pub(crate) node: &'a str,
    pub(crate) device: &'a str,
    /// What a share consumes.
    pub(crate) share: Option<Value>,
}

pub(crate) fn alone<'a>(claim: &'a str, node: &'a str, device: &'a str) -> Held<'a> {
    Held { claim, node, device, share: None }
}

pub(crate) fn share<'a>(claim: &'a str, node: &'a str, device: &'a str, consumed: Value) -> Held<'a> {
    Held { claim, node, device, share: Some(consumed) }
}

/// A claim as the scheduler leaves it; `claim` is `namespace/name`.
pub(crate) fn claim(held: &Held<'_>) -> Value {
    let (namespace, name) = held.claim.split_once('/').unwrap();
    let mut result = json!({"request": "gpu", "driver": DRIVER, "pool": held.node, "device": held.device});
    if let Some(consumed) = &held.share {
        result["shareID"] = json!("5a9a0f6c-0d0f-4b6b-9c57-6b1c3a7d2f10");
        result["consumedCapacity"] = consumed.clone();
    }
    json!({
        "metadata": {"namespace": namespace, "name": name},
        "status": {
            "allocation": {"devices": {"results": [result]}, "allocationTimestamp": "2026-11-30T10:00:00Z"},
            "reservedFor": [{"resource": "pods", "name": format!("{name}-pod"), "uid": "u"}],
        },
    })
}

pub(crate) fn pools(slices: &[Value]) -> Pools {
    let mut reader = SliceReader::default();
    reader.add_page(json!({"metadata": {}, "items": slices}).to_string().as_bytes()).unwrap();
    reader.pools()
}

pub(crate) fn usage(held: &[Held<'_>]) -> Usage {
    let mut usage = Usage::default();
    let claims: Vec<Value> = held.iter().map(claim).collect();
    usage.add_page(json!({"metadata": {}, "items": claims}).to_string().as_bytes()).unwrap();
    usage
}

/// The classes of the chart.
pub(crate) fn classes() -> Classes {
    let class = |name: &str, condition: &str, resource: Option<&str>| {
        let expression = format!(r#"device.driver == "{DRIVER}" && {condition}"#);
        let spec = json!({"selectors": [{"cel": {"expression": expression}}], "extendedResourceName": resource});
        json!({"metadata": {"name": name}, "spec": spec})
    };
    let of_type = |kind: &str| format!(r#"device.attributes["{DRIVER}"].type == "{kind}""#);
    let strategy = |name: &str| {
        format!(r#"{} && device.attributes["{DRIVER}"].sharingStrategy == "{name}""#, of_type("shared-gpu"))
    };
    let items = [
        class("gpu.nvidia.com", &of_type("gpu"), Some("nvidia.com/gpu")),
        class("mig.nvidia.com", &of_type("mig"), None),
        class("mps.gpu.nvidia.com", &strategy("MPS"), None),
        class("timeslicing.gpu.nvidia.com", &strategy("TimeSlicing"), None),
    ];
    let mut classes = Classes::default();
    classes.add_page(json!({"metadata": {}, "items": items}).to_string().as_bytes()).unwrap();
    classes
}
