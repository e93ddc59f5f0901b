// SPDX-License-Identifier: Apache-2.0
//! The next step of a move of one node, from what is there now. Pure.
//!
//! One side leaves before the other comes, so that a GPU never has two owners: `pending` is the label in between.

use std::collections::BTreeMap;

use dra_allocation::node::NodeFacts;
use serde_json::{Value, json};

use super::{Cluster, Component, ENABLED, Kind, LABEL, Node, Owner, PENDING, User};

/// To this driver, or to NVIDIA's components.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    ToUs,
    Back,
}

/// Labels of the node with their new values; one without a value is removed.
pub type Labels = BTreeMap<String, Option<String>>;

/// What is done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Done,
    /// Each with what must be changed first.
    Refused(Vec<String>),
    /// Pods use GPUs of the side that leaves. With these labels no further pod gets one.
    InUse {
        users: Vec<User>,
        closing: Labels,
    },
    Change(Labels),
    /// For programs that start or end.
    Wait(String),
}

/// The next step for a node.
pub fn step(cluster: &Cluster, node: &Node, direction: Direction) -> Step {
    match direction {
        Direction::ToUs => to_us(cluster, node),
        Direction::Back => back(cluster, node),
    }
}

fn to_us(cluster: &Cluster, node: &Node) -> Step {
    let own_pod = cluster.own_pod(node);
    if cluster.owner(node) == Owner::Ours && own_pod.is_some_and(|pod| pod.is_ready) && node.has_own_devices {
        return Step::Done;
    }
    let mut leaving = labels(cluster.components.iter().filter(|one| one.choice.selects(&node.facts)), |_| "false");
    leaving.insert(LABEL.to_owned(), Some(PENDING.to_owned()));
    let refused = refusals(cluster, &with(&node.facts, &leaving));
    if !refused.is_empty() {
        return Step::Refused(refused);
    }
    let users = cluster.their_users(node);
    let needs_driver = cluster.components_on(node).any(|one| one.kind == Kind::DraDriver);
    let has_left = !cluster.components.iter().any(|one| one.choice.selects(&node.facts));
    if !users.is_empty() {
        // Pods of a DRA driver need it until they end.
        let is_closed = needs_driver || has_left;
        return Step::InUse { users, closing: if is_closed { Labels::new() } else { leaving } };
    }
    if !has_left {
        return Step::Change(leaving);
    }
    if let Some(one) = cluster.components_on(node).next() {
        return Step::Wait(format!("the end of the pod of DaemonSet {}", one.label()));
    }
    if !node.offered.is_empty() {
        return Step::Wait(format!("the kubelet to withdraw {}", node.offered.join(", ")));
    }
    if node.label(LABEL) != Some(ENABLED) {
        return Step::Change([(LABEL.to_owned(), Some(ENABLED.to_owned()))].into());
    }
    Step::Wait("the pod of this driver and its ResourceSlices".to_owned())
}

fn back(cluster: &Cluster, node: &Node) -> Step {
    let pending = Labels::from([(LABEL.to_owned(), Some(PENDING.to_owned()))]);
    let closed = with(&node.facts, &pending);
    if let Some(own) = cluster.own.as_ref().filter(|own| own.choice.selects(&closed)) {
        return Step::Refused(vec![select_by_label(&own.namespace, &own.name, &own.release)]);
    }
    let users = cluster.our_users(node);
    if !users.is_empty() {
        return Step::InUse { users, closing: Labels::new() };
    }
    let is_selected = cluster.own.as_ref().is_some_and(|own| own.choice.selects(&node.facts));
    if is_selected {
        return Step::Change(pending);
    }
    if cluster.own_pod(node).is_some() {
        return Step::Wait("the end of the pod of this driver".to_owned());
    }
    if node.has_own_devices {
        return Step::Wait("the kubelet to remove the ResourceSlices of this driver".to_owned());
    }
    let mut restored = labels(cluster.components.iter(), |value| value);
    restored.retain(|key, _| node.label(key) == Some("false"));
    if node.label(LABEL).is_some() {
        restored.insert(LABEL.to_owned(), None);
    }
    if !restored.is_empty() {
        return Step::Change(restored);
    }
    let starting = cluster.components_on(node).find(|one| {
        let pod = cluster.pod_of(&one.namespace, &one.name, node.name());
        !pod.is_some_and(|pod| pod.is_ready) || (one.kind == Kind::DevicePlugin && node.offered.is_empty())
    });
    match starting {
        Some(one) => Step::Wait(format!("DaemonSet {} to offer the GPUs of the node", one.label())),
        None => Step::Done,
    }
}

/// The labels of NVIDIA's operator that components select.
fn labels<'a>(components: impl Iterator<Item = &'a Component>, value: impl Fn(&'a str) -> &'a str) -> Labels {
    let all = components.flat_map(Component::operator_labels);
    all.map(|(key, needed)| (key.to_owned(), Some(value(needed).to_owned()))).collect()
}

/// The node with changed labels.
pub fn with(node: &NodeFacts, changed: &Labels) -> NodeFacts {
    let mut node = node.clone();
    for (key, value) in changed {
        match value {
            Some(value) => node.labels.insert(key.as_str().into(), value.as_str().into()),
            None => node.labels.remove(key.as_str()),
        };
    }
    node
}

/// What keeps the node from leaving NVIDIA's components, or this driver from waiting until they left.
fn refusals(cluster: &Cluster, closed: &NodeFacts) -> Vec<String> {
    let staying = cluster.components.iter().filter(|one| one.choice.selects(closed)).map(exclude_by_label);
    let own = match &cluster.own {
        None => Some(install()),
        Some(own) => {
            let enabled = with(closed, &[(LABEL.to_owned(), Some(ENABLED.to_owned()))].into());
            let obeys = !own.choice.selects(closed) && own.choice.selects(&enabled);
            (!obeys).then(|| select_by_label(&own.namespace, &own.name, &own.release))
        }
    };
    staying.chain(own).collect()
}

/// What must be done once, so that this driver runs only on moved nodes.
pub fn prepare_own(cluster: &Cluster) -> Option<String> {
    match &cluster.own {
        None => Some(install()),
        Some(own) => {
            let obeys = own.choice.labels.get(LABEL).is_some_and(|value| value == ENABLED);
            (!obeys).then(|| select_by_label(&own.namespace, &own.name, &own.release))
        }
    }
}

/// What must be done once, so that the component leaves nodes with the label.
pub fn prepare_component(one: &Component) -> Option<String> {
    let excludes = |term: &Value| expressions(term).iter().any(|found| found == &no_label());
    let terms = terms(&one.affinity);
    let obeys = one.operator_labels().next().is_some() || (!terms.is_empty() && terms.iter().all(excludes));
    (!obeys).then(|| exclude_by_label(one))
}

const SELECTOR: &str = r"--set-string 'kubeletPlugin.nodeSelector.gpu\.nvidia\.com/dra-driver=enabled'";

fn install() -> String {
    format!(
        "this driver is not installed: `helm install gpu-dra-driver deploy/chart -n gpu-dra-driver --create-namespace {SELECTOR}`"
    )
}

fn select_by_label(namespace: &str, name: &str, release: &str) -> String {
    format!(
        "DaemonSet {namespace}/{name} of this driver does not select nodes by the label {LABEL}={ENABLED}: \
         `helm upgrade {release} deploy/chart -n {namespace} --reuse-values {SELECTOR}`"
    )
}

fn no_label() -> Value {
    json!({"key": LABEL, "operator": "DoesNotExist"})
}

fn terms(affinity: &Value) -> Vec<Value> {
    let path = "/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    affinity.pointer(path).and_then(Value::as_array).cloned().unwrap_or_default()
}

fn expressions(term: &Value) -> Vec<Value> {
    term.get("matchExpressions").and_then(Value::as_array).cloned().unwrap_or_default()
}

/// A DaemonSet that is not of NVIDIA's operator is never changed by this program: its administrator does it once, for all nodes.
fn exclude_by_label(one: &Component) -> String {
    let found = terms(&one.affinity);
    let found = if found.is_empty() { vec![json!({})] } else { found };
    let excluding = |mut term: Value| {
        let all: Vec<Value> = expressions(&term).into_iter().chain([no_label()]).collect();
        if let Some(term) = term.as_object_mut() {
            term.insert("matchExpressions".to_owned(), all.into());
        }
        term
    };
    let terms: Vec<Value> = found.into_iter().map(excluding).collect();
    let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
    let patch = json!({"spec": {"template": {"spec": {"affinity": {"nodeAffinity": required}}}}});
    let Component { namespace, name, .. } = one;
    let patch = patch.to_string().replace('\'', r"'\''");
    format!(
        "DaemonSet {namespace}/{name} does not leave nodes with the label {LABEL}: \
         `kubectl patch daemonset -n {namespace} {name} --type=merge -p '{patch}'`, and the same `affinity` in the values of its chart"
    )
}
