// SPDX-License-Identifier: Apache-2.0
//! What is wrong with a GPU becomes taints: of all of its forms, or of those that overlap the instance that it is about.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test that cannot go on should stop")]

use std::collections::BTreeMap;
use std::path::Path;

use dra_hardware::discover::discover;
use dra_model::{Cause, Effect, Finding, GpuUuid, Inventory, Placement, Verdict};
use dra_resource::{Features, Form, Offer, Pool, SliceContent, Write, diff, pack};
use dra_sim::{Setup, Simulator, catalog};
use k8s_openapi::api::resource::v1::{Device, ResourceSlice};

/// Two H100, and what is wrong with the first.
fn inventory(findings: Vec<Finding>) -> Inventory {
    inventory_of(2, findings)
}

fn inventory_of(gpus: usize, findings: Vec<Finding>) -> Inventory {
    let gpus = vec![catalog::model("h100").unwrap(); gpus];
    let machine = Simulator::new(&Setup { seed: "findings".to_owned(), gpus, driver_version: "580.95.05".to_owned() });
    let inventory = discover(&machine, Path::new("/nonexistent"));
    let first = inventory.usable_gpus().next().unwrap().uuid.clone();
    Inventory { findings: BTreeMap::from([(first, findings)]), ..inventory }
}

fn pool() -> Pool {
    Pool { driver: "gpu.nvidia.com".parse().unwrap(), node: "n".parse().unwrap(), node_uid: "u".to_owned() }
}

fn finding(cause: Cause, effect: Effect, scope: Option<Placement>) -> Finding {
    let (value, message) = ("any".to_owned(), "any".to_owned());
    Finding { cause, value, effect, verdict: Verdict::Unhealthy, scope, message, since: 7 }
}

/// The devices of the first GPU and of the second one.
fn devices(inventory: &Inventory, features: Features) -> (Vec<Device>, Vec<Device>) {
    let offer = Offer { features, forms: Form::ALL.into(), ..Offer::of_hardware(features) };
    let slices = pack(&"gpu.nvidia.com".parse().unwrap(), inventory, &offer);
    let first = inventory.names().gpu(&inventory.usable_gpus().next().unwrap().uuid);
    slices.iter().flat_map(SliceContent::devices).cloned().partition(|device| device.name.starts_with(&first))
}

fn taints(device: &Device) -> Vec<(String, String)> {
    device.taints.iter().flatten().map(|taint| (taint.key.clone(), taint.effect.clone())).collect()
}

#[test]
fn all_forms_of_a_gpu_have_its_taints_and_no_other_gpu() {
    let both =
        vec![finding(Cause::Recovery, Effect::NoSchedule, None), finding(Cause::GpuLost, Effect::NoExecute, None)];
    let (first, second) = devices(&inventory(both), Features::ALL);
    assert!(first.len() > 20 && first.len() == second.len());
    let expect = [("gpu.nvidia.com/recovery", "NoSchedule"), ("gpu.nvidia.com/gpu-lost", "NoExecute")];
    let expect = expect.map(|(key, effect)| (key.to_owned(), effect.to_owned()));
    assert!(first.iter().all(|device| taints(device) == expect), "{first:?}");
    assert!(second.iter().all(|device| device.taints.is_none()));
}

#[test]
fn neighbours_of_a_mig_device_that_failed_stay() {
    let failed = finding(Cause::Xid, Effect::NoSchedule, Some(Placement { start: 3, size: 1 }));
    let (first, _) = devices(&inventory(vec![failed]), Features::ALL);
    let tainted: Vec<&str> =
        first.iter().filter(|device| device.taints.is_some()).map(|device| device.name.as_str()).collect();
    let has = |suffix: &str| tainted.iter().any(|name| name.ends_with(suffix));
    for suffix in ["-mps", "-mig-19-3", "-mig-14-2", "-mig-9-0", "-mig-0-0"] {
        assert!(has(suffix), "{suffix} in {tainted:?}");
    }
    assert!(!has("-mig-19-2") && !has("-mig-19-4") && !has("-mig-9-4"), "{tainted:?}");
}

/// On such a server claims are allocated as before.
#[test]
fn a_server_that_drops_taints_gets_all_devices_without_them() {
    let lost = vec![finding(Cause::GpuLost, Effect::NoExecute, None)];
    let without = Features { taints: false, ..Features::ALL };
    assert_eq!(devices(&inventory(lost), without), devices(&inventory(Vec::new()), without));
}

/// A pool of which one slice after another has a new generation is incomplete in between, and the scheduler uses none of its GPUs.
#[test]
fn taints_of_several_slices_keep_the_generation_and_an_eviction_ends_before_another_begins() {
    let inventory = inventory_of(4, Vec::new());
    let gpus: Vec<_> = inventory.usable_gpus().map(|gpu| gpu.uuid.clone()).collect();
    let offer = Offer { forms: Form::ALL.into(), ..Offer::of_hardware(Features::ALL) };
    let with_lost = |gpu: &GpuUuid| {
        let findings = BTreeMap::from([(gpu.clone(), vec![finding(Cause::GpuLost, Effect::NoExecute, None)])]);
        pack(&pool().driver, &Inventory { findings, ..inventory.clone() }, &offer)
    };
    let published = |write: Write| write.slice().cloned().unwrap();
    for (before, after) in [(&gpus[0], &gpus[3]), (&gpus[3], &gpus[0])] {
        let observed: Vec<_> = diff(&pool(), &with_lost(before), &[]).into_iter().map(published).collect();
        let updates: Vec<_> = diff(&pool(), &with_lost(after), &observed).into_iter().map(published).collect();
        let evicts = |slice: &ResourceSlice| {
            let devices = slice.spec.devices.iter().flatten();
            devices.flat_map(|device| device.taints.iter().flatten()).any(|taint| taint.effect == "NoExecute")
        };
        assert_eq!(updates.iter().map(evicts).collect::<Vec<_>>(), [false, true]);
        assert!(updates.iter().all(|slice| slice.spec.pool.generation == 1));
    }
}
