// SPDX-License-Identifier: Apache-2.0
//! The series that docs/monitoring.md lists, and the check of an expression against them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use dra_tests::source::root_dir;

use crate::promql::{Selector, selectors};

/// A series of the table.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) labels: BTreeSet<String>,
    pub(crate) process: String,
}

/// Series of other programs that rules and dashboards select.
const FOREIGN: [&str; 7] = [
    "up",
    "ALERTS",
    "scheduler_pending_pods",
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
    "DCGM_FI_PROF_DRAM_ACTIVE",
    "DCGM_FI_DEV_FB_USED",
];

/// Labels that a scrape adds to every series.
const SCRAPED: [&str; 2] = ["node", "cluster"];

/// A document below docs/.
pub(crate) fn document(name: &str) -> String {
    fs::read_to_string(root_dir().join("docs").join(name)).unwrap()
}

/// Cells of the rows of the tables of a section, without the heads.
fn rows(document: &str, section: &str) -> Vec<Vec<String>> {
    let lines = document.lines().skip_while(|line| *line != format!("## {section}")).skip(1);
    let lines = lines.take_while(|line| !line.starts_with("## ")).filter(|line| line.starts_with("| `"));
    lines.map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// The texts between backquotes.
fn code(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The series of the driver by full name. A histogram has three.
pub(crate) fn series() -> BTreeMap<String, Series> {
    let mut found = BTreeMap::new();
    for row in rows(&document("monitoring.md"), "Metrics") {
        let [cell, process, meaning] = row.as_slice() else { panic!("{row:?} has not three cells") };
        for item in code(cell) {
            let (name, labels) = item.split_once('{').unwrap_or((item, "}"));
            let mut labels: BTreeSet<String> =
                labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()).map(str::to_owned).collect();
            let suffixes = if meaning.contains("histogram") { &["_bucket", "_sum", "_count"][..] } else { &[""] };
            if meaning.contains("histogram") {
                labels.insert("le".to_owned());
            }
            for suffix in suffixes {
                let one = Series { labels: labels.clone(), process: process.clone() };
                let before = found.insert(format!("gpu_dra_{name}{suffix}"), one);
                assert!(before.is_none(), "{name} is listed twice");
            }
        }
    }
    assert!(found.len() > 50, "{} series are few", found.len());
    found
}

/// The series that the recording rules make.
pub(crate) fn recorded() -> BTreeSet<String> {
    let document = document("monitoring.md");
    let rows = rows(&document, "Recording rules");
    rows.iter().flat_map(|row| code(&row[0])).map(str::to_owned).collect()
}

/// What an expression selects that the documents do not have.
pub(crate) fn unknown_series(expression: &str, documented: &BTreeMap<String, Series>) -> Vec<String> {
    let unknown = |Selector { name, labels }: Selector| match documented.get(&name) {
        None if FOREIGN.contains(&name.as_str()) => None,
        None => Some(name),
        Some(series) => {
            let known = |label: &String| series.labels.contains(label) || SCRAPED.contains(&label.as_str());
            labels.iter().find(|label| !known(label)).map(|label| format!("{name}{{{label}}}"))
        }
    };
    selectors(expression).into_iter().filter_map(unknown).collect()
}

#[test]
fn an_unknown_series_and_an_unknown_label_are_found() {
    let documented = series();
    for (expression, expect) in [
        ("sum(gpu_dra_gpu_healthy{device=\"a\", node=\"b\"}) + up", &[][..]),
        ("gpu_dra_gpu_health", &["gpu_dra_gpu_health"]),
        ("gpu_dra_gpu_healthy{gpu=\"a\"}", &["gpu_dra_gpu_healthy{gpu}"]),
        ("rate(gpu_dra_claim_operation_duration_seconds[5m])", &["gpu_dra_claim_operation_duration_seconds"]),
        ("rate(gpu_dra_claim_operation_duration_seconds_bucket{le=\"1\"}[5m])", &[]),
        ("kube_pod_info", &["kube_pod_info"]),
    ] {
        assert_eq!(unknown_series(expression, &documented), expect, "{expression}");
    }
}
