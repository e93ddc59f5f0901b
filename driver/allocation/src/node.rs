// SPDX-License-Identifier: Apache-2.0
//! What the scheduler knows of a node: labels and taints, and the selectors that choose nodes by them.
//!
//! The rules are those of the Kubernetes documentation, "Assigning Pods to Nodes" and "Taints and Tolerations".

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

/// A node, as far as a pod or a slice can ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    pub name: Arc<str>,
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    pub taints: Vec<NodeTaint>,
    /// Whether the labels and taints were read. Without them no selector excludes the node.
    pub is_read: bool,
}

/// A taint of a node, of which the effect `PreferNoSchedule` is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeTaint {
    pub key: Arc<str>,
    pub value: Arc<str>,
    pub effect: Effect,
}

/// What a taint does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Informs; also the meaning of effects that are not known.
    None,
    NoSchedule,
    NoExecute,
}

impl NodeFacts {
    /// A node of which only the name is known.
    pub fn unread(name: Arc<str>) -> Self {
        Self { name, labels: BTreeMap::new(), taints: Vec::new(), is_read: false }
    }
}

/// The nodes that can use the devices of a slice.
#[derive(Debug, Clone, PartialEq)]
pub enum Scope {
    Node(Arc<str>),
    All,
    Selected(NodeSelector),
}

impl Scope {
    pub fn includes(&self, node: &NodeFacts) -> bool {
        match self {
            Self::Node(name) => *name == node.name,
            Self::All => true,
            Self::Selected(selector) => selector.matches(node),
        }
    }
}

/// Terms of which one must match.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSelector {
    pub node_selector_terms: Vec<Term>,
}

/// Requirements that must all match.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Term {
    pub match_expressions: Vec<Requirement>,
    pub match_fields: Vec<Requirement>,
}

/// A condition on one label, or on the field `metadata.name`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Requirement {
    pub key: String,
    pub operator: String,
    pub values: Vec<String>,
}

impl NodeSelector {
    pub fn matches(&self, node: &NodeFacts) -> bool {
        self.node_selector_terms.iter().any(|term| term.matches(node))
    }
}

impl Term {
    /// A term without requirements matches no node.
    fn matches(&self, node: &NodeFacts) -> bool {
        let name = |requirement: &Requirement| requirement.matches(Some(&node.name));
        let label = |requirement: &Requirement| {
            !node.is_read || requirement.matches(node.labels.get(requirement.key.as_str()).map(AsRef::as_ref))
        };
        !(self.match_expressions.is_empty() && self.match_fields.is_empty())
            && self.match_expressions.iter().all(label)
            && self.match_fields.iter().all(name)
    }
}

impl Requirement {
    fn matches(&self, found: Option<&str>) -> bool {
        let is_listed = || found.is_some_and(|found| self.values.iter().any(|value| value == found));
        match self.operator.as_str() {
            "In" => is_listed(),
            "NotIn" => !is_listed(),
            "Exists" => found.is_some(),
            "DoesNotExist" => found.is_none(),
            "Gt" => self.numbers(found).is_some_and(|(found, bound)| found > bound),
            "Lt" => self.numbers(found).is_some_and(|(found, bound)| found < bound),
            _ => false,
        }
    }

    fn numbers(&self, found: Option<&str>) -> Option<(i64, i64)> {
        Some((found?.parse().ok()?, self.values.first()?.parse().ok()?))
    }
}

/// A taint that a pod or a request accepts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Toleration {
    pub key: String,
    /// `Equal` if empty.
    pub operator: String,
    pub value: String,
    /// Every effect if empty.
    pub effect: String,
}

impl Toleration {
    /// The same rule holds for nodes and devices (`ToleratesTaint` of the DRA library).
    pub fn tolerates(&self, key: &str, value: &str, effect: Effect) -> bool {
        let effect = match effect {
            Effect::None => "None",
            Effect::NoSchedule => "NoSchedule",
            Effect::NoExecute => "NoExecute",
        };
        let has_key = if self.key.is_empty() { self.operator == "Exists" } else { self.key == key };
        let has_effect = self.effect.is_empty() || self.effect == effect;
        has_effect && has_key && (self.operator == "Exists" || self.value == value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeFacts {
        let labels = [("zone", "a"), ("gpus", "8")].map(|(key, value)| (key.into(), value.into())).into();
        NodeFacts { name: "n1".into(), labels, taints: Vec::new(), is_read: true }
    }

    fn requirement(key: &str, operator: &str, values: &[&str]) -> Requirement {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        Requirement { key: key.to_owned(), operator: operator.to_owned(), values }
    }

    #[test]
    fn labels_are_compared_as_the_scheduler_does() {
        for (key, operator, values, expect) in [
            ("zone", "In", &["a", "b"][..], true),
            ("zone", "In", &["b"], false),
            ("zone", "NotIn", &["b"], true),
            ("rack", "NotIn", &["b"], true),
            ("rack", "Exists", &[], false),
            ("rack", "DoesNotExist", &[], true),
            ("gpus", "Gt", &["4"], true),
            ("gpus", "Lt", &["4"], false),
            ("zone", "Near", &["a"], false),
        ] {
            let term = Term { match_expressions: vec![requirement(key, operator, values)], match_fields: Vec::new() };
            let selector = NodeSelector { node_selector_terms: vec![Term::default(), term] };
            assert_eq!(selector.matches(&node()), expect, "{key} {operator} {values:?}");
        }
    }

    #[test]
    fn fields_name_nodes_and_unread_labels_exclude_none() {
        let by_name = |name| Term {
            match_fields: vec![requirement("metadata.name", "In", &[name])],
            match_expressions: vec![requirement("zone", "In", &["b"])],
        };
        let unread = NodeFacts::unread("n1".into());
        let matches = |name, node| NodeSelector { node_selector_terms: vec![by_name(name)] }.matches(node);
        assert_eq!([matches("n1", &unread), matches("n2", &unread), matches("n1", &node())], [true, false, false]);
    }

    #[test]
    fn tolerations_match_key_value_and_effect() {
        let toleration = |key: &str, operator: &str, value: &str, effect: &str| {
            let [key, operator, value, effect] = [key, operator, value, effect].map(str::to_owned);
            Toleration { key, operator, value, effect }
        };
        for (toleration, expect) in [
            (toleration("k", "", "v", ""), true),
            (toleration("k", "Equal", "w", ""), false),
            (toleration("k", "Exists", "", "NoSchedule"), true),
            (toleration("k", "Exists", "", "NoExecute"), false),
            (toleration("", "Exists", "", ""), true),
            (toleration("", "", "v", ""), false),
        ] {
            assert_eq!(toleration.tolerates("k", "v", Effect::NoSchedule), expect, "{toleration:?}");
        }
    }
}
