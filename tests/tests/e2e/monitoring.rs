// SPDX-License-Identifier: Apache-2.0
//! The Prometheus of `make up MONITORING=1`: it finds every program of the driver, loads the rules of the chart, and knows who uses which GPU.

use crate::{
    arena::{Arena, checked},
    pods,
};
use dra_cluster::Prometheus;
use dra_demo::{monitoring, text};
use serde_json::Value;
use std::collections::BTreeSet;

crate::case::cases![a_prometheus_with_the_rules_of_the_chart_sees_every_program_gpu_and_claim];

/// The answer to a GET of the interface.
fn answer(prometheus: &Prometheus, path: &str) -> Value {
    serde_json::from_str(&checked(prometheus.get(path))).unwrap()
}

/// The series of a metric: labels and value.
fn series(prometheus: &Prometheus, metric: &str) -> Vec<(Value, String)> {
    let answer = answer(prometheus, &format!("/api/v1/query?query={metric}"));
    let found = answer["data"]["result"].as_array().unwrap();
    found.iter().map(|series| (series["metric"].clone(), text(series, "/value/1").to_owned())).collect()
}

fn a_prometheus_with_the_rules_of_the_chart_sees_every_program_gpu_and_claim(arena: &Arena) {
    pods::start(arena, "watched", "node-1", &pods::gpu(""));
    let gpu = checked(arena.stage().saw("watched")).seen.gpus[0].uuid.clone();
    let prometheus = checked(monitoring::start(&arena.cluster, &arena.repository));

    let programs = ["controller", "mps-host", "plugin"];
    let expected: BTreeSet<_> =
        ["node-1", "node-2"].into_iter().flat_map(|node| programs.map(|program| (node, program))).collect();
    arena.until("a scrape of every program on both nodes", || {
        let up = series(&prometheus, "up");
        let up = up.iter().filter(|(labels, value)| value == "1" && text(labels, "/job") != "kube-scheduler");
        let found: BTreeSet<_> = up.map(|(labels, _)| (text(labels, "/node"), text(labels, "/container"))).collect();
        (found == expected).then_some(())
    });
    assert_eq!(series(&prometheus, "gpu_dra_gpu_healthy").len(), 12);
    arena.until("the claim of the pod", || {
        let devices = series(&prometheus, "gpu_dra_claim_device_info");
        let (device, _) = devices.iter().find(|(labels, _)| labels["gpu_uuid"] == gpu.as_str())?;
        let pods = series(&prometheus, "gpu_dra_claim_pod_info");
        pods.iter().any(|(labels, _)| labels["pod"] == "watched" && labels["claim"] == device["claim"]).then_some(())
    });

    arena.until("the pods that fit nowhere, none", || {
        let pending = series(&prometheus, "max(scheduler_pending_pods)");
        (pending.first().map(|(_, value)| value.as_str()) == Some("0")).then_some(())
    });

    let evaluated = arena.until("the evaluation of every rule", || {
        let groups = answer(&prometheus, "/api/v1/rules")["data"]["groups"].as_array().cloned()?;
        let rules: Vec<Value> =
            groups.iter().filter_map(|group| group["rules"].as_array()).flatten().cloned().collect();
        (!rules.is_empty() && rules.iter().all(|rule| rule["health"] != "unknown")).then_some(rules)
    });
    let wrong: Vec<&Value> = evaluated.iter().filter(|rule| rule["health"] != "ok").collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let firing: Vec<&Value> = evaluated.iter().filter(|rule| rule["state"] == "firing").collect();
    assert!(firing.is_empty(), "{firing:#?}");
    pods::remove(arena, "watched");
}
