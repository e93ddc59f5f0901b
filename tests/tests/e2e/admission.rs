// SPDX-License-Identifier: Apache-2.0
//! What the admission policies of the chart refuse on a real API server.

use crate::{
    arena::{Arena, told},
    publishing::{check_write, token_of_driver_on},
};
use dra_demo::{driver, published, text};
use serde_json::{Value, json};

crate::cases![
    type_checking_finds_nothing_in_the_policies,
    a_node_speaks_in_events_for_itself_only,
    a_name_that_a_foreign_slice_holds_keeps_no_node_from_publishing,
];

fn type_checking_finds_nothing_in_the_policies(arena: &Arena) {
    let policies = || {
        let policies = arena.list(&["validatingadmissionpolicies"]);
        let is_checked = |policy: &Value| policy["status"]["typeChecking"].is_object();
        policies.iter().all(is_checked).then_some(policies)
    };
    let policies = arena.until("the type checking of the policies", policies);
    assert_eq!(policies.len(), 3);
    for policy in policies {
        assert_eq!(policy["status"]["typeChecking"], json!({}), "{policy}");
    }
}

fn a_node_speaks_in_events_for_itself_only(arena: &Arena) {
    let token = token_of_driver_on(arena, "node-1");
    let event = |instance: &str, regarding: Value| {
        json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "by-hand", "namespace": "default"},
            "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": driver::DRIVER,
            "reportingInstance": instance, "regarding": regarding, "reason": "Tried", "action": "Try", "type": "Normal",
        })
    };
    let node = |name: &str| json!({"apiVersion": "v1", "kind": "Node", "name": name});
    let in_default =
        |api: &str, kind: &str| json!({"apiVersion": api, "kind": kind, "name": "some", "namespace": "default"});
    let mut of_the_kubelet = event("node-1", node("node-1"));
    of_the_kubelet["reportingController"] = json!("kubelet");
    let another = Some("a pod on node node-1 creates Events only as gpu.nvidia.com on that node");
    let about = Some("a pod on node node-1 creates Events only about that node and about ResourceClaims");
    for (given, expect) in [
        (event("node-1", node("node-1")), None),
        (event("gpu-controller-node-1", node("node-1")), None),
        (event("node-1", in_default("resource.k8s.io/v1", "ResourceClaim")), None),
        (event("node-2", node("node-1")), another),
        (of_the_kubelet, another),
        (event("node-1", node("node-2")), about),
        (event("node-1", in_default("v1", "Pod")), about),
    ] {
        check_write(arena, &token, &["create", "--dry-run=server", "-f", "-"], &given.to_string(), expect);
    }
    let old = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "by-hand", "namespace": "kube-system"},
        "involvedObject": {"kind": "Pod", "name": "coredns", "namespace": "kube-system"}, "type": "Warning",
        "reason": "Killing", "source": {"component": "kubelet"},
    });
    let no_right = Some("cannot create resource \"events\" in API group \"\"");
    check_write(arena, &token, &["create", "--dry-run=server", "-f", "-"], &old.to_string(), no_right);
}

fn a_name_that_a_foreign_slice_holds_keeps_no_node_from_publishing(arena: &Arena) {
    let name = format!("00000-{}-node-2", driver::DRIVER);
    let foreign = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": name},
        "spec": {"driver": "other.example.com", "nodeName": "node-1",
                 "pool": {"name": "node-1", "generation": 1, "resourceSliceCount": 1}},
    });
    let names = || {
        let slices = told(published::slices(&arena.cluster));
        let of_node = slices.iter().filter(|slice| text(slice, "/spec/nodeName") == "node-2");
        let mut names: Vec<_> = of_node.map(|slice| text(slice, "/metadata/name").to_owned()).collect();
        names.sort();
        names
    };
    let before = names();
    let devices = arena.pools()["node-2"].devices.len();
    let is_complete = || {
        let pools = arena.pools();
        let pool = pools.get("node-2").filter(|pool| pool.is_complete());
        pool.is_some_and(|pool| pool.devices.len() == devices)
    };
    arena.cut_off("node-2");
    arena.kubectl(&["delete", "resourceslice", &name]);
    arena.apply(&foreign.to_string());
    arena.reconnect("node-2");
    arena.until("the slices of node-2 under another name", || is_complete().then_some(()));
    let other = name.replacen('-', "x1-", 1);
    assert!(names().contains(&other), "{:?}", names());
    arena.kubectl(&["delete", "resourceslice", &name]);
    arena.kubectl(&["delete", "resourceslice", &other]);
    arena.until("the usual name again", || (is_complete() && names() == before).then_some(()));
}
