// SPDX-License-Identifier: Apache-2.0
//! `kubectl gpu fit` for manifests of users.

use dra_allocation::NodeFacts;
use dra_explain::why::Seen;
use dra_explain::why::Verdict;
use dra_kubectl_gpu::age::Clock;
use dra_kubectl_gpu::fit::{Fit, fit, table};
use dra_kubectl_gpu::manifest::{Manifest, ManifestError};
use dra_kubectl_gpu::table::Colours;
use serde_json::{Value, json};

use crate::check;
use crate::world::{Held, alone, classes, pools, slices, usage};

const DEPLOYMENT: &str = r#"
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: small, namespace: web}
spec:
  spec:
    devices:
      requests:
      - name: gpu
        exactly:
          deviceClassName: mig.nvidia.com
          selectors:
          - cel: {expression: 'device.attributes["gpu.nvidia.com"].profile == "3g.40gb"'}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: infer, namespace: web}
spec:
  replicas: REPLICAS
  template:
    spec:
      resourceClaims:
      - {name: gpu, resourceClaimTemplateName: small}
      containers:
      - {name: main, resources: {claims: [{name: gpu}]}}
---
apiVersion: v1
kind: Service
metadata: {name: infer}
"#;

fn objects(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).unwrap()
}

fn fits(yaml: &str, slices: &[Value], held: &[Held<'_>]) -> Vec<Fit> {
    let manifest = Manifest::read(&objects(yaml), "web").unwrap();
    assert!(manifest.references().is_empty());
    let (pools, usage, classes) = (pools(slices), usage(held), classes());
    let nodes: Vec<NodeFacts> = pools.nodes().map(|name| NodeFacts::unread(name.clone())).collect();
    let seen = Seen { pools: &pools, usage: &usage, classes: &classes, nodes: &nodes };
    manifest.workloads(&classes).unwrap().iter().map(|workload| fit(workload, seen)).collect()
}

fn text(fits: &[Fit]) -> String {
    let text = table(fits, &[], Clock::at("2026-11-30T12:00:00Z").unwrap(), Colours::Off);
    assert!(text.lines().all(|line| line.chars().count() <= 100), "wider than 100 columns:\n{text}");
    text
}

/// Two nodes with one H100 each that can be divided.
fn h100s() -> Vec<Value> {
    let mut all = slices("models/h100-80.yaml", "gpu-a");
    all.extend(slices("models/h100-80.yaml", "gpu-b"));
    all
}

#[test]
fn replicas_are_counted_now_and_on_the_emptied_cluster() {
    let held = [alone("ml/train", "gpu-a", "gpu-97722eb3")];
    for (replicas, verdict) in [("2", Verdict::Fits), ("4", Verdict::Waits), ("5", Verdict::Never)] {
        let found = fits(&DEPLOYMENT.replace("REPLICAS", replicas), &h100s(), &held);
        let numbers = (found[0].now.replicas, found[0].emptied.replicas);
        assert_eq!((found.len(), found[0].verdict, numbers), (1, verdict, (2, 4)), "{found:?}");
        check(&text(&found), &format!("fit-{replicas}-replicas.txt"));
    }
}

#[test]
fn a_claim_that_waits_is_explained() {
    let yaml = json!({
        "kind": "ResourceClaim",
        "metadata": {"name": "whole"},
        "spec": {"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu.nvidia.com", "count": 2}}]}},
    });
    let held = [alone("ml/train", "gpu-c", "gpu-97722eb3")];
    let found = fits(&yaml.to_string(), &slices("models/t4.yaml", "gpu-c"), &held);
    assert_eq!(found[0].verdict, Verdict::Waits);
    check(&text(&found), "fit-claim.txt");
}

#[test]
fn a_gpu_that_is_not_well_is_waited_for() {
    let mut slices = slices("models/t4.yaml", "gpu-c");
    for device in slices[1]["spec"]["devices"].as_array_mut().unwrap() {
        device["taints"] = json!([{"key": "gpu.nvidia.com/xid", "value": "79", "effect": "NoExecute"}]);
    }
    let yaml = "kind: Pod\nmetadata: {name: old}\nspec: {containers: [{resources: {limits: {nvidia.com/gpu: 1}}}]}\n";
    let found = fits(yaml, &slices, &[]);
    assert_eq!((found[0].verdict, found[0].now.replicas, found[0].emptied.replicas), (Verdict::Waits, 0, 2));
}

#[test]
fn pods_of_one_claim_run_on_one_node_and_need_its_devices_once() {
    let yaml = r"
kind: ResourceClaim
metadata: {name: shared}
spec: {devices: {requests: [{name: gpu, exactly: {deviceClassName: gpu.nvidia.com}}]}}
---
kind: Deployment
metadata: {name: readers}
spec:
  replicas: 7
  template: {spec: {resourceClaims: [{name: gpu, resourceClaimName: shared}]}}
";
    let found = fits(yaml, &h100s(), &[]);
    assert_eq!((found.len(), found[0].verdict, found[0].now.nodes.len()), (1, Verdict::Fits, 1), "{found:?}");
    assert!(found[0].now.or_more);
}

#[test]
fn extended_resources_count_as_claims_and_the_room_is_counted_to_a_limit() {
    let yaml = r#"
kind: Pod
metadata: {name: old}
spec: {containers: [{name: main, resources: {limits: {nvidia.com/gpu: "2"}}}]}
"#;
    let found = fits(yaml, &slices("models/t4.yaml", "gpu-c"), &[]);
    assert_eq!((found[0].verdict, found[0].now.replicas, found[0].now.or_more), (Verdict::Fits, 1, false));
    let many: Vec<Value> = (0..60).flat_map(|node| slices("models/t4.yaml", &format!("gpu-{node}"))).collect();
    let found = fits(&yaml.replace("\"2\"", "\"1\""), &many, &[]);
    assert_eq!((found[0].now.replicas, found[0].now.or_more), (101, true));
}

#[test]
fn what_a_manifest_lacks_is_named() {
    let pod = r#"{"kind": "Pod", "metadata": {"name": "p"}, "spec": {"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "absent"}]}}"#;
    let manifest = Manifest::read(&objects(pod), "web").unwrap();
    let references: Vec<_> = manifest.references().into_iter().map(|found| (found.plural, found.name)).collect();
    assert_eq!(references, [("resourceclaimtemplates", "absent".to_owned())]);
    let missing = manifest.workloads(&classes()).unwrap_err();
    assert!(matches!(missing, ManifestError::Missing { .. }), "{missing:?}");
    let nothing = Manifest::read(&objects("kind: Service\nmetadata: {name: a}"), "web").unwrap();
    assert!(matches!(nothing.workloads(&classes()), Err(ManifestError::Nothing)));
    assert!(matches!(Manifest::read(&objects("{a: b}"), "web"), Err(ManifestError::Kind { number: 1 })));
}
