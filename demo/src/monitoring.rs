// SPDX-License-Identifier: Apache-2.0
//! A Prometheus with the rules of the chart, which scrapes every pod of the driver.

use dra_cluster::{Cluster, Prometheus};

use crate::driver::{NAMESPACE, RELEASE};
use crate::error::{DemoError, Doing as _, Result};
use crate::repository::Repository;

/// Starts it. It ends with the cluster.
pub fn start(cluster: &Cluster, repository: &Repository) -> Result<Prometheus> {
    let chart_dir = repository.chart_dir().display().to_string();
    let mut args = vec!["template", RELEASE, &chart_dir, "--namespace", NAMESPACE];
    args.extend(["--set", "monitoring.prometheusRule.enabled=true"]);
    args.extend(["--show-only", "templates/prometheus-rule.yaml"]);
    let rendered = cluster.helm(&args).doing("render the rules of the chart")?;
    let rules = spec_of(&rendered).ok_or(DemoError::NoRules)?;
    cluster.start_prometheus(&rules, RELEASE).doing("start Prometheus")
}

/// The value of `spec`, which is a file of rules: the lines below it without their indentation.
fn spec_of(document: &str) -> Option<String> {
    let (_, spec) = document.split_once("\nspec:\n")?;
    let lines = spec.lines().map(|line| line.strip_prefix("  ").unwrap_or(line));
    Some(lines.collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spec_of_a_rule_object_is_a_file_of_rules() {
        let document =
            "# a\nkind: PrometheusRule\nmetadata:\n  name: a\nspec:\n  groups:\n    - name: b\n      rules: []\n";
        assert_eq!(spec_of(document).unwrap(), "groups:\n  - name: b\n    rules: []");
        assert_eq!(spec_of("kind: PrometheusRule\n"), None);
    }
}
