// SPDX-License-Identifier: Apache-2.0
//! How many writes a change costs, and which generation they carry.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "test")]

use dra_model::{GpuEntry, Inventory, MigMode};
use dra_resource::{Features, Form, Offer, Pool, ShareSettings, Write, diff, pack};
use k8s_openapi::api::resource::v1::ResourceSlice;

fn every_form(features: Features) -> Offer {
    Offer { features, forms: Form::ALL.into(), ..Offer::of_hardware(features) }
}

fn offer() -> Offer {
    every_form(Features::ALL)
}

fn node() -> Inventory {
    serde_json::from_str(include_str!("../testdata/h100-8.json")).unwrap()
}

fn pool() -> Pool {
    Pool { driver: "gpu.nvidia.com".parse().unwrap(), node: "n".parse().unwrap(), node_uid: "u".to_owned() }
}

/// What the API server has after the first publishing.
fn published(inventory: &Inventory) -> Vec<ResourceSlice> {
    diff(&pool(), &pack(&pool().driver, inventory, &offer()), &[])
        .into_iter()
        .map(|write| match write {
            Write::Create(slice) => *slice,
            Write::Delete { .. } | Write::Update(_) => panic!("nothing was there before"),
        })
        .collect()
}

/// The writes in short: what, which slice by position in the name, which generation.
fn writes(inventory: &Inventory, offer: &Offer, observed: &[ResourceSlice]) -> Vec<String> {
    let short = |verb: &str, slice: &ResourceSlice| {
        format!("{verb} {} at {}", &slice.metadata.name.as_ref().unwrap()[..5], slice.spec.pool.generation)
    };
    diff(&pool(), &pack(&pool().driver, inventory, offer), observed)
        .iter()
        .map(|write| match write {
            Write::Delete { name, .. } => format!("delete {}", &name[..5]),
            Write::Update(slice) => short("update", slice),
            Write::Create(slice) => short("create", slice),
        })
        .collect()
}

fn without_last_mig_device(mut inventory: Inventory) -> Inventory {
    let cut = inventory.gpus.iter_mut().find_map(|entry| match entry {
        GpuEntry::Known { gpu, .. } => match &mut gpu.mig {
            MigMode::On { devices, .. } => Some(devices),
            MigMode::Unsupported | MigMode::Off(_) => None,
        },
        GpuEntry::Unidentified { .. } => None,
    });
    cut.unwrap().pop();
    inventory
}

#[test]
fn the_first_publishing_creates_and_a_repeat_writes_nothing() {
    assert_eq!(writes(&node(), &offer(), &[]), ["create 00000 at 1", "create 00001 at 1"]);
    assert_eq!(writes(&node(), &offer(), &published(&node())), Vec::<String>::new());
}

#[test]
fn a_mig_device_that_goes_is_one_write_of_the_same_generation() {
    let after = without_last_mig_device(node());
    assert_eq!(writes(&after, &offer(), &published(&node())), ["update 00001 at 1"]);
}

#[test]
fn a_slice_that_went_missing_is_put_back_by_one_write() {
    assert_eq!(writes(&node(), &offer(), &published(&node())[1..]), ["create 00000 at 1"]);
}

#[test]
fn an_edited_slice_is_repaired_by_one_write() {
    let mut observed = published(&node());
    observed[1].spec.devices.as_mut().unwrap().pop();
    assert_eq!(writes(&node(), &offer(), &observed), ["update 00001 at 1"]);
}

#[test]
fn a_change_of_several_slices_takes_a_new_generation_for_all() {
    let mut after = node();
    after.gpus.pop();
    assert_eq!(writes(&after, &offer(), &published(&node())), ["update 00000 at 2", "update 00001 at 2"]);
    let mut missing_and_edited = published(&node());
    missing_and_edited.remove(0);
    missing_and_edited[0].spec.devices.as_mut().unwrap().pop();
    assert_eq!(writes(&node(), &offer(), &missing_and_edited), ["update 00001 at 2", "create 00000 at 2"]);
}

#[test]
fn without_counters_the_slice_of_counters_goes_first() {
    let without = every_form(Features { partitionable: false, consumable: true, ..Features::ALL });
    assert_eq!(writes(&node(), &without, &published(&node())), ["delete 00001", "update 00000 at 1"]);
}

#[test]
fn removed_or_resized_shares_are_one_write() {
    let without = every_form(Features { partitionable: true, consumable: false, ..Features::ALL });
    assert_eq!(writes(&node(), &without, &published(&node())), ["update 00001 at 1"]);
    let shares = ShareSettings { default_shares: 4.try_into().unwrap(), ..ShareSettings::default() };
    assert_eq!(writes(&node(), &Offer { shares, ..offer() }, &published(&node())), ["update 00001 at 1"]);
}

#[test]
fn slices_of_other_drivers_nodes_and_names_are_distinguished() {
    let mut observed = published(&node());
    let mut other_driver = observed[0].clone();
    other_driver.spec.driver = "net.example.com".to_owned();
    let mut other_node = observed[0].clone();
    other_node.spec.node_name = Some("other".to_owned());
    let mut generated_name = observed[0].clone();
    generated_name.metadata.name = Some("00000-gpu.nvidia.com-n-x7f2q".to_owned());
    observed.extend([other_driver, other_node, generated_name]);
    assert_eq!(writes(&node(), &offer(), &observed), ["delete 00000"]);
}

#[test]
fn the_next_free_name_is_used_where_a_foreign_slice_holds_the_first() {
    let names = |writes: Vec<Write>| writes.iter().map(|write| write.slice_name().to_owned()).collect::<Vec<_>>();
    let desired = pack(&pool().driver, &node(), &offer());
    for change in [
        |foreign: &mut ResourceSlice| foreign.spec.node_name = Some("other".to_owned()),
        |foreign: &mut ResourceSlice| foreign.spec.driver = "net.example.com".to_owned(),
    ] {
        let mut foreign = published(&node())[0].clone();
        change(&mut foreign);
        let writes = diff(&pool(), &desired, &[foreign.clone()]);
        let mut observed = vec![foreign];
        observed.extend(writes.iter().filter_map(Write::slice).cloned());
        assert_eq!(names(writes), ["00000x1-gpu.nvidia.com-n", "00001-gpu.nvidia.com-n"]);
        assert_eq!(diff(&pool(), &desired, &observed), [], "what is published is final");
        observed.remove(0);
        assert_eq!(diff(&pool(), &desired, &observed), [], "the name is kept after the foreign slice is deleted");
        observed.extend(published(&node()));
        assert_eq!(
            names(diff(&pool(), &desired, &observed)),
            ["00000x1-gpu.nvidia.com-n"],
            "duplicate slices are deleted"
        );
    }
}

#[test]
fn a_node_that_was_created_anew_owns_its_slices_again() {
    let mut observed = published(&node());
    for slice in &mut observed {
        slice.metadata.owner_references.as_mut().unwrap()[0].uid = "old".to_owned();
    }
    assert_eq!(writes(&node(), &offer(), &observed), ["update 00000 at 2", "update 00001 at 2"]);
}
