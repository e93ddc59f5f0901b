// SPDX-License-Identifier: Apache-2.0
//! The slices of whole nodes, as the API server gets them, compared with committed files.
//!
//! `UPDATE_GOLDEN=1 cargo test -p dra-resource --test golden` writes the files anew.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test")]

use std::fs;
use std::path::Path;

use dra_model::Inventory;
use dra_resource::{Features, Pool, Write, diff, pack};

fn rendered(inventory: &Inventory, features: Features) -> String {
    let pool = Pool {
        driver: "gpu.nvidia.com".parse().unwrap(),
        node: "node-1".parse().unwrap(),
        node_uid: "11111111-2222-3333-4444-555555555555".to_owned(),
    };
    let mut text = String::new();
    for write in diff(&pool, &pack(inventory, features), &[]) {
        match write {
            Write::Create(slice) => {
                text.push_str("---\n");
                text.push_str(&serde_saphyr::to_string(&slice).unwrap());
            }
            Write::Delete { .. } | Write::Update(_) => panic!("nothing was there before"),
        }
    }
    text
}

fn check(inventory: &str, features: Features, golden: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = fs::read_to_string(root.join("testdata").join(inventory)).unwrap();
    let given = rendered(&serde_json::from_str(&source).unwrap(), features);
    let path = root.join("tests/golden").join(golden);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &given).unwrap();
    }
    let expect = fs::read_to_string(&path).unwrap_or_default();
    assert!(given == expect, "{golden} differs; look at the difference after UPDATE_GOLDEN=1:\n{given}");
}

const WITH_COUNTERS: Features = Features { partitionable: true };

#[test]
fn gpus_without_mig() {
    check("t4.json", WITH_COUNTERS, "t4.yaml");
}

#[test]
fn cut_gpus_with_partial_compute_instances() {
    check("a100-mig.json", WITH_COUNTERS, "a100-mig.yaml");
}

#[test]
fn eight_gpus_of_which_two_are_cut() {
    check("h100-8.json", WITH_COUNTERS, "h100-8.yaml");
}

#[test]
fn servers_without_counters_get_the_same_devices() {
    check("h100-8.json", Features { partitionable: false }, "h100-8-without-counters.yaml");
}

#[test]
fn broken_gpus_are_left_out() {
    check("b200-and-broken.json", WITH_COUNTERS, "b200-and-broken.yaml");
}

#[test]
fn nodes_without_a_driver_have_an_empty_slice() {
    check("no-driver.json", WITH_COUNTERS, "no-driver.yaml");
}
