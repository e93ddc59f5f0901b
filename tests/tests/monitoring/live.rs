// SPDX-License-Identifier: Apache-2.0
//! A real Prometheus scrapes plugin, controller and MPS host of a simulated node, and runs every query of the chart.

use std::collections::BTreeSet;
use std::fs;

use dra_sim::state::Process;
use dra_tests::chart::cache_dir;
use dra_tests::claim::NAMESPACE;
use dra_tests::node::{DRIVER, NODE};
use dra_tests::program::Program;
use dra_tests::prometheus::{Alertmanager, Prometheus, Target};
use dra_tests::{Mode, MpsHost, NewClaim, Node};
use serde_json::{Value, json};

use crate::dashboards::{dashboards, panels, queries};
use crate::documents::series;
use crate::objects::groups;
use crate::promql::selectors;
use crate::rules::alerts;

/// Documented series that this node does not have, because nothing of the kind happened to it.
const ABSENT: [&str; 1] = ["gpu_dra_mps_daemon_starts_total"];

/// Panels that are empty on this node, which is idle: they show only what is slowed down.
const EMPTY: [&str; 1] = ["Slowed clocks"];

/// Alerts whose expressions are true on this node, of which two of six GPUs are lost and the budget is one.
const FIRING: [&str; 2] = ["GpuEvictionHeldBack", "GpuLost"];

/// A share of a GPU, as the scheduler counts it.
fn share(device: &str, capacity: &Value) -> Value {
    json!({
        "request": "share", "driver": DRIVER, "pool": NODE, "device": device,
        "shareID": "00000000-0000-0000-0000-000000000001", "consumedCapacity": capacity,
    })
}

/// A process that uses 512 MiB of a GPU, as the node shows it and the pod that it belongs to.
fn run_process(node: &mut Node, gpu: usize, pod: &str) {
    let (processes, logs) = (node.dir().join("host-proc"), node.dir().join("pod-logs"));
    fs::create_dir_all(processes.join("4711")).unwrap();
    fs::write(processes.join("4711/cgroup"), format!("0::/kubepods/pod{}/a", uid_of(pod))).unwrap();
    fs::create_dir_all(logs.join(format!("{NAMESPACE}_{pod}_{}", uid_of(pod)))).unwrap();
    node.flags = vec![format!("--host-proc={}", processes.display()), format!("--pod-logs={}", logs.display())];
    node.gpus.change(|state| {
        state.gpus[gpu].processes.push(Process { pid: 4711, gpu_instance: None, memory_mib: Some(512) });
        Ok(())
    });
}

/// The UID of a pod of a claim, each claim having one.
fn uid_of(pod: &str) -> String {
    format!("0d8a9a4f-5b1c-4a57-9d0c-{:0>12}", pod.len())
}

/// Claims of every form; a process of an application gets an XID, and two GPUs fall off the bus.
async fn use_and_lose_gpus(node: &Node, cut: &str) {
    let mps = json!({"memory": "8Gi", "activeThreadPercentage": "10"});
    let claims = [
        ("whole", NewClaim::of("whole", &node.gpus.name(0))),
        ("mps", NewClaim::new("mps").result(share(&format!("{}-mps", node.gpus.name(1)), &mps))),
        (
            "slices",
            NewClaim::new("slices").result(share(&format!("{}-ts", node.gpus.name(2)), &json!({"shares": "1"}))),
        ),
        ("static", NewClaim::of("static", cut)),
        // Created for the claim.
        ("dynamic", NewClaim::of("dynamic", &format!("{}-mig-19-0", node.gpus.name(3)))),
    ];
    for (name, claim) in claims {
        let claim = claim.pod(name, &uid_of(name)).create(&node.api);
        node.kubelet.prepare(&claim).await.unwrap();
    }
    node.gpus.change(|state| {
        state.raise_xid(0, 31, (None, None))?;
        state.lose_gpu(4)?;
        state.lose_gpu(5)
    });
}

fn target(program: &Program, container: &str) -> Target {
    (program.http_address().to_owned(), json!({"node": NODE, "container": container}))
}

/// Whether each series that an expression selects is one that Prometheus has.
fn is_answerable(expression: &str, names: &BTreeSet<String>) -> bool {
    selectors(expression).iter().all(|selector| names.contains(&selector.name))
}

async fn check_panels(prometheus: &Prometheus, names: &BTreeSet<String>) {
    let mut answered = 0;
    for (file, dashboard) in dashboards() {
        for panel in panels(&dashboard) {
            let (title, place) = (panel["title"].as_str().unwrap(), format!("{file}, {}", panel["title"]));
            for query in queries(panel) {
                let samples = prometheus.query(&query).await.unwrap_or_else(|error| panic!("{place}: {error}"));
                if EMPTY.contains(&title) {
                    assert!(samples.is_empty(), "{place} is no longer empty");
                } else if is_answerable(&query, names) {
                    // Rates need several scrapes.
                    prometheus.until_data(&query).await;
                    answered += 1;
                }
            }
        }
    }
    assert!(answered > 60, "{answered} queries have data, which are few");
}

async fn check_rules(prometheus: &Prometheus, names: &BTreeSet<String>) {
    let mut firing = BTreeSet::new();
    for alert in alerts(&[]) {
        let (name, expression) = (alert["alert"].as_str().unwrap(), alert["expr"].as_str().unwrap());
        let samples = prometheus.query(expression).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        if !samples.is_empty() {
            firing.insert(name.to_owned());
        }
    }
    assert_eq!(firing, FIRING.map(str::to_owned).into(), "on a node that has lost two GPUs and is else well");
    let groups = groups(&[]);
    let rules = groups["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap());
    for rule in rules.filter(|rule| rule.get("record").is_some()) {
        let expression = rule["expr"].as_str().unwrap();
        prometheus.query(expression).await.unwrap_or_else(|error| panic!("{}: {error}", rule["record"]));
        if is_answerable(expression, names) {
            // The rule is evaluated, and its series recorded.
            prometheus.until_data(rule["record"].as_str().unwrap()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_prometheus_answers_every_query_about_a_real_plugin() {
    let mut node = Node::new("h100:6");
    run_process(&mut node, 1, "mps");
    let _daemons = MpsHost::start(&node.mps_root());
    // The time slices are set by NVIDIA's own program.
    let installed = node.gpus.install_programs(&cache_dir().join("nvidia"));
    assert!(installed.contains(&"nvidia-smi"), "no nvidia-smi: run `make setup` first");
    let cut = node.gpus.cut(3, "1g.10gb");
    let plugin = node.start(Mode::Process).await;
    let controller = node.start_controller("1");
    let flag = |name: &str| format!("--{name}={}", node.dir().join(name).display());
    let mps_host = Program::mps_host(["root", "driver-root"].map(flag).into(), node.dir());
    let targets = [target(&plugin, "plugin"), target(&controller, "controller"), target(&mps_host, "mps-host")];
    let prometheus = Prometheus::start(&targets, &groups(&[])).await;
    for container in ["plugin", "controller", "mps-host"] {
        prometheus.until_data(&format!("up{{job=\"gpu-dra-driver\", container=\"{container}\"}} == 1")).await;
    }
    // Rates see an increase from 0 only.
    prometheus.until_data("gpu_dra_gpu_healthy == 1").await;
    use_and_lose_gpus(&node, &cut).await;
    let documented = series();
    let expected = documented.keys().filter(|name| !ABSENT.contains(&name.as_str())).cloned().collect();
    let names = prometheus.until_names(&expected).await;
    for name in &expected {
        let container = documented[name].process.to_lowercase().replace(' ', "-").replace("all", ".+");
        let samples = prometheus.query(&format!("{name}{{container=~\"{container}\"}}")).await.unwrap();
        assert!(!samples.is_empty(), "{name} is not of the container {container}");
    }
    let unlisted: Vec<_> =
        names.iter().filter(|name| name.starts_with("gpu_dra_") && !expected.contains(*name)).collect();
    assert!(unlisted.is_empty(), "docs/monitoring.md does not list {unlisted:?}, or they are no longer absent");
    check_panels(&prometheus, &names).await;
    check_rules(&prometheus, &names).await;
    prometheus.until_data("ALERTS{alertname=\"GpuLost\", alertstate=\"pending\"}").await;
}

/// The same rules without their time to wait.
fn at_once(mut groups: Value) -> Value {
    let groups_of = groups["groups"].as_array_mut().unwrap();
    for rule in groups_of.iter_mut().flat_map(|group| group["rules"].as_array_mut().unwrap()) {
        if rule.get("for").is_some() {
            rule["for"] = json!("0s");
        }
    }
    groups
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_fires_when_a_gpu_is_lost_and_resolves_when_it_is_back() {
    let node = Node::new("h100:2");
    let plugin = node.start(Mode::Process).await;
    let alertmanager = Alertmanager::start().await;
    let targets = [target(&plugin, "plugin")];
    let prometheus = Prometheus::with_alertmanager(&targets, &at_once(groups(&[])), Some(&alertmanager)).await;
    prometheus.until_data("gpu_dra_gpu_healthy == 1").await;
    alertmanager.until_alerts("GpuLost", |alerts| alerts.is_empty().then_some(())).await;
    node.gpus.change(|state| state.lose_gpu(1));
    let labels = alertmanager.until_alerts("GpuLost", |alerts| alerts.first().map(|one| one["labels"].clone())).await;
    assert_eq!(
        [&labels["node"], &labels["device"], &labels["severity"]],
        [NODE, &node.gpus.name(1), "critical"],
        "{labels}"
    );
    node.gpus.change(|state| {
        state.gpus[1].lost = false;
        Ok(())
    });
    alertmanager.until_alerts("GpuLost", |alerts| alerts.is_empty().then_some(())).await;
}
