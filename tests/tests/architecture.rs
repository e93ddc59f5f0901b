// SPDX-License-Identifier: Apache-2.0
//! The map of the crates: who may use whom, and who may know Kubernetes, gRPC and tokio.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use dra_tests::source::graph::Graph;
use dra_tests::source::{SourceFile, files, root_dir};
use serde_json::Value;

/// A crate of ours and the crates of ours its product code may use.
const EDGES: [(&str, &[&str]); 28] = [
    ("dra-model", &[]),
    ("dra-allocation", &[]),
    ("dra-health", &["dra-model"]),
    ("dra-mig-parted", &["dra-model"]),
    ("dra-mps", &["dra-model"]),
    ("dra-import", &["dra-mig-parted", "dra-model", "dra-resource"]),
    ("dra-nvml", &[]),
    ("dra-proto", &[]),
    ("dra-runtime", &["dra-model"]),
    ("dra-hardware", &["dra-model", "dra-nvml"]),
    ("dra-resource", &["dra-model"]),
    ("dra-cdi", &["dra-files", "dra-model"]),
    ("dra-cdi-hook", &[]),
    ("dra-files", &[]),
    ("dra-checkpoint", &["dra-files", "dra-model"]),
    ("dra-prepare", &["dra-cdi", "dra-checkpoint", "dra-files", "dra-hardware", "dra-model"]),
    ("dra-sim", &["dra-hardware", "dra-model"]),
    ("dra-sim-library", &["dra-sim"]),
    ("dra-explain", &["dra-allocation", "dra-model"]),
    ("dra-controller", &["dra-explain", "dra-import", "dra-model", "dra-proto", "dra-resource", "dra-runtime"]),
    ("dra-kubectl-gpu", &["dra-allocation", "dra-explain", "dra-import", "dra-model", "dra-resource"]),
    ("dra-serve", &[]),
    ("dra-mps-api", &["dra-hardware", "dra-model", "dra-proto"]),
    ("dra-mps-host", &MPS_HOST_USES),
    ("dra-kubelet-plugin", &PLUGIN_USES),
    ("dra-cluster", &[]),
    ("dra-demo", &["dra-cluster", "dra-resource"]),
    ("dra-tests", &TESTS_USE),
];

const PLUGIN_USES: [&str; 13] = [
    "dra-cdi",
    "dra-checkpoint",
    "dra-files",
    "dra-hardware",
    "dra-health",
    "dra-mig-parted",
    "dra-model",
    "dra-mps-api",
    "dra-prepare",
    "dra-proto",
    "dra-resource",
    "dra-runtime",
    "dra-serve",
];

/// No prepare engine, no records, no CDI: a daemon is independent of the claims that use it.
const MPS_HOST_USES: [&str; 8] =
    ["dra-files", "dra-hardware", "dra-model", "dra-mps", "dra-mps-api", "dra-proto", "dra-runtime", "dra-serve"];

/// The product from outside may use all of it.
const TESTS_USE: [&str; 14] = [
    "dra-cdi",
    "dra-checkpoint",
    "dra-cluster",
    "dra-controller",
    "dra-hardware",
    "dra-kubelet-plugin",
    "dra-model",
    "dra-mps-api",
    "dra-nvml",
    "dra-prepare",
    "dra-proto",
    "dra-resource",
    "dra-runtime",
    "dra-sim",
];

/// The crates that are asynchronous; of them tonic is for those with a socket of gRPC.
const ASYNC: [&str; 10] = [
    "dra-runtime",
    "dra-serve",
    "dra-mps-api",
    "dra-mps-host",
    "dra-controller",
    "dra-kubectl-gpu",
    "dra-kubelet-plugin",
    "dra-proto",
    "dra-tests",
    "dra-demo",
];

/// A foreign crate and the only crates of ours that may know it.
const KNOWN_BY: [(&str, &[&str]); 10] = [
    (
        "k8s-openapi",
        &[
            "dra-runtime",
            "dra-resource",
            "dra-explain",
            "dra-import",
            "dra-controller",
            "dra-kubectl-gpu",
            "dra-kubelet-plugin",
            "dra-tests",
            "dra-demo",
        ],
    ),
    ("kube", &["dra-runtime", "dra-explain", "dra-controller", "dra-kubectl-gpu", "dra-kubelet-plugin", "dra-tests"]),
    ("cel", &["dra-allocation"]),
    (
        "tonic",
        &["dra-proto", "dra-serve", "dra-mps-api", "dra-mps-host", "dra-controller", "dra-kubelet-plugin", "dra-tests"],
    ),
    ("tokio", &ASYNC),
    ("axum", &["dra-tests"]),
    ("hyper", &["dra-runtime"]),
    ("nvml-wrapper", &["dra-nvml"]),
    ("nvml-wrapper-sys", &["dra-nvml", "dra-sim-library"]),
    ("seccompiler", &["dra-mps-host", "dra-cdi-hook"]),
];

struct Edge {
    from: String,
    to: String,
    /// `None` for what the product itself uses, else `dev` or `build`.
    kind: Option<String>,
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root_dir())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn edges() -> Vec<Edge> {
    let edge = |package: &Value, dependency: &Value| Edge {
        from: text(&package["name"]),
        to: text(&dependency["name"]),
        kind: dependency["kind"].as_str().map(str::to_owned),
    };
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .flat_map(|package| package["dependencies"].as_array().unwrap().iter().map(move |to| edge(package, to)))
        .collect()
}

#[test]
fn crates_use_only_the_crates_below_them() {
    for Edge { from, to, kind } in edges().into_iter().filter(|edge| edge.to.starts_with("dra-") && edge.kind.is_none())
    {
        let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == from) else {
            panic!("{from} has no place on the map in {}", file!());
        };
        assert!(allowed.contains(&to.as_str()), "{from} must not use {to} {}", kind.unwrap_or_default());
    }
}

#[test]
fn each_technology_is_known_only_where_it_belongs() {
    for Edge { from, to, kind } in edges() {
        let Some((_, allowed)) = KNOWN_BY.iter().find(|(name, _)| *name == to) else { continue };
        let testing = kind.is_some_and(|kind| kind == "dev");
        assert!(testing || allowed.contains(&from.as_str()), "{from} must not know {to}");
    }
}

/// The root files of the libraries, programs, tests and benchmarks of the workspace.
fn targets() -> BTreeSet<PathBuf> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let targets = packages.flat_map(|package| package["targets"].as_array().unwrap());
    targets.map(|target| PathBuf::from(text(&target["src_path"]))).collect()
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let mut found = BTreeSet::new();
    for root in targets() {
        found.extend(Graph::of_target(&root).circles().iter().map(ToString::to_string));
    }
    let circles: String = found.into_iter().collect();
    assert!(
        circles.is_empty(),
        "files use items of each other, move what both need into a file below them:\n{circles}"
    );
}

#[test]
fn unsafe_code_is_only_where_c_begins() {
    for file in files().iter().filter(|file| file.is_rust()) {
        let code = file.product_code();
        let words: BTreeSet<&str> = code.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        let allowed = ["driver/nvml", "driver/sim/library", "driver/runtime/src/heap.rs"]
            .iter()
            .any(|dir| file.path.starts_with(dir));
        assert!(allowed || !words.contains("unsafe"), "{} contains unsafe code", file.path.display());
    }
}

#[test]
fn versions_are_in_the_root_manifest_only() {
    // The fuzz targets are no member of the workspace.
    let is_member = |file: &&SourceFile| {
        let dir = file.path.parent().unwrap();
        file.path.ends_with("Cargo.toml") && file.path.components().count() > 1 && !dir.ends_with("fuzz")
    };
    for file in files().iter().filter(is_member) {
        let mut in_dependencies = false;
        for line in file.text.lines().map(str::trim) {
            if line.starts_with('[') {
                in_dependencies = line.ends_with("dependencies]");
            }
            let entry = !line.is_empty() && !line.starts_with(['#', '[']);
            let inherited = line.contains("workspace = true");
            assert!(!in_dependencies || !entry || inherited, "{}: `{line}` is not inherited", file.path.display());
        }
    }
}

#[test]
fn the_root_manifest_lists_nothing_unused() {
    let manifest = std::fs::read_to_string(root_dir().join("Cargo.toml")).unwrap();
    let section = manifest.split("[workspace.dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    let listed = section.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
    let used: BTreeSet<String> = edges().into_iter().map(|edge| edge.to).collect();
    let unused: Vec<&str> = listed.filter(|name| !name.starts_with("dra-") && !used.contains(*name)).collect();
    assert!(unused.is_empty(), "no crate uses {unused:?}");
}
