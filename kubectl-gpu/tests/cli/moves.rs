// SPDX-License-Identifier: Apache-2.0
//! A node never has two owners while it moves: the labels of `migrate` are played on a model of Kubernetes.

use dra_allocation::node::NodeFacts;
use dra_kubectl_gpu::migrate::moving::{Direction, Step, step, with};
use dra_kubectl_gpu::migrate::parse::{DaemonSet, RawSet};
use dra_kubectl_gpu::migrate::{Cluster, Component, Node, OwnSet, Owner, SetPod};
use serde_json::Value;

use crate::migrate::{chart_plugin, labelled, mig_manager, operator_plugin, plain_plugin};
use crate::world::DRIVER;

fn component(set: &Value) -> Component {
    let set: RawSet = serde_json::from_value(set.clone()).unwrap();
    match set.set(DRIVER) {
        Some(DaemonSet::Theirs(component)) => Some(component),
        Some(DaemonSet::Ours(_)) | None => None,
    }
    .unwrap()
}

fn own_set() -> OwnSet {
    let set: RawSet = serde_json::from_value(labelled()).unwrap();
    match set.set(DRIVER) {
        Some(DaemonSet::Ours(own)) => Some(own),
        Some(DaemonSet::Theirs(_)) | None => None,
    }
    .unwrap()
}

/// A cluster of one node whose DaemonSet controller and kubelet do one thing at a time.
struct Played {
    cluster: Cluster,
    seen: Vec<Owner>,
}

impl Played {
    fn new(components: Vec<Component>, labels: &[(&str, &str)]) -> Self {
        let labels = labels.iter().map(|(key, value)| ((*key).into(), (*value).into()));
        let linux = ("kubernetes.io/os".into(), "linux".into());
        let labels = labels.chain([linux]).collect();
        let node = Node {
            facts: NodeFacts { name: "n".into(), labels, taints: Vec::new(), is_read: true },
            offered: Vec::new(),
            plugin_users: Vec::new(),
            claims: Vec::new(),
            has_own_devices: false,
            nvidia_devices: 0,
        };
        let cluster = Cluster { nodes: vec![node], components, own: Some(own_set()), ..Cluster::default() };
        let mut played = Self { cluster, seen: Vec::new() };
        while played.react() {}
        played
    }

    /// Each DaemonSet and what its pod offers, with whether it has the node.
    fn sets(&self) -> Vec<(String, String, bool, bool)> {
        let facts = &self.cluster.nodes[0].facts;
        let theirs =
            self.cluster.components.iter().map(|one| (&one.namespace, &one.name, one.choice.selects(facts), false));
        let own = self.cluster.own.iter().map(|own| (&own.namespace, &own.name, own.choice.selects(facts), true));
        theirs
            .chain(own)
            .map(|(namespace, name, selects, is_own)| (namespace.clone(), name.clone(), selects, is_own))
            .collect()
    }

    /// One reaction of Kubernetes to the labels; the last first, so that a pod that comes is seen before one that goes.
    fn react(&mut self) -> bool {
        for (namespace, set, selects, is_own) in self.sets().into_iter().rev() {
            let at = self.cluster.set_pods.iter().position(|pod| pod.namespace == namespace && pod.set == set);
            let node = &mut self.cluster.nodes[0];
            let is_offering = if is_own { node.has_own_devices } else { !node.offered.is_empty() };
            match (selects, at) {
                (true, None) => {
                    self.cluster.set_pods.push(SetPod { namespace, set, node: "n".to_owned(), is_ready: true });
                }
                (false, Some(at)) => drop(self.cluster.set_pods.remove(at)),
                (has_pod, _) if has_pod != is_offering => {
                    if is_own {
                        node.has_own_devices = has_pod;
                    } else {
                        node.offered = if has_pod { vec!["nvidia.com/gpu: 8".to_owned()] } else { Vec::new() };
                    }
                }
                (true | false, _) => continue,
            }
            self.seen.push(self.cluster.owner(&self.cluster.nodes[0]));
            return true;
        }
        false
    }

    /// Runs the command until it is done or refuses; it is killed before each of its changes, and started again.
    fn run(&mut self, direction: Direction) -> Step {
        let one = |_| match step(&self.cluster, &self.cluster.nodes[0], direction) {
            Step::Change(labels) => {
                self.cluster.nodes[0].facts = with(&self.cluster.nodes[0].facts, &labels);
                self.react();
                None
            }
            Step::Wait(what) => {
                assert!(self.react(), "{what} never happens");
                None
            }
            end @ (Step::Done | Step::Refused(_) | Step::InUse { .. }) => Some(end),
        };
        (0..100).find_map(one).unwrap()
    }
}

#[test]
fn a_node_never_has_two_owners_and_comes_back_as_it_was() {
    let of_operator = ("nvidia.com/gpu.deploy.device-plugin", "true");
    let managed = [of_operator, ("nvidia.com/gpu.deploy.mig-manager", "true")];
    for (components, labels) in [
        (vec![component(&operator_plugin())], &[of_operator][..]),
        (vec![component(&operator_plugin()), component(&mig_manager())], &managed[..]),
        (vec![component(&patched(&plain_plugin()))], &[]),
        (vec![component(&patched(&chart_plugin()))], &[("nvidia.com/gpu.present", "true")]),
    ] {
        let mut played = Played::new(components, labels);
        let before = played.cluster.nodes[0].clone();
        assert_eq!(played.cluster.owner(&before), Owner::Theirs);
        played.seen.clear();
        assert_eq!(played.run(Direction::ToUs), Step::Done);
        assert_eq!(played.cluster.owner(&played.cluster.nodes[0]), Owner::Ours);
        assert_eq!(played.run(Direction::Back), Step::Done);
        assert_eq!(played.cluster.nodes[0], before);
        assert!(!played.seen.contains(&Owner::Both), "{:?}", played.seen);
    }
}

/// The DaemonSet after the command that a refusal names.
fn patched(set: &Value) -> Value {
    let one = component(set);
    let mut played = Played::new(vec![one], &[("nvidia.com/gpu.present", "true")]);
    let reasons = match played.run(Direction::ToUs) {
        Step::Refused(reasons) => reasons,
        Step::Done | Step::InUse { .. } | Step::Change(_) | Step::Wait(_) => Vec::new(),
    };
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    let patch = reasons[0].split("-p '").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
    let patch: Value = serde_json::from_str(patch).unwrap();
    let mut set = set.clone();
    crate::changes::merge(&mut set, &patch);
    set
}
