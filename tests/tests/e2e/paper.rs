// SPDX-License-Identifier: Apache-2.0
//! Nodes that exist on paper only, with names that begin with `paper`: the scheduler uses them as any other node, and no kubelet prepares anything.
//!
//! Their slices are packed by the driver's own code from simulated GPUs.

use crate::arena::Arena;
use dra_hardware::discover::discover;
use dra_model::Inventory;
use dra_resource::{Features, Form, Offer, Pool, Write, diff, pack};
use dra_sim::{Setup, Simulator, catalog};
use serde_json::{Value, json};
use std::path::Path;

/// Of the taint of these nodes, which the pods of the driver do not tolerate, and of the label of their slices.
const KEY: &str = "paper";

/// A node with room for a thousand pods.
pub(crate) fn create_node(arena: &Arena, name: &str) {
    let labels = json!({"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", KEY: "true"});
    let taints = json!([{"key": KEY, "effect": "NoSchedule"}]);
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": {"taints": taints}});
    arena.apply(&node.to_string());
    let room = json!({"cpu": "64", "memory": "64Gi", "pods": "1000"});
    let status = json!({"status": {"capacity": room, "allocatable": room}}).to_string();
    arena.kubectl(&["patch", "node", name, "--subresource=status", "-p", &status]);
}

/// A node with this many GPUs of a model of the simulator.
pub(crate) fn create_node_with_gpus(arena: &Arena, name: &str, model: &str, count: usize) {
    create_node(arena, name);
    let model = catalog::model(model).unwrap();
    let setup = Setup { seed: name.to_owned(), gpus: vec![model; count], driver_version: "580.95.05".to_owned() };
    let inventory = discover(&Simulator::new(&setup), Path::new("/nonexistent"));
    publish(arena, name, &inventory);
}

fn publish(arena: &Arena, node: &str, inventory: &Inventory) {
    let uid = arena.kubectl(&["get", "node", node, "-o", "jsonpath={.metadata.uid}"]);
    let pool =
        Pool { driver: dra_demo::published::DRIVER.parse().unwrap(), node: node.parse().unwrap(), node_uid: uid };
    let offer = Offer { forms: Form::ALL.into(), ..Offer::of_hardware(Features::ALL) };
    let writes = diff(&pool, &pack(&pool.driver, inventory, &offer), &[]);
    let slices: Vec<Value> = writes.iter().filter_map(Write::slice).map(|slice| json!(slice)).collect();
    arena.apply(&json!({"apiVersion": "v1", "kind": "List", "items": slices}).to_string());
}

/// Deletes the nodes of this file and waits for their slices, which they own, to follow.
pub(crate) fn delete_nodes(arena: &Arena) {
    arena.kubectl(&["delete", "nodes", "-l", KEY]);
    arena.until("the end of the slices on paper", || {
        let pools = arena.pools();
        (!pools.keys().any(|name| name.starts_with(KEY))).then_some(())
    });
}
