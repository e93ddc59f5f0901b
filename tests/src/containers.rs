// SPDX-License-Identifier: Apache-2.0
//! What a container runtime makes of CDI devices: the specs of a directory, read as containerd reads them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// What a container gets.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Container {
    /// Paths of device nodes.
    pub nodes: BTreeSet<String>,
    /// `NAME=value`.
    pub env: BTreeSet<String>,
    /// Host path and container path.
    pub mounts: BTreeSet<(String, String)>,
}

/// Applies CDI devices; every one must be there and every node and mount must exist below the driver root.
pub fn container(cdi_dir: &Path, host_dir: &Path, cdi_ids: &[String]) -> Container {
    let specs = specs(cdi_dir);
    let mut container = Container::default();
    for id in cdi_ids {
        let (kind, name) = id.split_once('=').expect("a qualified name");
        let of_kind = specs.iter().filter(|spec| spec["kind"] == kind);
        let found = of_kind.flat_map(|spec| entries(&spec["devices"]).map(move |device| (spec, device)));
        let found: Vec<_> = found.filter(|(_, device)| device["name"] == name).collect();
        let [(spec, device)] = found.as_slice() else {
            panic!("{} specs below {} define {id}", found.len(), cdi_dir.display());
        };
        for edits in [&spec["containerEdits"], &device["containerEdits"]] {
            container.apply(edits, host_dir);
        }
    }
    container
}

/// The claim files in the directory.
pub fn claim_specs(cdi_dir: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(cdi_dir).into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.contains("-claim_")).collect()
}

fn specs(cdi_dir: &Path) -> Vec<Value> {
    let entries = fs::read_dir(cdi_dir).expect("the CDI directory is readable").flatten();
    let paths = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|kind| kind == "json"));
    // A runtime reports a file it cannot read and goes on.
    paths.filter_map(|path| serde_json::from_slice(&fs::read(path).ok()?).ok()).collect()
}

fn entries(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Container {
    fn apply(&mut self, edits: &Value, host_dir: &Path) {
        for node in entries(&edits["deviceNodes"]) {
            let on_host = node["hostPath"].as_str().or_else(|| node["path"].as_str()).unwrap_or_default();
            assert_present(host_dir, on_host);
            self.nodes.insert(text(&node["path"]));
        }
        for mount in entries(&edits["mounts"]) {
            assert_present(host_dir, &text(&mount["hostPath"]));
            self.mounts.insert((text(&mount["hostPath"]), text(&mount["containerPath"])));
        }
        self.env.extend(entries(&edits["env"]).map(text));
    }
}

fn assert_present(host_dir: &Path, on_host: &str) {
    let path = host_dir.join(on_host.trim_start_matches('/'));
    assert!(path.exists(), "a container would get {on_host}, which is not on the host");
}
