// SPDX-License-Identifier: Apache-2.0
//! The Helm chart as the real helm renders it, and the cache with helm and other programs that no cargo builds.

use std::path::PathBuf;
use std::process::Command;

use crate::source::root_dir;

/// Where `tests/cluster/setup.sh` and `gpu-cluster build` put programs.
pub fn cache_dir() -> PathBuf {
    let home_dir = || PathBuf::from(std::env::var_os("HOME").expect("every user has a home")).join(".cache");
    std::env::var_os("XDG_CACHE_HOME").map_or_else(home_dir, PathBuf::from).join("gpu-dra-cluster")
}

/// A program that is built for the test cluster, such as helm or kubectl.
pub fn cluster_program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir(cache_dir()).into_iter().flatten().flatten();
    let found = versions.map(|version| version.path().join("bin").join(name)).find(|program| program.is_file());
    found.unwrap_or_else(|| panic!("no {name} below {}: run `make build` first", cache_dir().display()))
}

/// The chart with these values, or the reason of a refusal.
pub fn rendered(settings: &[&str]) -> Result<String, String> {
    rendered_with(&settings.iter().flat_map(|setting| ["--set", setting]).collect::<Vec<_>>())
}

/// The chart with these arguments of helm.
pub fn rendered_with(arguments: &[&str]) -> Result<String, String> {
    template("gpu-dra-driver", "deploy/chart", arguments)
}

/// The chart for tenants with these arguments of helm.
pub fn tenants_rendered_with(arguments: &[&str]) -> Result<String, String> {
    template("gpu-tenants", "deploy/tenants-chart", arguments)
}

/// A chart in a namespace with the name of its release.
fn template(release: &str, chart: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(cluster_program("helm"))
        .args(["template", release, chart, "--namespace", release, "--kube-version", "1.37.0"])
        .args(arguments)
        .current_dir(root_dir())
        .output()
        .expect("helm is a program");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// All documents of a kind.
pub fn documents(chart: &str, kind: &str) -> Vec<String> {
    let is_one = |document: &&str| document.lines().any(|line| line == format!("kind: {kind}"));
    chart.split("\n---\n").filter(is_one).map(str::to_owned).collect()
}

/// The only document of a kind.
pub fn document(chart: &str, kind: &str) -> String {
    let found = documents(chart, kind);
    let [document] = found.as_slice() else { panic!("the chart has {} documents {kind}", found.len()) };
    document.clone()
}
