// SPDX-License-Identifier: Apache-2.0
//! The plan for a cluster: what each component becomes, who owns each node, and what is left to do. Pure.

use std::collections::BTreeSet;

use serde::Serialize;

use super::moving::{prepare_component, prepare_own};
use super::{Claim, Cluster, Component, DRIVER_OF_NVIDIA, Kind, LABEL, Node, Owner, PENDING, User};

/// One node in the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodePlan {
    pub node: String,
    pub owner: Owner,
    /// The programs that own GPUs of the node, or change them.
    pub by: Vec<String>,
    /// Pods that have GPUs of NVIDIA's components.
    pub their_pods: usize,
    pub our_pods: usize,
    pub next: String,
}

/// One component in the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ComponentPlan {
    pub kind: Kind,
    pub daemon_set: String,
    pub image: String,
    pub nodes: usize,
    pub becomes: String,
    /// What must be changed once, before a node can be moved.
    pub prepare: Option<String>,
}

/// The answer of `migrate` without a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    pub components: Vec<ComponentPlan>,
    pub nodes: Vec<NodePlan>,
    /// What must be changed once for this driver.
    pub prepare: Vec<String>,
    /// Claims with devices that only NVIDIA's driver has.
    pub leftovers: Vec<String>,
    pub notes: Vec<String>,
}

impl Kind {
    fn becomes(self) -> &'static str {
        match self {
            Self::DevicePlugin => "DeviceClass gpu.nvidia.com, with the same resource nvidia.com/gpu",
            Self::MpsControl => "MPS daemons of this driver, started for claims",
            Self::MigManager => "MIG devices by claim, or mig.static of the chart",
            Self::DraDriver => "the same DeviceClasses and configurations",
        }
    }
}

impl Cluster {
    /// The plan for all nodes that have to do with GPUs.
    pub fn plan(&self) -> Plan {
        let nodes: Vec<NodePlan> = self.nodes.iter().filter_map(|node| self.node_plan(node)).collect();
        let leftovers = self.nodes.iter().flat_map(|node| self.leftovers(node)).collect();
        Plan {
            components: self.components.iter().map(|one| self.component_plan(one)).collect(),
            nodes,
            prepare: prepare_own(self).into_iter().collect(),
            leftovers,
            notes: self.notes.clone(),
        }
    }

    fn component_plan(&self, one: &Component) -> ComponentPlan {
        let here = |node: &&Node| {
            one.choice.selects(&node.facts) || self.pod_of(&one.namespace, &one.name, node.name()).is_some()
        };
        ComponentPlan {
            kind: one.kind,
            daemon_set: one.label(),
            image: one.image.clone(),
            nodes: self.nodes.iter().filter(here).count(),
            becomes: one.kind.becomes().to_owned(),
            prepare: prepare_component(one),
        }
    }

    /// Nothing for a node that has no sign of a GPU.
    fn node_plan(&self, node: &Node) -> Option<NodePlan> {
        let owner = self.owner(node);
        let is_of_gpus = node.label("nvidia.com/gpu.present") == Some("true") || node.label(LABEL).is_some();
        if owner == Owner::None && !is_of_gpus && node.nvidia_devices == 0 {
            return None;
        }
        let (their_pods, our_pods) = (distinct(&self.their_users(node)), distinct(&self.our_users(node)));
        Some(NodePlan {
            node: node.name().to_owned(),
            owner,
            by: self.programs(node),
            their_pods,
            our_pods,
            next: next(owner, node, their_pods),
        })
    }

    fn programs(&self, node: &Node) -> Vec<String> {
        let kinds: BTreeSet<Kind> = self.components_on(node).map(|one| one.kind).collect();
        let has_plugin = kinds.contains(&Kind::DevicePlugin);
        let orphan = (!has_plugin && !node.offered.is_empty()).then(|| "a device plugin".to_owned());
        let offered = if node.offered.is_empty() { String::new() } else { format!(" ({})", node.offered.join(", ")) };
        let name = |kind: &Kind| match kind {
            Kind::DevicePlugin => format!("{}{offered}", kind.name()),
            Kind::MpsControl | Kind::MigManager | Kind::DraDriver => kind.name().to_owned(),
        };
        let own = (node.has_own_devices || self.own_pod(node).is_some()).then(|| "this driver".to_owned());
        let orphan = orphan.map(|name| format!("{name}{offered}"));
        kinds.iter().map(name).chain(orphan).chain(own).collect()
    }

    /// What NVIDIA's DRA driver left on a node where it is no longer.
    fn leftovers(&self, node: &Node) -> Vec<String> {
        if self.components_on(node).any(|one| one.kind == Kind::DraDriver) {
            return Vec::new();
        }
        let claims = node.claims.iter().filter(|claim| claim.is_of_nvidia);
        let claim = |claim: &Claim| {
            let Claim { namespace, name, device, .. } = claim;
            format!(
                "claim {namespace}/{name} has {device}, a name of NVIDIA's driver that this driver does not have: delete \
                 its pods, then `kubectl delete resourceclaim -n {namespace} {name}`; a new claim gets a device of this driver"
            )
        };
        let slices = (node.nvidia_devices > 0).then(|| {
            let (count, name) = (node.nvidia_devices, node.name());
            format!(
                "ResourceSlices of NVIDIA's driver for node {name} ({count} devices) are left: this driver replaces those of \
                 its own name; `kubectl delete resourceslices --field-selector spec.driver={DRIVER_OF_NVIDIA},spec.nodeName={name}` removes them"
            )
        });
        claims.map(claim).chain(slices).collect()
    }
}

/// A pod may have several devices.
fn distinct(users: &[User]) -> usize {
    users.iter().map(|user| (&user.namespace, &user.pod)).collect::<BTreeSet<_>>().len()
}

fn next(owner: Owner, node: &Node, their_pods: usize) -> String {
    let name = node.name();
    let is_pending = node.label(LABEL) == Some(PENDING);
    match owner {
        Owner::Both => "two owners: both would allocate the same GPUs; move it either way".to_owned(),
        Owner::Theirs if their_pods > 0 => format!("`kubectl gpu migrate {name} --wait`, when its pods may end"),
        Owner::Theirs => format!("`kubectl gpu migrate {name}`"),
        Owner::Ours => format!("moved; `kubectl gpu migrate {name} --back` returns it"),
        Owner::None if is_pending => format!("`kubectl gpu migrate {name}` goes on, with --back it returns"),
        Owner::None => format!("no owner; `kubectl gpu migrate {name}` gives it to this driver"),
    }
}
