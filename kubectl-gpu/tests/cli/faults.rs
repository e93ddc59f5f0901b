// SPDX-License-Identifier: Apache-2.0
//! `kubectl gpu faults`: what is wrong, who is affected, what ends it and what to do.

use serde_json::{Value, json};

use dra_explain::subject;
use dra_kubectl_gpu::age::Clock;
use dra_kubectl_gpu::faults::{Faults, Seen, faults, table};
use dra_kubectl_gpu::holders::{self, EmptyEffect};
use dra_kubectl_gpu::rules;
use dra_kubectl_gpu::status::View;
use dra_kubectl_gpu::table::Colours;

use crate::check;
use crate::server::{CLAIMS, Ran, TAINT_RULES, objects, run, serve};
use crate::world::{DRIVER, alone, claim, pools, slices};

const SLICES: &str = "/apis/resource.k8s.io/v1/resourceslices";
const EVENTS: &str = "/api/v1/events";

/// A node whose first GPU fell off the bus.
fn lost(node: &str) -> Vec<Value> {
    let mut slices = slices("models/t4.yaml", node);
    let devices = slices[1]["spec"]["devices"].as_array_mut().unwrap();
    for device in devices.iter_mut().filter(|device| device["name"].as_str().unwrap().starts_with("gpu-97722eb3")) {
        device["taints"] = json!([{"key": "gpu.nvidia.com/gpu-lost", "value": "lost", "effect": "NoExecute", "timeAdded": "2026-11-30T11:55:00Z"}]);
    }
    slices
}

fn uuid(slices: &[Value], gpu: &str) -> String {
    let mut devices = slices.iter().filter_map(|slice| slice["spec"]["devices"].as_array()).flatten();
    let found = devices.find(|device| device["name"] == gpu).unwrap();
    found["attributes"]["gpuUUID"]["string"].as_str().unwrap().to_owned()
}

fn event(node: &str, reason: &str, message: &str, minute: u8) -> Value {
    let kind = if reason == "NVIDIADriverAvailable" { "Normal" } else { "Warning" };
    json!({
        "metadata": {"name": reason}, "involvedObject": {"kind": "Node", "name": node}, "type": kind,
        "reason": reason, "message": message, "lastTimestamp": format!("2026-11-30T11:{minute:02}:00Z"),
    })
}

fn holder() -> Value {
    let mut claim = claim(&alone("ml/train-0", "gpu-c", "gpu-97722eb3"));
    let condition = json!({"type": "Healthy", "status": "False", "message": "the GPU fell off the bus (XID 79)"});
    claim["status"]["devices"] = json!([
        {"driver": DRIVER, "pool": "gpu-c", "device": "gpu-97722eb3", "conditions": [condition, {"type": "MPSReady", "status": "True"}]},
    ]);
    claim
}

fn drained(name: &str, device: &str) -> Value {
    json!({
        "metadata": {
            "name": name, "labels": {"app.kubernetes.io/managed-by": "kubectl-gpu"},
            "annotations": {"gpu.nvidia.com/reason": "new fan"}, "creationTimestamp": "2026-11-29T11:00:00Z",
        },
        "spec": {"deviceSelector": {"driver": DRIVER, "pool": "gpu-c", "device": device}, "taint": {"key": "gpu.nvidia.com/drained", "effect": "NoSchedule"}},
    })
}

fn events(slices: &[Value]) -> Vec<Value> {
    let text = |what: &str| format!("{}: {what}", uuid(slices, "gpu-97722eb3"));
    vec![
        event(
            "gpu-c",
            "GpuLost",
            &text("the GPU fell off the bus (XID 79). No new claim gets it, and its pods are evicted"),
            55,
        ),
        event("gpu-c", "CDIHookUnavailable", "Containers find the libraries in the directories of the loader", 50),
        event("gpu-c", "NVIDIADriverUnavailable", "NVML cannot be loaded", 40),
        event("gpu-c", "NVIDIADriverAvailable", "NVML is loaded", 41),
    ]
}

fn found(slices: &[Value], claims: &[Value], rules: &[Value], events: &[Value], missing: &[&str]) -> Faults {
    let page = |items: &[Value]| json!({"metadata": {}, "items": items}).to_string();
    let (mut holding, mut taint_rules) = (Vec::new(), Vec::new());
    holders::add_page(page(claims).as_bytes(), DRIVER, &mut holding).unwrap();
    rules::add_page(page(rules).as_bytes(), &mut taint_rules).unwrap();
    let (events, _) = subject::events(page(events).as_bytes()).unwrap();
    faults(Seen {
        pools: &pools(slices),
        driver: DRIVER,
        rules: &taint_rules,
        holders: &holding,
        events: &events,
        empty_effect: EmptyEffect::DoesNotProtect,
        incomplete: missing.iter().map(|text| (*text).to_owned()).collect(),
    })
}

fn text(faults: &Faults, view: View) -> String {
    let clock = Clock::at("2026-11-30T12:00:00Z").unwrap();
    let found = table(faults, view, clock, Colours::Off);
    assert!(found.lines().all(|line| line.chars().count() <= 110), "too wide:\n{found}");
    found
}

#[test]
fn a_fault_and_a_gpu_that_is_drained_are_explained() {
    let slices = lost("gpu-c");
    let rules = ["gpu-195655dd", "gpu-195655dd-mps"].map(|device| drained(&format!("drained-{device}-x"), device));
    let faults =
        found(&slices, &[holder()], &rules, &events(&slices), &["the right to list nothing is missing: nothing"]);
    check(&text(&faults, View::Short), "faults.txt");
    check(&dra_kubectl_gpu::output::yaml(&faults).unwrap(), "faults.yaml");
}

#[test]
fn many_faults_have_a_line_each() {
    let nodes: Vec<String> = (0..13).map(|number| format!("gpu-{number:02}")).collect();
    let slices: Vec<Value> = nodes.iter().flat_map(|node| lost(node)).collect();
    let faults = found(&slices, &[], &[], &[], &[]);
    check(&text(&faults, View::Short), "faults-many.txt");
    assert_eq!(text(&faults, View::Wide).matches("fell off the bus").count(), 13);
}

#[test]
fn a_condition_of_a_claim_is_a_fault_where_no_taint_is_stored() {
    let faults = found(&slices("models/t4.yaml", "gpu-c"), &[holder()], &[], &[], &[]);
    let gpu = &faults.nodes[0].gpus[0];
    assert_eq!(
        (gpu.name.as_str(), gpu.faults[0].explained.meaning.as_str()),
        ("gpu-97722eb3", "the GPU fell off the bus (XID 79)")
    );
    assert_eq!(
        text(&found(&slices("models/t4.yaml", "gpu-c"), &[], &[], &[], &[]), View::Short),
        "No faults: 2 GPUs on 1 node\n"
    );
}

#[test]
fn the_program_reads_what_it_may_and_names_the_rest() {
    let mut objects = objects(CLAIMS);
    let slices = lost("gpu-c");
    objects.insert(EVENTS, Value::Array(events(&slices)));
    objects.insert(SLICES, json!(slices));
    objects.remove(TAINT_RULES);
    let server = serve(objects);
    let Ran(code, out, error) = run(&server, &["faults", "gpu-c"]);
    assert_eq!((code, error.as_str()), (0, ""));
    for expect in [
        "1 GPU with faults; 2 GPUs on 1 node",
        "gpu.nvidia.com/gpu-lost=lost:NoExecute",
        "GpuLost",
        "ml/train-0 (pod train-0-pod) has gpu-97722eb3: evicted at once",
        "note: the right to list devicetaintrules.resource.k8s.io in the cluster is missing",
    ] {
        assert!(out.contains(expect), "{expect} is not in {out}");
    }
    let requests = server.requests.lock().unwrap();
    let filter = "fieldSelector=involvedObject.kind%3DNode%2CreportingComponent%3Dgpu.nvidia.com%2Fkubelet-plugin%2CinvolvedObject.name%3Dgpu-c";
    assert!(requests.iter().any(|path| path.contains(filter)), "{requests:?}");
}

#[test]
fn json_has_the_same() {
    let mut objects = objects(CLAIMS);
    objects.insert(SLICES, json!(lost("gpu-c")));
    let Ran(code, out, _) = run(&serve(objects), &["faults", "-o", "json"]);
    let found: Value = serde_json::from_str(&out).unwrap();
    let gpu = &found["nodes"][0]["gpus"][0];
    assert_eq!(
        (code, &gpu["faults"][0]["runbook"], &gpu["faults"][0]["by"]),
        (0, &json!("GpuLost"), &json!({"source": "driver"}))
    );
}
