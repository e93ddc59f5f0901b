// SPDX-License-Identifier: Apache-2.0
//! Judges what keeps GPUs from pods, from what the API server and the plugins of the nodes answer. Pure; `doctor_reading` reads.

mod cluster;
mod diagnose;
mod nodes;
mod table;

use std::collections::BTreeMap;

use dra_allocation::{Classes, Pools};
use dra_model::node_check::{Check, NodeChecks, Severity};
use serde::Serialize;

pub use diagnose::diagnose;
pub use table::table;

use crate::driver_pods::Found;

/// What was read. A part that is an error was not, and is a note in the answer.
#[derive(Debug)]
pub struct Seen<'a> {
    /// The name of the driver.
    pub driver: &'a str,
    pub server_version: Part<String>,
    /// Versions of the API group `resource.k8s.io`.
    pub api_versions: Part<Vec<String>>,
    /// Feature gates of the API server that are on or off.
    pub gates: Part<BTreeMap<String, bool>>,
    pub classes: Part<Classes>,
    pub pools: Part<Pools>,
    pub pods: Part<Found>,
    pub daemon_sets: Part<Vec<DaemonSet>>,
    /// What the account of the driver may not do, as `kubectl auth can-i` names it.
    pub denied: Part<Vec<String>>,
    /// The admission policies of the chart that are bound.
    pub policies: Part<usize>,
    pub nodes: Part<BTreeMap<String, SeenNode>>,
    /// What the plugin of a node answered.
    pub answers: BTreeMap<String, Part<NodeAnswer>>,
    /// The last lines of the log of a plugin that is not ready, by node.
    pub logs: BTreeMap<String, String>,
    /// One node only.
    pub only: Option<&'a str>,
}

/// Something that was read, or why not.
pub type Part<T> = Result<T, String>;

/// A DaemonSet of the driver.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DaemonSet {
    pub namespace: String,
    pub name: String,
    /// Nodes that its selector selects.
    pub desired: i64,
    /// Nodes with a pod.
    pub current: i64,
}

/// A node of Kubernetes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeenNode {
    pub runtime: String,
    pub kubelet: String,
    /// Resources of a device plugin for GPUs, with their number.
    pub plugin_resources: Vec<String>,
}

/// The answer of the plugin of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeAnswer {
    pub checks: NodeChecks,
    /// How far the clock of the node is from that of the API server at least, in milliseconds.
    pub clock_error_ms: i64,
}

/// The answer of `doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnosis {
    pub cluster: Vec<Check>,
    pub nodes: Vec<Node>,
    /// What could not be checked, and why.
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    pub name: String,
    pub checks: Vec<Check>,
}

impl Diagnosis {
    /// The worst that was found.
    pub fn worst(&self) -> Option<Severity> {
        let checks = self.cluster.iter().chain(self.nodes.iter().flat_map(|node| &node.checks));
        checks.flat_map(|check| &check.problems).map(|problem| problem.severity).max()
    }
}
