// SPDX-License-Identifier: Apache-2.0
//! DaemonSets, pods and nodes of the API as values. Pure.

use std::collections::BTreeMap;

use dra_allocation::node::NodeSelector;
use serde::Deserialize;
use serde_json::Value;

use super::{Component, Kind, NodeChoice, OwnSet, SetPod, User};

/// A DaemonSet that matters.
#[derive(Debug, Clone, PartialEq)]
pub enum DaemonSet {
    Theirs(Component),
    Ours(OwnSet),
}

/// Resources of pods and nodes that a device plugin for NVIDIA's GPUs offers.
pub fn is_gpu_resource(name: &str) -> bool {
    name == "nvidia.com/gpu" || name == "nvidia.com/gpu.shared" || name.starts_with("nvidia.com/mig-")
}

#[derive(Debug, Deserialize)]
pub struct RawSet {
    metadata: RawMeta,
    spec: RawSetSpec,
}

#[derive(Debug, Deserialize)]
struct RawSetSpec {
    template: RawTemplate,
}

#[derive(Debug, Deserialize)]
struct RawTemplate {
    spec: RawPodSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawMeta {
    name: String,
    namespace: String,
    labels: BTreeMap<String, String>,
    owner_references: Vec<RawOwner>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawOwner {
    kind: String,
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawPodSpec {
    node_name: String,
    node_selector: BTreeMap<String, String>,
    affinity: Value,
    containers: Vec<RawContainer>,
    init_containers: Vec<RawContainer>,
    volumes: Vec<RawVolume>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawVolume {
    config_map: Option<RawName>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawName {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawContainer {
    name: String,
    image: String,
    command: Vec<String>,
    args: Vec<String>,
    env: Vec<RawVariable>,
    resources: RawResources,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawVariable {
    name: String,
    value: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawResources {
    limits: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
pub struct RawPod {
    metadata: RawMeta,
    spec: RawPodSpec,
    #[serde(default)]
    status: RawPodStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawPodStatus {
    phase: String,
    /// Extended resources that a DRA driver serves have a claim (KEP-5004).
    extended_resource_claim_status: Option<RawExtendedClaim>,
    conditions: Vec<RawCondition>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawExtendedClaim {
    request_mappings: Vec<RawMapping>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawMapping {
    resource_name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl RawContainer {
    fn has_word(&self, word: &str) -> bool {
        self.name.contains(word) || self.command.iter().chain(&self.args).any(|part| part.contains(word))
    }

    /// The image of the device plugin is also that of its feature discovery and of its MPS daemons.
    fn kind(&self) -> Option<Kind> {
        let image = self.image.rsplit('/').next().unwrap_or_default();
        let name = image.split([':', '@']).next().unwrap_or_default();
        match name {
            "k8s-device-plugin" if self.has_word("feature-discovery") || self.has_word("config-manager") => None,
            "k8s-device-plugin" if self.has_word("mps-control-daemon") => Some(Kind::MpsControl),
            "k8s-device-plugin" => Some(Kind::DevicePlugin),
            "k8s-mig-manager" => Some(Kind::MigManager),
            // Its other containers have no GPU.
            "k8s-dra-driver-gpu" | "dra-driver-nvidia-gpu" if self.name == "gpus" => Some(Kind::DraDriver),
            _ => None,
        }
    }
}

impl RawPodSpec {
    fn choice(&self) -> NodeChoice {
        let required = self.affinity.pointer("/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution");
        let affinity: Option<NodeSelector> = required.and_then(|found| serde_json::from_value(found.clone()).ok());
        NodeChoice { labels: self.node_selector.clone(), affinity }
    }
}

impl RawSet {
    /// Nothing if it is neither one of NVIDIA's components nor of this driver.
    pub fn set(self, driver: &str) -> Option<DaemonSet> {
        let Self {
            metadata: RawMeta { name, namespace, labels, .. },
            spec: RawSetSpec { template: RawTemplate { spec } },
        } = self;
        let choice = spec.choice();
        let plugin = spec.containers.iter().find(|container| container.name == crate::driver_pods::PLUGIN);
        let mut variables = plugin.into_iter().flat_map(|plugin| &plugin.env);
        if variables.any(|variable| variable.name == "DRIVER_NAME" && variable.value == driver) {
            let release = labels.get("app.kubernetes.io/instance").cloned().unwrap_or_else(|| name.clone());
            return Some(DaemonSet::Ours(OwnSet { namespace, name, release, choice }));
        }
        let (kind, image) = spec.containers.iter().find_map(|one| Some((one.kind()?, one.image.clone())))?;
        let config_maps = spec.volumes.into_iter().filter_map(|volume| Some(volume.config_map?.name)).collect();
        Some(DaemonSet::Theirs(Component {
            kind,
            namespace,
            name,
            image,
            choice,
            config_maps,
            affinity: spec.affinity,
        }))
    }
}

/// What a pod is to a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pod {
    OfSet(SetPod),
    /// On this node.
    User(String, User),
}

impl RawPod {
    /// Nothing if it is on no node, has ended or has to do with neither.
    pub fn pod(self) -> Option<Pod> {
        let Self { metadata, spec, status } = self;
        if spec.node_name.is_empty() || matches!(status.phase.as_str(), "Succeeded" | "Failed") {
            return None;
        }
        if let Some(set) = metadata.owner_references.iter().find(|owner| owner.kind == "DaemonSet") {
            let is_ready = status.conditions.iter().any(|one| one.kind == "Ready" && one.status == "True");
            let pod = SetPod { namespace: metadata.namespace, set: set.name.clone(), node: spec.node_name, is_ready };
            return Some(Pod::OfSet(pod));
        }
        let of_dra = status.extended_resource_claim_status.map(|claim| claim.request_mappings).unwrap_or_default();
        let is_of_dra = |name: &str| of_dra.iter().any(|mapping| mapping.resource_name == name);
        let limits = spec.containers.iter().chain(&spec.init_containers).flat_map(|one| &one.resources.limits);
        let resources = limits.filter(|(name, _)| is_gpu_resource(name) && !is_of_dra(name));
        let by: Vec<String> = resources.map(|(name, count)| format!("{name}: {count}")).collect();
        let user = || User { namespace: metadata.namespace, pod: metadata.name, by: by.join(", ") };
        (!by.is_empty()).then(|| Pod::User(spec.node_name, user()))
    }
}

/// The resources of a device plugin that each node of a page offers.
#[derive(Debug, Deserialize)]
pub struct RawNode {
    metadata: RawMeta,
    #[serde(default)]
    status: RawNodeStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawNodeStatus {
    allocatable: BTreeMap<String, String>,
}

impl RawNode {
    /// Its name, labels, and what a device plugin offers.
    pub fn node(self) -> (String, BTreeMap<String, String>, Vec<String>) {
        let Self { metadata, status } = self;
        let offered = status.allocatable.iter().filter(|(name, count)| is_gpu_resource(name) && count.as_str() != "0");
        let offered = offered.map(|(name, count)| format!("{name}: {count}")).collect();
        (metadata.name, metadata.labels, offered)
    }
}
