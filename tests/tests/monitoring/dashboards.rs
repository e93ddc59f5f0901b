// SPDX-License-Identifier: Apache-2.0
//! What holds for every dashboard of the chart.

use std::collections::BTreeSet;
use std::fs;

use dra_tests::source::root_dir;
use serde_json::{Value, json};

use crate::documents::{series, unknown_series};
use crate::promql::check_syntax;
use crate::rules::test_rules;

/// Kinds of panels that every Grafana since version 10 has.
const PANELS: [&str; 4] = ["timeseries", "stat", "table", "bargauge"];

/// Every dashboard with the name of its file.
pub(crate) fn dashboards() -> Vec<(String, Value)> {
    let dir = root_dir().join("deploy/chart/dashboards");
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: std::path::PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap())
    };
    paths.into_iter().map(read).collect()
}

fn rows_and_panels(dashboard: &Value) -> &[Value] {
    dashboard["panels"].as_array().unwrap()
}

/// The panels with data.
pub(crate) fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    rows_and_panels(dashboard).iter().filter(|panel| panel["type"] != "row")
}

/// The queries of a panel, with everything selected in each variable.
pub(crate) fn queries(panel: &Value) -> Vec<String> {
    let targets = panel["targets"].as_array().unwrap().iter();
    targets.map(|target| substituted(target["expr"].as_str().unwrap())).collect()
}

/// The values of the variables in all dashboards when everything is selected.
fn substituted(query: &str) -> String {
    let variables = ["cluster", "node", "device", "namespace", "claim"];
    let query = query.replace("$__rate_interval", "5m");
    variables.iter().fold(query, |query, variable| query.replace(&format!("=~\"${variable}\""), "=~\".*\""))
}

fn place(file: &str, panel: &Value) -> String {
    format!("{file}, {}", panel["title"])
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

#[test]
fn dashboards_can_be_provisioned() {
    let dashboards = dashboards();
    let uids: BTreeSet<_> = dashboards.iter().map(|(_, dashboard)| text(dashboard, "uid")).collect();
    assert_eq!(uids.len(), 3, "{uids:?}");
    for (file, dashboard) in &dashboards {
        let uid = text(dashboard, "uid");
        assert!((1..=40).contains(&uid.len()) && uid.starts_with("gpu-dra-"), "{file}: {uid}");
        assert_eq!(dashboard.get("id"), Some(&Value::Null), "{file}");
        assert_eq!(dashboard["schemaVersion"], 42, "{file}");
        assert_eq!(dashboard["editable"], false, "{file}");
        assert!(dashboard.get("__inputs").is_none(), "{file}");
        assert!(dashboard["tags"].as_array().unwrap().contains(&json!("gpu-dra-driver")), "{file}");
        assert!(text(dashboard, "title").starts_with("GPUs: ") && text(dashboard, "description").len() > 20, "{file}");
    }
}

#[test]
fn every_data_source_and_variable_is_one_of_the_dashboard() {
    let source = json!({"type": "prometheus", "uid": "${datasource}"});
    for (file, dashboard) in dashboards() {
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        assert_eq!(
            (&variables[0]["name"], &variables[0]["type"]),
            (&json!("datasource"), &json!("datasource")),
            "{file}"
        );
        let names: BTreeSet<_> = variables.iter().map(|variable| text(variable, "name")).collect();
        for variable in &variables[1..] {
            assert_eq!(variable["datasource"], source, "{file}: {variable}");
            assert!(text(variable, "definition").starts_with("label_values("), "{file}: {variable}");
            assert_eq!(variable["definition"], variable["query"]["query"], "{file}: {variable}");
        }
        for panel in panels(&dashboard) {
            assert_eq!(panel["datasource"], source, "{}", place(&file, panel));
            for target in panel["targets"].as_array().unwrap() {
                assert_eq!(target["datasource"], source, "{}", place(&file, panel));
            }
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let used =
                panel["targets"].as_array().unwrap().iter().flat_map(|target| text(target, "expr").split('$').skip(1));
            let used = used.map(|rest| &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())]);
            // `$1` is of label_replace.
            for variable in used.filter(|name| *name != "1" && *name != "__rate_interval") {
                assert!(names.contains(variable), "{}: ${variable}", place(&file, panel));
            }
        }
    }
}

#[test]
fn every_panel_has_a_kind_a_unit_and_a_description() {
    for (file, dashboard) in dashboards() {
        let mut ids = BTreeSet::new();
        let mut titles = BTreeSet::new();
        for panel in rows_and_panels(&dashboard) {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{} has the id of another", place(&file, panel));
        }
        for panel in panels(&dashboard) {
            let place = place(&file, panel);
            assert!(PANELS.contains(&text(panel, "type")), "{place} is a {}", panel["type"]);
            assert!(titles.insert(text(panel, "title")), "{place} is there twice");
            assert!(!text(&panel["fieldConfig"]["defaults"], "unit").is_empty(), "{place} has no unit");
            let description = text(panel, "description");
            assert!(description.len() > 15 && description.ends_with('.'), "{place} is described as {description:?}");
            assert!(!panel["targets"].as_array().unwrap().is_empty(), "{place} has no query");
        }
    }
}

#[test]
fn panels_do_not_overlap() {
    for (file, dashboard) in dashboards() {
        let mut taken = BTreeSet::new();
        for panel in rows_and_panels(&dashboard) {
            let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            assert!(at("x") + at("w") <= 24, "{} is too wide", place(&file, panel));
            for (x, y) in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
                assert!(taken.insert((x, y)), "{} lies on another", place(&file, panel));
            }
        }
    }
}

#[test]
fn every_series_of_a_panel_or_variable_is_documented() {
    let documented = series();
    let mut expressions = Vec::new();
    for (file, dashboard) in dashboards() {
        for panel in panels(&dashboard) {
            expressions.extend(queries(panel).into_iter().map(|query| (place(&file, panel), query)));
        }
        for variable in &dashboard["templating"]["list"].as_array().unwrap()[1..] {
            let inside = text(variable, "definition").trim_start_matches("label_values(").trim_end_matches(')');
            let (selector, label) = inside.rsplit_once(", ").unwrap();
            expressions.push((format!("{file}, variable {}", variable["name"]), substituted(selector)));
            let name = selector.split('{').next().unwrap();
            let is_known = documented[name].labels.contains(label) || ["node", "cluster"].contains(&label);
            assert!(is_known, "{file}: {name} has no label {label}");
        }
    }
    assert!(expressions.len() > 60, "{} expressions are few", expressions.len());
    for (place, expression) in &expressions {
        assert!(!expression.contains('$') || expression.contains("\"$1\""), "{place}: {expression}");
        let unknown = unknown_series(expression, &documented);
        assert!(unknown.is_empty(), "docs/monitoring.md does not have {unknown:?} of {place}");
    }
    check_syntax(&expressions);
}

/// The query of a panel.
fn query(title: &str) -> String {
    let dashboards = dashboards();
    let mut panels = dashboards.iter().flat_map(|(_, dashboard)| panels(dashboard));
    queries(panels.find(|panel| panel["title"] == title).unwrap()).remove(0)
}

fn samples(samples: &[(&str, u64)]) -> Value {
    samples.iter().map(|(labels, value)| json!({"labels": format!("{{{labels}}}"), "value": value})).collect()
}

/// The same series come from both plugins of a node during an upgrade.
#[test]
fn memory_of_pods_is_compared_with_the_limits_of_their_claims() {
    let device = r#"namespace="team",request="r",device="gpu-1-mps",gpu="gpu-1""#;
    let claim = |claim: &str| {
        format!("gpu_dra_claim_memory_limit_bytes{{node=\"n1\",{device},claim=\"{claim}\",share_id=\"{claim}\"}}")
    };
    let pod = |instance: &str, pod: &str, claim: &str| {
        format!(
            "gpu_dra_claim_pod_info{{node=\"n1\",instance=\"{instance}\",namespace=\"team\",pod=\"{pod}\",claim=\"{claim}\"}}"
        )
    };
    let used = |instance: &str, pod: &str| {
        format!(
            "gpu_dra_pod_memory_used_bytes{{node=\"n1\",instance=\"{instance}\",namespace=\"team\",pod=\"{pod}\",gpu=\"gpu-1\"}}"
        )
    };
    let input = [
        (claim("one"), 8),
        (claim("two"), 8),
        (claim("three"), 8),
        // Two pods of one claim, and one pod of two claims, whose memory cannot be divided among them.
        (pod("old", "a", "one"), 1),
        (pod("new", "a", "one"), 1),
        (pod("new", "b", "one"), 1),
        (pod("new", "c", "two"), 1),
        (pod("new", "c", "three"), 1),
        (used("old", "a"), 4),
        (used("new", "a"), 4),
        (used("new", "b"), 2),
        (used("new", "c"), 8),
    ];
    let input = input.map(|(series, value)| json!({"series": series, "values": format!("{value}+0x5")}));
    let of_one = r#"node="n1",namespace="team",claim="one",gpu="gpu-1""#;
    let expect =
        |title: &str, expected: Value| json!({"expr": query(title), "eval_time": "1m", "exp_samples": expected});
    let mut part = samples(&[(of_one, 1)]);
    part[0]["value"] = json!(0.75);
    let test = json!({"interval": "1m", "input_series": input, "promql_expr_test": [
        expect("Memory in use of what was promised", part),
        expect("Memory promised to shares", samples(&[("", 24)])),
        expect("Memory in use by pods", samples(&[("", 14)])),
        expect("Pods", samples(&[("", 3)])),
    ]});
    test_rules(&[test]).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn gpus_that_are_free_idle_or_failed_are_counted_once() {
    let gpu = |name: &str, labels: &str| format!("gpu_dra_{name}{{node=\"n1\",{labels}}}");
    let share = |claim: &str, id: u8| {
        let device = format!("device=\"gpu-1-mps\",share_id=\"{id}\",gpu=\"gpu-1\"");
        gpu("claim_device_info", &format!("namespace=\"team\",claim=\"{claim}\",form=\"mps\",{device}"))
    };
    let whole = "namespace=\"team\",claim=\"c\",form=\"gpu\",device=\"gpu-2\",gpu=\"gpu-2\"";
    let input = [
        (gpu("gpu_info", "device=\"gpu-1\""), 1.0),
        (gpu("gpu_info", "device=\"gpu-2\""), 1.0),
        (gpu("gpu_info", "device=\"gpu-3\""), 1.0),
        // Both plugins of an upgrade have the series.
        (gpu("gpu_healthy", "device=\"gpu-1\",pod=\"old\""), 0.0),
        (gpu("gpu_healthy", "device=\"gpu-1\",pod=\"new\""), 0.0),
        (gpu("gpu_healthy", "device=\"gpu-2\",pod=\"new\""), 1.0),
        (gpu("gpu_healthy", "device=\"gpu-3\",pod=\"new\""), 1.0),
        // Lost, and therefore without any other series.
        (gpu("gpu_healthy", "device=\"gpu-4\",pod=\"new\""), 0.0),
        (gpu("gpu_utilization_ratio", "device=\"gpu-1\""), 0.06),
        (gpu("gpu_utilization_ratio", "device=\"gpu-2\""), 0.04),
        (gpu("gpu_utilization_ratio", "device=\"gpu-3\""), 0.0),
        (share("a", 1), 1.0),
        (share("b", 2), 1.0),
        (share("b", 3), 1.0),
        (gpu("claim_device_info", whole), 1.0),
    ];
    let input = input.map(|(series, value)| json!({"series": series, "values": format!("{value}+0x5")}));
    let expected = [
        ("GPUs", 4),
        ("GPUs without a claim", 1),
        ("Claimed and idle", 1),
        ("Unhealthy GPUs", 2),
        ("Devices on unhealthy GPUs", 3),
        ("Devices on idle GPUs", 1),
        ("Claims", 3),
    ];
    let expected = expected
        .map(|(title, count)| json!({"expr": query(title), "eval_time": "1m", "exp_samples": samples(&[("", count)])}));
    let test = json!({"interval": "1m", "input_series": input, "promql_expr_test": expected});
    test_rules(&[test]).unwrap_or_else(|error| panic!("{error}"));
}
