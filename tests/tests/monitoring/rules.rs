// SPDX-License-Identifier: Apache-2.0
//! What holds for every rule of the chart.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use dra_tests::chart::rendered;
use dra_tests::prometheus::promtool;
use serde_json::{Value, json};

use crate::documents::{document, recorded, series, unknown_series};
use crate::objects::groups;
use crate::promql::check_syntax;

/// Every rule of the groups.
fn rules(groups: &Value) -> Vec<Value> {
    let groups = groups["groups"].as_array().unwrap().iter();
    groups.flat_map(|group| group["rules"].as_array().unwrap()).cloned().collect()
}

/// Every alert of the chart.
pub(crate) fn alerts(settings: &[&str]) -> Vec<Value> {
    rules(&groups(settings)).into_iter().filter(|rule| rule.get("alert").is_some()).collect()
}

fn names(alerts: &[Value]) -> BTreeSet<String> {
    alerts.iter().map(|alert| alert["alert"].as_str().unwrap().to_owned()).collect()
}

/// Runs unit tests of promtool on the rules of the chart.
pub(crate) fn test_rules(tests: &[Value]) -> Result<String, String> {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, value: &Value| fs::write(dir.path().join(name), value.to_string()).unwrap();
    write("rules.yaml", &groups(&[]));
    write("tests.yaml", &json!({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}));
    promtool(&["test", "rules", dir.path().join("tests.yaml").to_str().unwrap()])
}

#[test]
fn prometheus_accepts_the_rules() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rules.yaml");
    fs::write(&path, groups(&[]).to_string()).unwrap();
    let checked = promtool(&["check", "rules", path.to_str().unwrap()]).unwrap();
    assert!(checked.contains(&format!("{} rules found", rules(&groups(&[])).len())), "{checked}");
}

#[test]
fn every_series_of_a_rule_is_documented() {
    let documented = series();
    let rules = rules(&groups(&[]));
    for rule in &rules {
        let unknown = unknown_series(rule["expr"].as_str().unwrap(), &documented);
        assert!(unknown.is_empty(), "docs/monitoring.md does not have {unknown:?} of {rule}");
    }
    let records: Vec<&str> = rules.iter().filter_map(|rule| rule["record"].as_str()).collect();
    assert_eq!(records.iter().copied().map(str::to_owned).collect::<BTreeSet<_>>(), recorded());
    check_syntax(
        &rules.iter().map(|rule| ("rule".to_owned(), rule["expr"].as_str().unwrap().to_owned())).collect::<Vec<_>>(),
    );
}

#[test]
fn every_alert_has_what_an_administrator_needs() {
    for alert in alerts(&["monitoring.prometheusRule.runbookUrl=https://runbooks.example.com/"]) {
        let name = alert["alert"].as_str().unwrap();
        assert!(name.starts_with("Gpu") && name.chars().all(|c| c.is_ascii_alphanumeric()), "{name}");
        let severity = alert["labels"]["severity"].as_str().unwrap_or_default();
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
        assert!(alert["for"].as_str().is_some_and(|duration| duration.ends_with('m')), "{alert}");
        for annotation in ["summary", "description"] {
            let text = alert["annotations"][annotation].as_str().unwrap_or_default();
            assert!(text.len() > 20 && !text.contains('@'), "{name}: {annotation} is {text:?}");
            assert_eq!(text.ends_with('.'), annotation == "description", "{name}: {text}");
        }
        let runbook = format!("https://runbooks.example.com/{}", name.to_lowercase());
        assert_eq!(alert["annotations"]["runbook_url"], runbook);
    }
}

#[test]
fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
    let runbooks = document("runbooks.md");
    let headings = runbooks.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_owned);
    assert_eq!(headings.collect::<BTreeSet<_>>(), names(&alerts(&[])));
    for section in runbooks.split("\n## ").skip(1) {
        let parts = section.split("\n\n**").skip(1).filter_map(|part| part.split("**").next());
        assert_eq!(parts.collect::<Vec<_>>(), ["Means", "Look", "Do", "Ends"], "{section}");
    }
    let default = alerts(&[])[0]["annotations"]["runbook_url"].as_str().unwrap().to_owned();
    assert!(default.starts_with("docs/runbooks.md#"), "{default}");
}

#[test]
fn the_commands_of_the_runbooks_are_valid_shell() {
    let runbooks = document("runbooks.md");
    let blocks: Vec<&str> = runbooks.split("```sh\n").skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect();
    assert!(blocks.len() > 10, "{} blocks are few", blocks.len());
    for block in blocks {
        let checked = Command::new("bash").args(["-n", "-c", block]).output().unwrap();
        assert!(checked.status.success(), "{block}: {}", String::from_utf8_lossy(&checked.stderr));
    }
}

#[test]
fn thresholds_are_those_of_the_values() {
    for (setting, alert, expect) in [
        ("utilizationPercent=70", "GpuUtilizationHigh", "> 70"),
        ("memoryPercent=80", "GpuMemoryNearlyFull", "> 80"),
        ("temperatureCelsius=75", "GpuTemperatureHigh", "> 75"),
        ("powerPercent=99", "GpuPowerNearLimit", "> 99"),
        ("mpsDaemonExitsPerHour=0", "GpuMpsDaemonsExit", "> 0"),
        ("pendingMinutes=45", "GpuPodsPending", "> 0"),
    ] {
        let alerts = alerts(&[&format!("monitoring.prometheusRule.thresholds.{setting}")]);
        let found = alerts.iter().find(|one| one["alert"] == alert).unwrap();
        assert!(found["expr"].as_str().unwrap().ends_with(expect), "{setting}: {found}");
        if setting.starts_with("pendingMinutes") {
            assert_eq!(found["for"], "45m");
        }
    }
}

#[test]
fn alerts_can_be_left_out() {
    let all = names(&alerts(&[]));
    let some = names(&alerts(&["monitoring.prometheusRule.disabledAlerts={GpuUtilizationHigh,GpuPodsPending}"]));
    let left_out: Vec<_> = all.difference(&some).collect();
    assert_eq!(left_out, ["GpuPodsPending", "GpuUtilizationHigh"]);
    let settings = ["monitoring.prometheusRule.enabled=true", "monitoring.prometheusRule.disabledAlerts={GpuHot}"];
    let refused = rendered(&settings).unwrap_err();
    assert!(refused.contains("disabledAlerts has GpuHot: it must be one of GpuUtilizationHigh, "), "{refused}");
}
