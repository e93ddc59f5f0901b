// SPDX-License-Identifier: Apache-2.0
//! The objects that the values `monitoring` of the chart create.

use std::fs;

use dra_tests::chart::{documents, rendered, rendered_with};
use dra_tests::source::root_dir;
use serde_json::{Value, json};

/// The only object of a kind that these values create.
pub(crate) fn object(kind: &str, settings: &[&str]) -> Value {
    let chart = rendered(settings).unwrap();
    let found = documents(&chart, kind);
    let [document] = found.as_slice() else { panic!("{} documents {kind}", found.len()) };
    parsed(document)
}

fn parsed(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap()
}

/// The groups of the PrometheusRule, as Prometheus reads them from a file.
pub(crate) fn groups(settings: &[&str]) -> Value {
    let settings = [&["monitoring.prometheusRule.enabled=true"], settings].concat();
    object("PrometheusRule", &settings)["spec"].clone()
}

#[test]
fn nothing_is_created_by_default() {
    let chart = rendered(&[]).unwrap();
    assert!(!chart.contains("monitoring.coreos.com") && !chart.contains("grafana"), "{chart}");
}

#[test]
fn every_port_is_scraped_and_every_series_has_the_node() {
    let monitor = object("PodMonitor", &["monitoring.podMonitor.enabled=true"]);
    let endpoints = monitor["spec"]["podMetricsEndpoints"].as_array().unwrap();
    let ports: Vec<_> = endpoints.iter().map(|endpoint| endpoint["port"].as_str().unwrap()).collect();
    assert_eq!(ports, ["plugin-http", "controller-http", "mps-http"]);
    let chart = rendered(&[]).unwrap();
    for (endpoint, port) in endpoints.iter().zip(ports) {
        assert!(chart.contains(&format!("- name: {port}\n")), "no container has the port {port}");
        let node = json!([{"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"}]);
        assert_eq!(endpoint["relabelings"], node);
        assert_eq!(endpoint["honorLabels"] == json!(true), port == "plugin-http", "{endpoint}");
        assert_eq!(endpoint["interval"], Value::Null);
    }
    for (key, value) in monitor["spec"]["selector"]["matchLabels"].as_object().unwrap() {
        let label = format!("\n        {key}: {}\n", value.as_str().unwrap());
        for daemon_set in documents(&chart, "DaemonSet").iter().filter(|one| one.contains("containerPort")) {
            assert!(daemon_set.contains(&label), "a DaemonSet has no {label}");
        }
    }
    let without_mps =
        ["monitoring.podMonitor.enabled=true", "mps.enabled=false", "sharing.forms={gpu,mig,timeSlicing}"];
    assert_eq!(object("PodMonitor", &without_mps)["spec"]["podMetricsEndpoints"].as_array().unwrap().len(), 2);
}

#[test]
fn labels_annotations_and_interval_are_settable() {
    let monitor = object(
        "PodMonitor",
        &[
            "monitoring.podMonitor.enabled=true",
            "monitoring.podMonitor.labels.release=prometheus",
            "monitoring.podMonitor.annotations.team=gpu",
            "monitoring.podMonitor.interval=15s",
        ],
    );
    assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
    assert_eq!(monitor["metadata"]["annotations"], json!({"team": "gpu"}));
    assert_eq!(monitor["spec"]["podMetricsEndpoints"][2]["interval"], "15s");
    let rule = object(
        "PrometheusRule",
        &["monitoring.prometheusRule.enabled=true", "monitoring.prometheusRule.labels.release=prometheus"],
    );
    assert_eq!(rule["metadata"]["labels"]["release"], "prometheus");
}

#[test]
fn values_that_prometheus_would_refuse_are_refused() {
    for (setting, word) in [
        ("monitoring.podMonitor.interval=30seconds", "interval"),
        ("monitoring.serviceMonitor.enabled=true", "serviceMonitor"),
        ("monitoring.prometheusRule.runbookUrl=", "runbookUrl"),
        ("monitoring.prometheusRule.thresholds.utilizationPercent=101", "utilizationPercent"),
        ("monitoring.prometheusRule.thresholds.utilisation=90", "utilisation"),
        ("monitoring.dashboards.namespace=Monitoring", "namespace"),
    ] {
        let refused = rendered(&["monitoring.prometheusRule.enabled=true", setting]).expect_err(setting);
        assert!(refused.contains(word), "{setting}: {refused}");
    }
}

#[test]
fn the_config_map_has_the_dashboards_as_they_are() {
    let config_map = object("ConfigMap", &["monitoring.dashboards.enabled=true"]);
    assert_eq!(config_map["metadata"]["labels"]["grafana_dashboard"], "1");
    assert_eq!(config_map["metadata"]["namespace"], "gpu-dra-driver");
    let data = config_map["data"].as_object().unwrap();
    let dir = root_dir().join("deploy/chart/dashboards");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), data.len());
    for (name, text) in data {
        assert_eq!(text.as_str().unwrap(), fs::read_to_string(dir.join(name)).unwrap(), "{name}");
    }
    let size: usize = data.values().filter_map(Value::as_str).map(str::len).sum();
    assert!(size < 900_000, "an object of {size} bytes is too large for the API server");
    let settings = [
        "--set",
        "monitoring.dashboards.enabled=true,monitoring.dashboards.namespace=grafana",
        "--set-string",
        "monitoring.dashboards.labels.sidecar=1,monitoring.dashboards.annotations.place=GPUs",
    ];
    let metadata = parsed(&documents(&rendered_with(&settings).unwrap(), "ConfigMap")[0])["metadata"].clone();
    assert_eq!(metadata["namespace"], "grafana");
    assert_eq!((&metadata["labels"]["sidecar"], &metadata["annotations"]["place"]), (&json!("1"), &json!("GPUs")));
}
