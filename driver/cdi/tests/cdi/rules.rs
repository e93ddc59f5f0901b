// SPDX-License-Identifier: Apache-2.0
//! What the loaders of container runtimes demand of a spec, written down independently of what renders it.
//!
//! Source: container-device-interface v1.1.0 (`pkg/cdi/spec.go`, `container-edits.go`, `version.go`, `internal/validation`)
//! and the stricter grammar of SPEC.md.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a rule that is broken fails the test")]

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// Panics with the rule that the spec breaks.
pub(crate) fn check(bytes: &[u8]) -> Value {
    let spec: Value = serde_json::from_slice(bytes).unwrap();
    let fields = object(&spec, &["cdiVersion", "kind", "devices", "containerEdits"]);
    check_kind(fields["kind"].as_str().unwrap());
    let devices = fields["devices"].as_array().unwrap();
    assert!(!devices.is_empty(), "at least one device");
    let mut names = BTreeSet::new();
    let mut minimum = "0.3.0";
    let mut all_edits: Vec<&Value> = fields.get("containerEdits").into_iter().collect();
    for device in devices {
        let device = object(device, &["name", "containerEdits"]);
        let name = device["name"].as_str().unwrap();
        check_device_name(name);
        assert!(names.insert(name), "{name} is there twice");
        if name.starts_with(|first: char| first.is_ascii_digit()) {
            minimum = "0.5.0";
        }
        assert!(!device["containerEdits"].as_object().unwrap().is_empty(), "{name} has empty edits");
        all_edits.push(&device["containerEdits"]);
    }
    for edits in all_edits {
        if check_edits(edits) {
            minimum = "0.5.0";
        }
    }
    assert_eq!(fields["cdiVersion"], minimum, "the lowest version that allows the content");
    spec
}

fn object<'a>(value: &'a Value, known: &[&str]) -> &'a Map<String, Value> {
    let fields = value.as_object().unwrap_or_else(|| panic!("{value} is not an object"));
    for key in fields.keys() {
        assert!(known.contains(&key.as_str()), "unknown key {key}");
    }
    fields
}

fn check_kind(kind: &str) {
    let (vendor, class) = kind.split_once('/').unwrap();
    let inner = |c: char, extra: &str| c.is_ascii_alphanumeric() || extra.contains(c);
    for (part, extra, longest) in [(vendor, "_-.", 253), (class, "_-", 63)] {
        assert!(part.len() > 1, "`{part}`: one character crashes every library up to v1.1.0");
        assert!(part.len() <= longest, "{part} is too long");
        assert!(part.starts_with(|c: char| c.is_ascii_alphabetic()), "{part}");
        assert!(part.ends_with(|c: char| c.is_ascii_alphanumeric()), "{part}");
        assert!(part.chars().all(|c| inner(c, extra)), "{part}; a dot in the class would need 0.6.0");
    }
}

fn check_device_name(name: &str) {
    assert!(name.starts_with(|c: char| c.is_ascii_alphanumeric()), "{name}");
    assert!(name.ends_with(|c: char| c.is_ascii_alphanumeric()), "{name}");
    assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "_.:-".contains(c)), "{name}");
}

/// Whether something in them needs version 0.5.0.
fn check_edits(edits: &Value) -> bool {
    let edits = object(edits, &["env", "deviceNodes", "mounts", "hooks"]);
    for variable in list(edits, "env") {
        assert!(variable.as_str().unwrap().find('=').is_some_and(|at| at > 0), "{variable}");
    }
    let mut mounted = BTreeSet::new();
    for mount in list(edits, "mounts") {
        let mount = object(mount, &["hostPath", "containerPath", "options"]);
        absolute(&mount["hostPath"]);
        absolute(&mount["containerPath"]);
        let target = mount["containerPath"].as_str().unwrap();
        assert!(!target.starts_with("/proc"), "runc refuses mounts below /proc");
        assert!(mounted.insert(target), "{target} would replace an earlier mount");
    }
    list(edits, "hooks").iter().for_each(check_hook);
    let checked: Vec<bool> = list(edits, "deviceNodes").iter().map(check_node).collect();
    checked.contains(&true)
}

fn check_hook(hook: &Value) {
    let hook = object(hook, &["hookName", "path", "args", "env", "timeout"]);
    let stages = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    assert!(stages.contains(&hook["hookName"].as_str().unwrap()));
    absolute(&hook["path"]);
    assert!(!list(hook, "args").is_empty(), "the first is the name of the program");
    assert!(!list(hook, "env").is_empty(), "runtimes would pass the variables of the image on");
    assert!(hook["timeout"].as_u64().unwrap() > 0, "a hook that hangs would hang the container");
}

fn check_node(node: &Value) -> bool {
    let node = object(node, &["path", "hostPath", "type", "major", "minor", "fileMode", "permissions"]);
    absolute(&node["path"]);
    if let Some(host_path) = node.get("hostPath") {
        absolute(host_path);
        assert_ne!(*host_path, node["path"], "needless");
    }
    assert_eq!(node["type"], "c");
    assert_eq!(node["permissions"], "rw");
    assert!(node["major"].as_u64().unwrap() > 0, "0 makes the runtime read the node of the host");
    assert!(node["minor"].is_u64());
    assert!(node["fileMode"].as_u64().unwrap() <= 0o777, "a number, not a text");
    node.contains_key("hostPath")
}

fn list<'a>(edits: &'a Map<String, Value>, key: &str) -> &'a [Value] {
    edits.get(key).map_or(&[], |list| {
        let list = list.as_array().unwrap();
        assert!(!list.is_empty(), "{key} is empty");
        list
    })
}

fn absolute(path: &Value) {
    assert!(path.as_str().unwrap().starts_with('/'), "{path}");
}
