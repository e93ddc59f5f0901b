// SPDX-License-Identifier: Apache-2.0
//! The answers of the API server as values. Pure.

use std::collections::BTreeMap;

use k8s_openapi::jiff::fmt::rfc2822;
use serde::Deserialize;
use serde_json::Value;

use crate::doctor::{DaemonSet, SeenNode};

/// The versions of a group in the answer of `/apis`.
pub fn versions(groups: &Value, name: &str) -> Vec<String> {
    let groups = groups.get("groups").and_then(Value::as_array);
    let group = groups.into_iter().flatten().find(|group| group.get("name").and_then(Value::as_str) == Some(name));
    let versions = group.and_then(|group| group.get("versions")).and_then(Value::as_array);
    let version = |version: &Value| version.get("version").and_then(Value::as_str).map(str::to_owned);
    versions.into_iter().flatten().filter_map(version).collect()
}

/// `kubernetes_feature_enabled{name="…",stage="…"} 1` in the metrics of a component of Kubernetes.
pub fn gates(metrics: &str) -> BTreeMap<String, bool> {
    let lines = metrics.lines().filter_map(|line| line.strip_prefix("kubernetes_feature_enabled{"));
    let gate = |line: &str| {
        let (labels, value) = line.split_once("} ")?;
        let name = labels.split("name=\"").nth(1)?.split('"').next()?;
        Some((name.to_owned(), value.trim() == "1"))
    };
    lines.filter_map(gate).collect()
}

pub fn daemon_sets(list: &Value) -> Vec<DaemonSet> {
    let items = list.get("items").and_then(Value::as_array);
    let text = |item: &Value, path: &str| item.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let number = |item: &Value, path: &str| item.pointer(path).and_then(Value::as_i64).unwrap_or_default();
    let set = |item: &Value| DaemonSet {
        namespace: text(item, "/metadata/namespace"),
        name: text(item, "/metadata/name"),
        desired: number(item, "/status/desiredNumberScheduled"),
        current: number(item, "/status/currentNumberScheduled"),
    };
    items.into_iter().flatten().map(set).collect()
}

/// Adds the nodes of a list, and returns the token of the next page, if there is one.
pub fn add_nodes(json: &[u8], nodes: &mut BTreeMap<String, SeenNode>) -> Result<Option<String>, serde_json::Error> {
    let RawList { metadata, items } = serde_json::from_slice(json)?;
    nodes.extend(items.into_iter().map(RawNode::node));
    Ok(metadata.next.filter(|next| !next.is_empty()))
}

#[derive(Deserialize)]
struct RawList {
    #[serde(default)]
    metadata: RawListMeta,
    items: Vec<RawNode>,
}

#[derive(Default, Deserialize)]
struct RawListMeta {
    #[serde(rename = "continue")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct RawNode {
    metadata: RawMeta,
    #[serde(default)]
    status: RawStatus,
}

#[derive(Deserialize)]
struct RawMeta {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawStatus {
    allocatable: BTreeMap<String, String>,
    node_info: RawInfo,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawInfo {
    container_runtime_version: String,
    kubelet_version: String,
}

impl RawNode {
    /// Extended resources of DRA are not in the status of a node, those of device plugins are.
    fn node(self) -> (String, SeenNode) {
        let RawStatus { allocatable, node_info } = self.status;
        let is_gpu = |name: &str| {
            name == "nvidia.com/gpu" || name == "nvidia.com/gpu.shared" || name.starts_with("nvidia.com/mig-")
        };
        let offered = allocatable.iter().filter(|(name, count)| is_gpu(name) && count.as_str() != "0");
        let node = SeenNode {
            runtime: node_info.container_runtime_version,
            kubelet: node_info.kubelet_version,
            plugin_resources: offered.map(|(name, count)| format!("{name}: {count}")).collect(),
        };
        (self.metadata.name, node)
    }
}

/// Milliseconds since 1970 of `Mon, 30 Nov 2026 19:54:29 GMT` (RFC 9110).
pub fn http_date(text: &str) -> Option<i64> {
    rfc2822::parse(text).ok().map(|time| time.timestamp().as_millisecond())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn dates_of_headers_are_read() {
        for (text, expect) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Mon, 30 Nov 2026 19:54:29 GMT", Some(1_796_068_469_000)),
            ("Tue, 29 Feb 2028 23:59:59 GMT", Some(1_835_481_599_000)),
            ("Monday", None),
            ("Mon, 30 Nob 2026 19:54:29 GMT", None),
        ] {
            assert_eq!(http_date(text), expect, "{text}");
        }
    }

    #[test]
    fn feature_gates_are_in_the_metrics() {
        let metrics = "# HELP kubernetes_feature_enabled x\nkubernetes_feature_enabled{name=\"DRADeviceTaints\",stage=\"\"} 1\n\
                       kubernetes_feature_enabled{name=\"DRAConsumableCapacity\",stage=\"BETA\"} 0\nother{name=\"x\"} 1\n";
        let expect = [("DRAConsumableCapacity", false), ("DRADeviceTaints", true)];
        assert_eq!(gates(metrics), expect.map(|(name, is_on)| (name.to_owned(), is_on)).into());
    }

    #[test]
    fn a_device_plugin_is_seen_by_the_resources_of_its_node() {
        let list = json!({"metadata": {}, "items": [{
            "metadata": {"name": "n"},
            "status": {
                "allocatable": {"cpu": "8", "nvidia.com/gpu": "4", "nvidia.com/mig-1g.10gb": "0"},
                "nodeInfo": {"containerRuntimeVersion": "containerd://2.3.7", "kubeletVersion": "v1.37.2"},
            },
        }]});
        let mut nodes = BTreeMap::new();
        add_nodes(list.to_string().as_bytes(), &mut nodes).unwrap();
        let expect = SeenNode {
            runtime: "containerd://2.3.7".to_owned(),
            kubelet: "v1.37.2".to_owned(),
            plugin_resources: vec!["nvidia.com/gpu: 4".to_owned()],
        };
        assert_eq!(nodes.get("n"), Some(&expect));
        let groups =
            json!({"groups": [{"name": "apps"}, {"name": "resource.k8s.io", "versions": [{"version": "v1"}]}]});
        assert_eq!(versions(&groups, "resource.k8s.io"), ["v1"]);
        assert_eq!(versions(&groups, "other"), Vec::<String>::new());
    }
}
