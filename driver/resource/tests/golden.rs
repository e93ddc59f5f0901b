// SPDX-License-Identifier: Apache-2.0
//! The slices of whole nodes, as the API server gets them, compared with committed files.
//!
//! `UPDATE_GOLDEN=1 cargo test -p dra-resource --test golden` writes the files anew.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test")]

use std::fs;
use std::path::Path;

use dra_model::Inventory;
use dra_resource::{Features, Form, Offer, Pool, Write, diff, pack};

fn rendered(inventory: &Inventory, offer: &Offer) -> String {
    let pool = Pool {
        driver: "gpu.nvidia.com".parse().unwrap(),
        node: "node-1".parse().unwrap(),
        node_uid: "11111111-2222-3333-4444-555555555555".to_owned(),
    };
    let mut text = String::new();
    for write in diff(&pool, &pack(&pool.driver, inventory, offer), &[]) {
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

fn check(inventory: &str, offer: &Offer, golden: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = fs::read_to_string(root.join("testdata").join(inventory)).unwrap();
    let given = rendered(&serde_json::from_str(&source).unwrap(), offer);
    let path = root.join("tests/golden").join(golden);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &given).unwrap();
    }
    let expect = fs::read_to_string(&path).unwrap_or_default();
    assert!(given == expect, "{golden} differs; compare after UPDATE_GOLDEN=1:\n{given}");
}

const NEWEST: Features = Features::ALL;

/// All forms, as far as such an API server supports them.
fn every_form(features: Features) -> Offer {
    Offer { features, forms: Form::ALL.into(), ..Offer::of_hardware(features) }
}

#[test]
fn gpus_without_mig() {
    check("t4.json", &every_form(NEWEST), "t4.yaml");
}

#[test]
fn cut_gpus_with_partial_compute_instances() {
    check("a100-mig.json", &every_form(NEWEST), "a100-mig.yaml");
}

#[test]
fn eight_gpus_of_which_two_are_cut() {
    check("h100-8.json", &every_form(NEWEST), "h100-8.yaml");
}

#[test]
fn servers_without_counters_get_the_hardware_alone() {
    let features = Features { partitionable: false, consumable: true, ..Features::ALL };
    check("h100-8.json", &every_form(features), "h100-8-without-counters.yaml");
}

#[test]
fn servers_without_shares_get_the_hardware_alone_and_so_does_who_wants_no_more() {
    let features = Features { partitionable: true, consumable: false, ..Features::ALL };
    check("h100-8.json", &every_form(features), "h100-8-without-shares.yaml");
    check("h100-8.json", &Offer::of_hardware(NEWEST), "h100-8-without-shares.yaml");
}

#[test]
fn broken_gpus_are_left_out() {
    check("b200-and-broken.json", &every_form(NEWEST), "b200-and-broken.yaml");
}

#[test]
fn nodes_without_a_driver_have_an_empty_slice() {
    check("no-driver.json", &every_form(NEWEST), "no-driver.yaml");
}
