// SPDX-License-Identifier: Apache-2.0
//! What the admission policies of the chart refuse on a real API server, and that they refuse no more.

use crate::{
    arena::{Arena, checked},
    publishing::{check_write, token_of_driver_on},
};
use dra_cluster::ClusterError;
use dra_demo::{driver, published, refusals, text};
use serde_json::{Value, json};
use std::fs;

crate::case::cases![
    type_checking_finds_nothing_in_the_policies,
    wrong_configurations_are_refused_at_creation_as_by_the_driver,
    every_place_of_a_configuration_is_checked,
    a_node_speaks_in_events_for_itself_only,
    a_node_takes_leases_of_evictions_for_itself_only,
    a_name_that_a_foreign_slice_holds_keeps_no_node_from_publishing,
];

/// The examples that the driver itself is tested with.
const EXAMPLES: &str = include_str!("../../../driver/model/testdata/configurations.json");

fn type_checking_finds_nothing_in_the_policies(arena: &Arena) {
    let policies = || {
        let policies = arena.list(&["validatingadmissionpolicies"]);
        let is_checked = |policy: &Value| policy["status"]["typeChecking"].is_object();
        policies.iter().all(is_checked).then_some(policies)
    };
    let policies = arena.until("the type checking of the policies", policies);
    assert_eq!(policies.len(), 5);
    for policy in policies {
        assert_eq!(policy["status"]["typeChecking"], json!({}), "{policy}");
    }
}

fn claim(example: &Value) -> Value {
    let config = json!({"opaque": {"driver": published::DRIVER, "parameters": example["parameters"]}});
    json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {"name": example["name"], "namespace": "default"},
        "spec": {"devices": {"requests": [request()], "config": [config]}},
    })
}

fn request() -> Value {
    json!({"name": "gpu", "exactly": {"deviceClassName": "gpu.nvidia.com"}})
}

/// Has the API server judge objects without keeping them.
pub(crate) fn try_to_create(arena: &Arena, objects: &[Value]) -> Result<String, ClusterError> {
    let path = arena.cluster.dir().join("tried.json");
    fs::write(&path, json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()).unwrap();
    // kubectl's own check takes null for a mistake, wherever it is.
    let args = ["create", "--dry-run=server", "--validate=false", "-f", &path.display().to_string()];
    arena.cluster.kubectl(&args)
}

/// The sentences that objects are refused with, of which none is taken.
fn refused(arena: &Arena, objects: &[Value]) -> Vec<(String, String)> {
    match try_to_create(arena, objects) {
        Err(ClusterError::Failed { message, .. }) => refusals(&message).into_iter().collect(),
        answer => panic!("these should be refused: {answer:?}"),
    }
}

fn wrong_configurations_are_refused_at_creation_as_by_the_driver(arena: &Arena) {
    let examples: Vec<Value> = serde_json::from_str(EXAMPLES).unwrap();
    let is_refused = |example: &&Value| example["message"].is_string() && example["leftToTheDriver"] != true;
    let (wrong, right): (Vec<_>, Vec<_>) = examples.iter().partition(is_refused);
    checked(try_to_create(arena, &right.into_iter().map(claim).collect::<Vec<_>>()));
    let expect = |example: &&Value| {
        let message = text(example, "/message");
        let sentence = format!("spec.devices.config[0].opaque.parameters is refused: {message}");
        (text(example, "/name").to_owned(), sentence)
    };
    let mut expect: Vec<_> = wrong.iter().map(expect).collect();
    expect.sort();
    assert_eq!(refused(arena, &wrong.into_iter().map(claim).collect::<Vec<_>>()), expect);
}

fn every_place_of_a_configuration_is_checked(arena: &Arena) {
    let of = |driver: &str| json!({"opaque": {"driver": driver, "parameters": {"apiVersion": "v0"}}});
    let configs = json!([of("other.example.com"), of(published::DRIVER)]);
    let spec = json!({"devices": {"requests": [request()], "config": configs}});
    let object = |kind: &str, spec: Value| json!({"apiVersion": "resource.k8s.io/v1", "kind": kind, "metadata": {"name": kind.to_lowercase()}, "spec": spec});
    let objects = [
        object("ResourceClaim", spec.clone()),
        object("ResourceClaimTemplate", json!({ "spec": spec })),
        object("DeviceClass", json!({ "config": configs })),
    ];
    let sentence = |place: &str| {
        format!("{place}[1].opaque.parameters is refused: apiVersion is \"v0\": expected `resource.nvidia.com/v1beta1`")
    };
    let expect = [
        ("deviceclass", "spec.config"),
        ("resourceclaim", "spec.devices.config"),
        ("resourceclaimtemplate", "spec.spec.devices.config"),
    ];
    assert_eq!(refused(arena, &objects), expect.map(|(name, place)| (name.to_owned(), sentence(place))));
}

fn a_node_speaks_in_events_for_itself_only(arena: &Arena) {
    let token = token_of_driver_on(arena, "node-1");
    let event = |instance: &str, regarding: Value| {
        json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "by-hand", "namespace": "default"},
            "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "gpu.nvidia.com/kubelet-plugin",
            "reportingInstance": instance, "regarding": regarding, "reason": "Tried", "action": "Try", "type": "Normal",
        })
    };
    let node = |name: &str| json!({"apiVersion": "v1", "kind": "Node", "name": name});
    let in_default =
        |api: &str, kind: &str| json!({"apiVersion": api, "kind": kind, "name": "some", "namespace": "default"});
    let reported_by = |reporter: &str| {
        let mut event = event("node-1", node("node-1"));
        event["reportingController"] = json!(reporter);
        event
    };
    let another = Some(
        "a pod on node node-1 creates Events only as gpu.nvidia.com/kubelet-plugin or gpu.nvidia.com/controller on that node",
    );
    let about = Some("a pod on node node-1 creates Events only about that node, ResourceClaims and Pods");
    for (given, expect) in [
        (event("node-1", node("node-1")), None),
        (event("gpu-controller-node-1", node("node-1")), None),
        (event("node-1", in_default("resource.k8s.io/v1", "ResourceClaim")), None),
        (event("node-2", node("node-1")), another),
        (reported_by("gpu.nvidia.com/controller"), None),
        (reported_by("gpu.nvidia.com"), another),
        (reported_by("gpu.nvidia.com/other"), another),
        (reported_by("kubelet"), another),
        (event("node-1", node("node-2")), about),
        (event("node-1", in_default("v1", "Pod")), None),
        (event("node-1", in_default("v1", "Secret")), about),
        (event("node-1", in_default("apps/v1", "Pod")), about),
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

fn a_node_takes_leases_of_evictions_for_itself_only(arena: &Arena) {
    let token = token_of_driver_on(arena, "node-1");
    let leases = arena.list(&["leases", "-n", driver::NAMESPACE]);
    let slot = |lease: &&Value| text(lease, "/metadata/name") == format!("{}-eviction-0", published::DRIVER);
    let slot = leases.iter().find(slot).expect("the chart creates it");
    let held_by = |holder: &str| {
        let mut lease = slot.clone();
        lease["spec"] = json!({"holderIdentity": holder});
        lease
    };
    let other = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "other", "namespace": driver::NAMESPACE},
        "spec": {"holderIdentity": "node-1"},
    });
    let replace = ["replace", "--dry-run=server", "-f", "-"];
    let of_others = Some("a pod on node node-1 takes only Leases gpu.nvidia.com-eviction-… and only for that node");
    for (holder, expect) in [("node-1", None), ("node-2", of_others), ("", of_others)] {
        check_write(arena, &token, &replace, &held_by(holder).to_string(), expect);
    }
    let mut owned = held_by("node-1");
    owned["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "00000000-0000-4000-8000-000000000000"}]);
    let mut bound = held_by("node-1");
    bound["metadata"]["finalizers"] = json!(["example.com/never"]);
    for changed in [owned, bound] {
        let expect = Some("this account changes only the spec of Leases");
        check_write(arena, &token, &replace, &changed.to_string(), expect);
    }
    let no_right = Some("cannot create resource \"leases\"");
    check_write(arena, &token, &["create", "--dry-run=server", "-f", "-"], &other.to_string(), no_right);
}

fn a_name_that_a_foreign_slice_holds_keeps_no_node_from_publishing(arena: &Arena) {
    let name = format!("00000-{}-node-2", published::DRIVER);
    let foreign = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": name},
        "spec": {"driver": "other.example.com", "nodeName": "node-1",
                 "pool": {"name": "node-1", "generation": 1, "resourceSliceCount": 1}},
    });
    let names = || {
        let slices = checked(published::slices(&arena.cluster));
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
