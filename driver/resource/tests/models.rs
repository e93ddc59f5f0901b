// SPDX-License-Identifier: Apache-2.0
//! The slices of a node with each GPU model of the simulator's catalog, compared with committed files.
//!
//! Two boards of the model: one whole and, where the model can be cut, one with an instance of every profile that still
//! fits, highest profile id first. `UPDATE_GOLDEN=1 cargo test -p dra-resource --test models` writes the files anew.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use dra_hardware::MigMachine;
use dra_hardware::discover::discover;
use dra_model::{Bytes, Inventory, MigIdentity};
use dra_resource::{Features, Form, Offer, Pool, SliceContent, Write, diff, pack};
use dra_sim::catalog::{self, Model};
use dra_sim::{Code, Setup, Simulator, State};
use k8s_openapi::api::resource::v1::{Counter, CounterSet};
use proptest::prelude::RngExt;
use proptest::test_runner::{RngAlgorithm, TestRng};

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models")
}

/// Fills a GPU with instances of as many profiles as fit beside each other.
fn cut(state: &mut State, gpu: usize) -> Result<(), Code> {
    state.set_mig_mode(gpu, true)?;
    state.reset_gpu(gpu)?;
    let mut profiles: Vec<_> = (0..32).filter_map(|kind| state.gpu_profile(gpu, kind).ok()).collect();
    profiles.sort_by_key(|profile| std::cmp::Reverse(profile.id));
    for profile in profiles {
        let Ok(instance) = state.create_gpu_instance(gpu, profile.id, None) else { continue };
        let whole = profile.compute.iter().find(|compute| compute.slices == profile.slices).ok_or(Code::NOT_FOUND)?;
        state.create_compute_instance(instance, whole.id, None)?;
    }
    Ok(())
}

/// Two boards, the second one cut where the model can be.
fn inventory(model: &'static Model) -> Inventory {
    let setup = Setup { seed: "golden".to_owned(), gpus: vec![model; 2], driver_version: "580.95.05".to_owned() };
    let machine = Simulator::new(&setup);
    if model.mig.is_some() {
        machine.poke(|state| cut(state, 1)).unwrap();
    }
    let inventory = discover(&machine, Path::new("/nonexistent"));
    assert_eq!(inventory.usable_gpus().count(), 2, "{inventory:?}");
    inventory
}

fn slices(model: &'static Model) -> String {
    let pool = Pool {
        driver: "gpu.nvidia.com".parse().unwrap(),
        node: "node-1".parse().unwrap(),
        node_uid: "11111111-2222-3333-4444-555555555555".to_owned(),
    };
    let created = diff(&pool, &pack(&pool.driver, &inventory(model), &everything()), &[]);
    let documents = created.iter().filter_map(Write::slice).map(|slice| serde_saphyr::to_string(slice).unwrap());
    documents.collect::<Vec<_>>().join("---\n")
}

fn everything() -> Offer {
    let features = Features::ALL;
    Offer { features, forms: Form::ALL.into(), ..Offer::of_hardware(features) }
}

/// Where the memory of all instances together were more, the counter would change with them.
#[test]
fn the_counter_memory_of_every_model_is_its_memory_whether_it_is_cut_or_not() {
    for model in catalog::models() {
        let driver = "gpu.nvidia.com".parse().unwrap();
        let slices = pack(&driver, &inventory(model), &everything());
        let SliceContent::Counters(sets) = slices.first().unwrap() else { panic!("no counters") };
        let memory = |set: &CounterSet| set.counters.get("memory").unwrap().value.0.parse::<Bytes>().unwrap();
        let found: Vec<u64> = sets.iter().map(|set| memory(set).mib()).collect();
        assert_eq!(found, [model.memory.total_mib; 2], "{}", model.id);
    }
}

/// Ten tenths must fit beside the memory that the NVIDIA driver reserves.
#[test]
fn shares_of_every_model_have_no_more_memory_than_an_idle_gpu_has_free() {
    for model in catalog::models() {
        let free = model.memory.total_mib - model.memory.reserved_mib;
        let driver = "gpu.nvidia.com".parse().unwrap();
        let slices = pack(&driver, &inventory(model), &everything());
        let devices = slices.iter().flat_map(SliceContent::devices);
        let shared: Vec<_> = devices.filter(|device| device.allow_multiple_allocations == Some(true)).collect();
        assert!(!shared.is_empty(), "{}", model.id);
        for device in shared {
            let memory = &device.capacity.as_ref().unwrap()["memory"].value.0;
            let published = memory.parse::<Bytes>().unwrap().mib();
            assert!(published <= free && published + 130 > free, "{}: {published} of {free} MiB", device.name);
        }
    }
}

/// The amounts of counters by name.
type Amounts = BTreeMap<String, u64>;

fn amounts(counters: &BTreeMap<String, Counter>) -> Amounts {
    counters.iter().map(|(name, counter)| (name.clone(), counter.value.0.parse::<Bytes>().unwrap().0)).collect()
}

/// A GPU in MIG mode: its counters, and each partition with what it consumes.
fn partitions(machine: &Simulator) -> (Amounts, Vec<(MigIdentity, Amounts)>) {
    let inventory = discover(machine, Path::new("/nonexistent"));
    let slices = pack(&"gpu.nvidia.com".parse().unwrap(), &inventory, &everything());
    let SliceContent::Counters(sets) = slices.first().unwrap() else { panic!("no counters") };
    let gpu = inventory.usable_gpus().next().unwrap();
    let names = inventory.names();
    let identities: BTreeMap<String, MigIdentity> = gpu
        .partitions()
        .into_iter()
        .map(|partition| partition.identity(&gpu.uuid))
        .map(|identity| (names.mig(&identity), identity))
        .collect();
    let published = slices.iter().flat_map(SliceContent::devices);
    let consumed = published.filter_map(|device| {
        let counters = &device.consumes_counters.as_ref().unwrap().first().unwrap().counters;
        Some((identities.get(&device.name)?.clone(), amounts(counters)))
    });
    (amounts(&sets.first().unwrap().counters), consumed.collect())
}

/// The scheduler, which knows counters alone, gives what the hardware can make and keeps nothing back.
#[test]
fn counters_admit_exactly_the_partitions_that_the_gpu_can_create() {
    let mut order = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    for model in catalog::models().iter().filter(|model| model.mig.is_some()) {
        for _ in 0..100 {
            let setup = Setup { seed: "golden".to_owned(), gpus: vec![model], driver_version: "580.95.05".to_owned() };
            let machine = Simulator::new(&setup);
            machine.poke(|state| state.set_mig_mode(0, true).and_then(|_| state.reset_gpu(0))).unwrap();
            let (mut left, mut partitions) = partitions(&machine);
            assert!(!partitions.is_empty(), "{}", model.id);
            while !partitions.is_empty() {
                let (identity, wanted) = partitions.swap_remove(order.random_range(0..partitions.len()));
                let admitted = wanted.iter().all(|(name, amount)| left.get(name).is_some_and(|left| left >= amount));
                let created = machine.create_gpu_instance(&identity);
                assert_eq!(admitted, created.is_ok(), "{} {identity:?} {left:?}: {created:?}", model.id);
                if admitted {
                    for (name, amount) in wanted {
                        *left.get_mut(&name).unwrap() -= amount;
                    }
                }
            }
        }
    }
}

#[test]
fn every_model_is_published_as_before() {
    let differing: Vec<&str> = catalog::models()
        .iter()
        .filter(|model| {
            let (given, path) = (slices(model), golden_dir().join(format!("{}.yaml", model.id)));
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                fs::create_dir_all(golden_dir()).unwrap();
                fs::write(&path, &given).unwrap();
            }
            fs::read_to_string(&path).unwrap_or_default() != given
        })
        .map(|model| model.id.as_str())
        .collect();
    assert!(differing.is_empty(), "{differing:?} differ; compare after UPDATE_GOLDEN=1");
    let files = fs::read_dir(golden_dir()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let models: BTreeSet<String> = catalog::models().iter().map(|model| format!("{}.yaml", model.id)).collect();
    assert_eq!(files.collect::<BTreeSet<_>>(), models, "one file for each model");
}
