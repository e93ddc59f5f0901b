// SPDX-License-Identifier: Apache-2.0
//! The nodes that a pod accepts, and that accept it: node selector, required node affinity and taints of nodes.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use crate::node::{Effect, NodeFacts, NodeSelector, NodeTaint, Toleration};

/// What a pod asks of nodes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodRules {
    pub node_selector: BTreeMap<String, String>,
    /// `requiredDuringSchedulingIgnoredDuringExecution`.
    pub affinity: Option<NodeSelector>,
    pub tolerations: Vec<Toleration>,
}

/// What keeps a pod from a node before its claims are looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exclusion {
    /// A label of the pod's node selector.
    Label {
        key: String,
        value: String,
    },
    Affinity,
    Taint {
        key: String,
        value: String,
    },
    Cordoned,
    /// The claim is allocated already, for other nodes.
    ClaimElsewhere {
        claim: String,
    },
}

impl fmt::Display for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label { key, value } => write!(f, "the pod's nodeSelector needs the label {key}={value}"),
            Self::Affinity => f.write_str("the pod's required node affinity does not match"),
            Self::Taint { key, value } if value.is_empty() => {
                write!(f, "the pod does not tolerate the node taint {key}")
            }
            Self::Taint { key, value } => write!(f, "the pod does not tolerate the node taint {key}={value}"),
            Self::Cordoned => f.write_str("the node is cordoned"),
            Self::ClaimElsewhere { claim } => write!(f, "claim {claim} is allocated on another node"),
        }
    }
}

/// The taint of a node that `kubectl cordon` sets.
const CORDONED: &str = "node.kubernetes.io/unschedulable";

impl PodRules {
    /// Reads the `spec` of a pod.
    pub fn read(spec: &serde_json::Value) -> Result<Self, serde_json::Error> {
        let spec: Spec = Spec::deserialize(spec)?;
        let required = spec.affinity.and_then(|affinity| affinity.node_affinity);
        Ok(Self {
            node_selector: spec.node_selector,
            affinity: required.and_then(|affinity| affinity.required),
            tolerations: spec.tolerations,
        })
    }

    /// The first rule that excludes a node. One of which only the name is known is excluded by none but its name.
    pub fn exclusion(&self, node: &NodeFacts) -> Option<Exclusion> {
        if self.affinity.as_ref().is_some_and(|affinity| !affinity.matches(node)) {
            return Some(Exclusion::Affinity);
        }
        if !node.is_read {
            return None;
        }
        let has = |key: &str, value: &str| node.labels.get(key).is_some_and(|found| **found == *value);
        if let Some((key, value)) = self.node_selector.iter().find(|(key, value)| !has(key, value)) {
            return Some(Exclusion::Label { key: key.clone(), value: value.clone() });
        }
        node.taints.iter().find_map(|taint| self.repelled(taint))
    }

    fn repelled(&self, taint: &NodeTaint) -> Option<Exclusion> {
        let NodeTaint { key, value, effect } = taint;
        let is_tolerated = self.tolerations.iter().any(|toleration| toleration.tolerates(key, value, *effect));
        match effect {
            Effect::None => None,
            Effect::NoSchedule | Effect::NoExecute if is_tolerated => None,
            Effect::NoSchedule | Effect::NoExecute if **key == *CORDONED => Some(Exclusion::Cordoned),
            Effect::NoSchedule | Effect::NoExecute => {
                Some(Exclusion::Taint { key: key.to_string(), value: value.to_string() })
            }
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_selector: BTreeMap<String, String>,
    affinity: Option<Affinity>,
    tolerations: Vec<Toleration>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Affinity {
    node_affinity: Option<NodeAffinity>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    required: Option<NodeSelector>,
}

/// A list of nodes that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("failed to parse a list of nodes")]
pub struct NodesError(#[source] serde_json::Error);

/// Adds the nodes of a list and returns the token of the next page, if there is one.
pub fn add_nodes(json: &[u8], nodes: &mut Vec<NodeFacts>) -> Result<Option<String>, NodesError> {
    let list: NodeList = serde_json::from_slice(json).map_err(NodesError)?;
    nodes.extend(list.items.into_iter().map(Node::facts));
    Ok(list.metadata.next.filter(|next| !next.is_empty()))
}

#[derive(Deserialize)]
struct NodeList {
    #[serde(default)]
    metadata: ListMeta,
    items: Vec<Node>,
}

#[derive(Default, Deserialize)]
struct ListMeta {
    #[serde(rename = "continue")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Node {
    metadata: Metadata,
    #[serde(default)]
    spec: NodeSpec,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeSpec {
    unschedulable: bool,
    taints: Vec<RawTaint>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawTaint {
    key: String,
    value: String,
    effect: String,
}

impl Node {
    fn facts(self) -> NodeFacts {
        let Self { metadata, spec } = self;
        let taints = spec.taints.into_iter().filter_map(|taint| {
            let effect = match taint.effect.as_str() {
                "NoSchedule" => Effect::NoSchedule,
                "NoExecute" => Effect::NoExecute,
                _ => return None,
            };
            Some(NodeTaint { key: taint.key.into(), value: taint.value.into(), effect })
        });
        let mut taints: Vec<NodeTaint> = taints.collect();
        if spec.unschedulable && !taints.iter().any(|taint| *taint.key == *CORDONED) {
            taints.push(NodeTaint { key: CORDONED.into(), value: "".into(), effect: Effect::NoSchedule });
        }
        let labels = metadata.labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        NodeFacts { name: metadata.name.into(), labels, taints, is_read: true }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(spec: &Value) -> NodeFacts {
        let node = json!({"metadata": {"name": "n1", "labels": {"zone": "a"}}, "spec": spec});
        let mut nodes = Vec::new();
        add_nodes(json!({"metadata": {}, "items": [node]}).to_string().as_bytes(), &mut nodes).unwrap();
        nodes.swap_remove(0)
    }

    /// Why a pod does not run on a node; empty if it does.
    fn excluded(pod: &Value, node: &NodeFacts) -> String {
        PodRules::read(pod).unwrap().exclusion(node).map(|exclusion| exclusion.to_string()).unwrap_or_default()
    }

    #[test]
    fn pods_are_excluded_by_labels_affinity_and_taints() {
        let plain = node(&json!({}));
        let tainted = node(
            &json!({"taints": [{"key": "team", "value": "ml", "effect": "NoSchedule"}, {"key": "x", "effect": "PreferNoSchedule"}]}),
        );
        let cordoned = node(&json!({"unschedulable": true}));
        let affinity = |zone: &str| {
            let terms = json!([{"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]}]);
            let required = json!({"nodeSelectorTerms": terms});
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}})
        };
        let tolerating = json!({"tolerations": [{"key": "team", "operator": "Exists"}]});
        for (pod, node, expect) in [
            (json!({}), &plain, ""),
            (json!({"nodeSelector": {"zone": "a"}}), &plain, ""),
            (json!({"nodeSelector": {"zone": "b"}}), &plain, "the pod's nodeSelector needs the label zone=b"),
            (affinity("a"), &plain, ""),
            (affinity("b"), &plain, "the pod's required node affinity does not match"),
            (json!({}), &tainted, "the pod does not tolerate the node taint team=ml"),
            (tolerating.clone(), &tainted, ""),
            (tolerating, &cordoned, "the node is cordoned"),
        ] {
            assert_eq!(excluded(&pod, node), expect, "{pod}");
        }
        let unread = NodeFacts::unread("n1".into());
        assert_eq!(excluded(&json!({"nodeSelector": {"zone": "b"}}), &unread), "");
    }
}
