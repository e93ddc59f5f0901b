// SPDX-License-Identifier: Apache-2.0
//! `kubectl gpu status` of a cluster with every form in use.

use dra_explain::reading::WaitingPod;
use dra_kubectl_gpu::output;
use dra_kubectl_gpu::status::{Listed, Seen, Status, View, status, table};
use dra_kubectl_gpu::table::Colours;
use serde_json::{Value, json};

use crate::check;
use crate::world::{DRIVER, Held, alone, pools, share, slices, usage};

fn held() -> Vec<Held<'static>> {
    vec![
        alone("ml/train-0", "gpu-b", "gpu-97722eb3"),
        alone("ml/notebook-0", "gpu-a", "gpu-97722eb3-mig-19-0"),
        alone("ml/notebook-1", "gpu-a", "gpu-97722eb3-mig-14-4"),
        alone("ml/notebook-2", "gpu-a", "gpu-195655dd-mig-15-0"),
        share("web/infer-0", "gpu-c", "gpu-97722eb3-mps", json!({"memory": "6Gi", "activeThreadPercentage": "30"})),
        share("web/infer-1", "gpu-c", "gpu-97722eb3-mps", json!({"memory": "2Gi", "activeThreadPercentage": "10"})),
        share("web/batch", "gpu-c", "gpu-195655dd-ts", json!({"memory": "1484Mi", "shares": "4"})),
    ]
}

fn cluster() -> Vec<Value> {
    let mut all = slices("models/h100-80.yaml", "gpu-a");
    all.extend(slices("models/a100-40.yaml", "gpu-b"));
    all.extend(slices("models/t4.yaml", "gpu-c"));
    all.extend(slices("no-driver.yaml", "gpu-d"));
    all
}

fn seen(slices: &[Value], held: &[Held<'_>], listed: &Listed, incomplete: &[&str]) -> Status {
    let (pools, usage) = (pools(slices), usage(held));
    let waiting = [WaitingPod { namespace: "ml".to_owned(), name: "train-1".to_owned() }];
    let seen = Seen {
        pools: &pools,
        usage: &usage,
        waiting: &waiting,
        driver: DRIVER,
        server_version: "v1.37.0".to_owned(),
        incomplete: incomplete.iter().map(|text| (*text).to_owned()).collect(),
    };
    status(seen, listed)
}

#[test]
fn every_form_has_a_bar() {
    let status = seen(&cluster(), &held(), &Listed::Namespace("web".to_owned()), &[]);
    let found = table(&status, View::Short, Colours::Off);
    assert!(found.lines().all(|line| line.chars().count() <= 100), "wider than 100 columns:\n{found}");
    check(&found, "status.txt");
    check(&table(&status, View::Wide, Colours::Off), "status-wide.txt");
    check(&output::yaml(&status).unwrap(), "status.yaml");
    assert_eq!(serde_json::from_str::<Value>(&output::json(&status).unwrap()).unwrap()["nodes"][0]["name"], "gpu-a");
}

#[test]
fn a_gpu_that_is_not_well_and_a_missing_right_are_seen() {
    let mut slices = slices("models/t4.yaml", "gpu-c");
    let devices = slices[1]["spec"]["devices"].as_array_mut().unwrap();
    for device in devices.iter_mut().filter(|device| device["name"].as_str().unwrap().starts_with("gpu-97722eb3")) {
        device["taints"] = json!([{"key": "gpu.nvidia.com/xid", "value": "79", "effect": "NoExecute"}]);
    }
    let missing = "the right to list resourceclaims.resource.k8s.io in the cluster is missing: GPUs that claims there hold are shown as free";
    let status = seen(&slices, &[], &Listed::All, &[missing]);
    check(&table(&status, View::Short, Colours::Off), "status-tainted.txt");
    check(&table(&status, View::Short, Colours::On), "status-colours.txt");
}

#[test]
fn many_nodes_have_a_line_each() {
    let nodes: Vec<String> = (0..20).map(|number| format!("gpu-{number:02}")).collect();
    let slices: Vec<Value> = nodes.iter().flat_map(|node| slices("models/t4.yaml", node)).collect();
    let held: Vec<Held<'_>> = nodes.iter().take(3).map(|node| alone("ml/train", node, "gpu-97722eb3")).collect();
    let status = seen(&slices, &held, &Listed::Namespace("web".to_owned()), &[]);
    check(&table(&status, View::Short, Colours::Off), "status-many.txt");
}

#[test]
fn slices_that_are_being_replaced_are_named() {
    let mut slices = slices("models/t4.yaml", "gpu-c");
    slices.pop();
    let status = seen(&slices, &[], &Listed::All, &[]);
    check(&table(&status, View::Short, Colours::Off), "status-incomplete.txt");
    check(&table(&seen(&[], &[], &Listed::All, &[]), View::Short, Colours::Off), "status-none.txt");
}
