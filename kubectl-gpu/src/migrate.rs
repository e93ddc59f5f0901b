// SPDX-License-Identifier: Apache-2.0
//! Which of NVIDIA's components give GPUs to pods, node by node, and what moves a node to this driver and back. Pure.
//!
//! ```text
//! API objects ── parse ──> Cluster ── plan ──> Plan ── table
//!                             └────── moving ─> Step, until it is `Done`
//! ```
//!
//! The state of a move is in labels of the node alone, so that a command that was interrupted is continued by running it again.

pub mod moving;

pub mod parse;

mod plan;

mod table;

use std::collections::BTreeMap;

use dra_allocation::node::{NodeFacts, NodeSelector};
use serde::Serialize;

pub use plan::{ComponentPlan, NodePlan, Plan};
pub use table::{announcement, refusal, table, users};

/// The label of the nodes of this driver, which `kubeletPlugin.nodeSelector` of the chart must select.
pub const LABEL: &str = "gpu.nvidia.com/dra-driver";
/// The value with which this driver has the node.
pub const ENABLED: &str = "enabled";
/// The value with which neither has it.
pub const PENDING: &str = "pending";
/// NVIDIA's operator sets `nvidia.com/gpu.deploy.<component>` to `true` where the label is missing, and leaves other values.
const OPERATOR_LABELS: &str = "nvidia.com/gpu.deploy.";
/// The name of NVIDIA's DRA driver.
pub const DRIVER_OF_NVIDIA: &str = "gpu.nvidia.com";

/// A program of NVIDIA that gives GPUs to pods or changes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    DevicePlugin,
    /// The MPS daemons of the device plugin.
    MpsControl,
    /// Runs mig-parted, by the node label `nvidia.com/mig.config`.
    MigManager,
    DraDriver,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::DevicePlugin => "device plugin",
            Self::MpsControl => "MPS daemons of the device plugin",
            Self::MigManager => "MIG manager",
            Self::DraDriver => "NVIDIA's DRA driver",
        }
    }
}

/// The nodes that a DaemonSet selects.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeChoice {
    pub labels: BTreeMap<String, String>,
    pub affinity: Option<NodeSelector>,
}

impl NodeChoice {
    pub fn selects(&self, node: &NodeFacts) -> bool {
        let has =
            |(key, value): (&String, &String)| node.labels.get(key.as_str()).is_some_and(|found| **found == **value);
        self.labels.iter().all(has) && self.affinity.as_ref().is_none_or(|affinity| affinity.matches(node))
    }
}

/// A DaemonSet of one of NVIDIA's components.
#[derive(Debug, Clone, PartialEq)]
pub struct Component {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
    pub image: String,
    pub choice: NodeChoice,
    /// ConfigMaps of its namespace that its pods mount.
    pub config_maps: Vec<String>,
    /// `spec.template.spec.affinity` as it is.
    pub affinity: serde_json::Value,
}

impl Component {
    pub fn label(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The labels of NVIDIA's operator that it selects, with the values that it needs.
    pub fn operator_labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let labels = self.choice.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        labels.filter(|(key, _)| key.starts_with(OPERATOR_LABELS))
    }
}

/// The DaemonSet of this driver.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnSet {
    pub namespace: String,
    pub name: String,
    /// The Helm release.
    pub release: String,
    pub choice: NodeChoice,
}

/// A pod that belongs to a DaemonSet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SetPod {
    pub namespace: String,
    pub set: String,
    pub node: String,
    pub is_ready: bool,
}

/// A pod that uses GPUs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct User {
    pub namespace: String,
    pub pod: String,
    /// The resources of the device plugin, or the claim with its device.
    pub by: String,
}

/// A claim that holds a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub namespace: String,
    pub name: String,
    pub device: String,
    pub pods: Vec<String>,
    /// Whether the device is one of NVIDIA's driver.
    pub is_of_nvidia: bool,
}

/// A node with what is on it.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub facts: NodeFacts,
    /// Resources that a device plugin for NVIDIA's GPUs offers now, with their number.
    pub offered: Vec<String>,
    /// Pods that have such a resource from the device plugin.
    pub plugin_users: Vec<User>,
    pub claims: Vec<Claim>,
    /// Whether slices of this driver have devices of the node.
    pub has_own_devices: bool,
    /// Devices in slices of NVIDIA's DRA driver.
    pub nvidia_devices: usize,
}

impl Node {
    pub fn name(&self) -> &str {
        &self.facts.name
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.facts.labels.get(key).map(AsRef::as_ref)
    }
}

/// What was read of the cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cluster {
    pub driver: String,
    pub nodes: Vec<Node>,
    pub components: Vec<Component>,
    pub own: Option<OwnSet>,
    pub set_pods: Vec<SetPod>,
    /// What could not be read.
    pub notes: Vec<String>,
}

/// Who gives the GPUs of a node to pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    Theirs,
    Ours,
    /// Both would allocate the same GPUs.
    Both,
    None,
}

impl Cluster {
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name() == name)
    }

    pub fn pod_of<'a>(&'a self, namespace: &str, set: &str, node: &str) -> Option<&'a SetPod> {
        let is_it = |pod: &&SetPod| pod.namespace == namespace && pod.set == set && pod.node == node;
        self.set_pods.iter().find(is_it)
    }

    /// The components that run on a node, or will.
    pub fn components_on<'a>(&'a self, node: &'a Node) -> impl Iterator<Item = &'a Component> {
        let is_there = |one: &Component| self.pod_of(&one.namespace, &one.name, node.name()).is_some();
        self.components.iter().filter(move |one| one.choice.selects(&node.facts) || is_there(one))
    }

    /// Whether the pod of this driver is on the node.
    pub fn own_pod<'a>(&'a self, node: &Node) -> Option<&'a SetPod> {
        let own = self.own.as_ref()?;
        self.pod_of(&own.namespace, &own.name, node.name())
    }

    pub fn owner(&self, node: &Node) -> Owner {
        let is_theirs = !node.offered.is_empty() || self.components_on(node).next().is_some();
        let is_ours = node.has_own_devices || self.own_pod(node).is_some();
        match (is_theirs, is_ours) {
            (true, true) => Owner::Both,
            (true, false) => Owner::Theirs,
            (false, true) => Owner::Ours,
            (false, false) => Owner::None,
        }
    }

    /// Pods that have GPUs of NVIDIA's components.
    pub fn their_users(&self, node: &Node) -> Vec<User> {
        let claims = node.claims.iter().filter(|claim| claim.is_of_nvidia).flat_map(claim_users);
        node.plugin_users.iter().cloned().chain(claims).collect()
    }

    /// Pods that have GPUs of this driver.
    pub fn our_users(&self, node: &Node) -> Vec<User> {
        node.claims.iter().filter(|claim| !claim.is_of_nvidia).flat_map(claim_users).collect()
    }
}

fn claim_users(claim: &Claim) -> Vec<User> {
    let user = |pod: &String| User {
        namespace: claim.namespace.clone(),
        pod: pod.clone(),
        by: format!("claim {} with {}", claim.name, claim.device),
    };
    claim.pods.iter().map(user).collect()
}
