// SPDX-License-Identifier: Apache-2.0
//! Time and memory of `kubectl gpu` for a cluster of 1000 nodes with eight H100 each, from the pages of the API server to the text.
//!
//! The pages are made in this process and are not measured; neither is the network.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a benchmark prints")]

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use dra_allocation::{Classes, NodeFacts, Pools, SliceReader, Usage};
use dra_explain::subject::{self, Subject};
use dra_explain::why;
use dra_kubectl_gpu::age::Clock;
use dra_kubectl_gpu::table::Colours;
use dra_kubectl_gpu::{status, why_table};
use serde_json::{Value, json};

const NODES: usize = 1000;
const GPUS: usize = 8;
/// Nodes in one page: 50 pages of 250 slices would be 5 per node.
const NODES_PER_PAGE: usize = 50;

/// The slices of one node with `NODE` in the place of its name, as JSON without the brackets of a list.
fn node_template() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../driver/resource/tests/golden/models/h100-80.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let slices: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let of_gpu = |value: &Value, gpu: usize| -> Value {
        serde_json::from_str(&value.to_string().replace("97722eb3", &format!("{gpu:08x}"))).unwrap()
    };
    let set = &slices[0]["spec"]["sharedCounters"][0];
    let sets: Vec<Value> = (0..GPUS).map(|gpu| of_gpu(set, gpu)).collect();
    let devices = slices[1]["spec"]["devices"].as_array().unwrap();
    let first: Vec<&Value> =
        devices.iter().filter(|device| device["name"].as_str().unwrap().contains("97722eb3")).collect();
    let all: Vec<Value> = (0..GPUS).flat_map(|gpu| first.iter().map(move |device| of_gpu(device, gpu))).collect();
    let chunks: Vec<&[Value]> = all.chunks(64).collect();
    let slice = |at: usize, field: &str, content: Value| {
        let pool = json!({"name": "NODE", "generation": 1, "resourceSliceCount": chunks.len() + 1});
        let name = format!("{at:05x}-gpu.nvidia.com-NODE");
        let spec = json!({"driver": "gpu.nvidia.com", "nodeName": "NODE", "pool": pool, field: content});
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": name}, "spec": spec})
            .to_string()
    };
    let counters = slice(0, "sharedCounters", json!(sets));
    let devices = chunks.iter().enumerate().map(|(at, chunk)| slice(at + 1, "devices", json!(chunk)));
    std::iter::once(counters).chain(devices).collect::<Vec<_>>().join(",")
}

fn node(number: usize) -> String {
    format!("gpu-node-{number:04}")
}

/// Every GPU is in use: six alone, one by MIG, one by MPS.
fn claims_of(number: usize) -> Vec<Value> {
    let held = |gpu: usize, suffix: &str, share: Option<Value>| {
        let mut result = json!({"request": "gpu", "driver": "gpu.nvidia.com", "pool": node(number), "device": format!("gpu-{gpu:08x}{suffix}")});
        if let Some(consumed) = share {
            result["shareID"] = json!("5a9a0f6c-0d0f-4b6b-9c57-6b1c3a7d2f10");
            result["consumedCapacity"] = consumed;
        }
        json!({
            "metadata": {"namespace": "team", "name": format!("claim-{number}-{gpu}{suffix}"), "uid": "5a9a0f6c-0d0f-4b6b-9c57-6b1c3a7d2f10"},
            "spec": {"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu.nvidia.com", "allocationMode": "ExactCount", "count": 1}}]}},
            "status": {
                "allocation": {"devices": {"results": [result]}, "allocationTimestamp": "2026-11-30T10:00:00Z"},
                "reservedFor": [{"resource": "pods", "name": format!("pod-{number}-{gpu}"), "uid": "u"}],
            },
        })
    };
    let mut claims: Vec<Value> = (0..6).map(|gpu| held(gpu, "", None)).collect();
    claims.push(held(6, "-mig-19-0", None));
    claims.push(held(7, "-mps", Some(json!({"memory": "8Gi", "activeThreadPercentage": "10"}))));
    claims
}

fn classes() -> Classes {
    let expression = r#"device.driver == "gpu.nvidia.com" && device.attributes["gpu.nvidia.com"].type == "gpu""#;
    let mps = r#"device.driver == "gpu.nvidia.com" && device.attributes["gpu.nvidia.com"].type == "shared-gpu" && device.attributes["gpu.nvidia.com"].sharingStrategy == "MPS""#;
    let class = |name: &str, text: &str| json!({"metadata": {"name": name}, "spec": {"selectors": [{"cel": {"expression": text}}]}});
    let items = [class("gpu.nvidia.com", expression), class("mps.gpu.nvidia.com", mps)];
    let mut classes = Classes::default();
    classes.add_page(json!({"items": items}).to_string().as_bytes()).unwrap();
    classes
}

fn subject(count: u32) -> Subject {
    let exactly = json!({"deviceClassName": "gpu.nvidia.com", "count": count});
    let claim = json!({"spec": {"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}}});
    let claims = vec![subject::claim("team/new", &claim).unwrap()];
    let pod = Some(subject::pod(&json!({"spec": {}})).unwrap());
    Subject { what: "pod team/new".to_owned(), pod, claims, events: Vec::new() }
}

fn megabytes(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// The promises of SPECIFICATION.md.
const MAX_TIME: Duration = Duration::from_secs(2);
const MAX_MEMORY_MIB: u64 = 200;

/// The pools, the time that reading them took, and the bytes of their JSON.
fn read_slices() -> (Pools, Duration, usize) {
    let template = node_template();
    let mut reader = SliceReader::default();
    let (mut slices, mut bytes) = (Duration::ZERO, 0);
    for first in (0..NODES).step_by(NODES_PER_PAGE) {
        let page: Vec<String> =
            (first..first + NODES_PER_PAGE).map(|number| template.replace("NODE", &node(number))).collect();
        let page = format!(r#"{{"metadata":{{}},"items":[{}]}}"#, page.join(","));
        bytes += page.len();
        let start = Instant::now();
        reader.add_page(page.as_bytes()).unwrap();
        slices += start.elapsed();
    }
    let start = Instant::now();
    let pools = reader.pools();
    slices += start.elapsed();
    (pools, slices, bytes)
}

fn read_claims() -> (Usage, Duration) {
    let mut usage = Usage::default();
    let claims: Vec<Value> = (0..NODES).flat_map(claims_of).collect();
    let mut listed = Duration::ZERO;
    for page in claims.chunks(250) {
        let page = json!({"metadata": {}, "items": page}).to_string();
        let start = Instant::now();
        usage.add_page(page.as_bytes()).unwrap();
        listed += start.elapsed();
    }
    (usage, listed)
}

fn main() -> ExitCode {
    let (pools, slices, bytes) = read_slices();
    let (usage, listed) = read_claims();
    println!("slices   {slices:>10.2?}  {} MB of JSON", bytes / 1_000_000);
    println!("claims   {listed:>10.2?}");

    let start = Instant::now();
    let seen = status::Seen {
        pools: &pools,
        usage: &usage,
        waiting: &[],
        driver: "gpu.nvidia.com",
        server_version: String::new(),
        incomplete: Vec::new(),
    };
    let text = status::table(
        &status::status(seen, &status::Listed::Namespace("none".to_owned())),
        status::View::Short,
        Colours::Off,
    );
    let took = start.elapsed();
    let mut slowest = took + slices + listed;
    println!("status   {took:>10.2?}  {} lines, in all {:.2?}", text.lines().count(), took + slices + listed);

    let classes = classes();
    let nodes: Vec<NodeFacts> = pools.nodes().map(|name| NodeFacts::unread(name.clone())).collect();
    for count in [1, 4] {
        let start = Instant::now();
        let seen = why::Seen { pools: &pools, usage: &usage, classes: &classes, nodes: &nodes };
        let found = why::why(&subject(count), seen, Vec::new());
        let text = why_table::table(&found, Clock::now(), Colours::Off);
        let took = start.elapsed();
        slowest = slowest.max(took + slices + listed);
        println!(
            "why {count} GPU{:>12.2?}  {} lines, in all {:.2?}",
            took,
            text.lines().count(),
            took + slices + listed
        );
    }
    let memory = megabytes("VmHWM");
    println!("memory   {memory:>7} MiB at most, with the pages");
    let holds = slowest <= MAX_TIME && memory <= MAX_MEMORY_MIB;
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
