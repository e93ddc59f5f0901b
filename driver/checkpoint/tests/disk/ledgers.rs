// SPDX-License-Identifier: Apache-2.0
//! Ledgers of GPUs: golden file, damage, and faults at every effect.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use dra_checkpoint::{DamagedLedger, GpuLedger, LedgerFound, LedgerListing, LedgerStore, Unknown};
use dra_files::HostFiles;
use dra_files::faults::{Fault, FaultyFiles};
use dra_model::{ComputeMode, GpuSettings, Interval};
use proptest::prelude::*;
use rustix::io::Errno;

use crate::samples::{gpu, identity, ids};

const NAME: &str = "GPU-11111111-2222-3333-4444-555555555555";

fn ledger() -> GpuLedger {
    GpuLedger {
        gpu: gpu(),
        boot_id: "5f8f7c2a-2f0e-4a51-9d0e-8c2f4b5a6d7e".to_owned(),
        found: GpuSettings { compute_mode: Some(ComputeMode::Prohibited), interval: Some(Interval::Long) },
        in_force: GpuSettings { compute_mode: Some(ComputeMode::ExclusiveProcess), interval: None },
        mig_mode_on: false,
        partitions: BTreeMap::new(),
        daemons: ["gpu-11111111222233334444555555555555".parse().unwrap()].into(),
        unknown: Unknown::from_iter([("persistence".to_owned(), serde_json::json!(true))]),
    }
}

fn store(dir: &tempfile::TempDir) -> LedgerStore {
    LedgerStore::open(Arc::new(HostFiles), dir.path()).unwrap()
}

fn golden_path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("testdata/{name}.json"))
}

/// No program writes this file any more.
#[test]
fn a_ledger_of_version_1_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    std::fs::copy(golden_path("ledger-v1/settings"), store.path(&gpu())).unwrap();
    assert_eq!(store.load(&gpu()).unwrap(), LedgerFound::Ledger(Box::new(ledger())));
}

/// `UPDATE_GOLDEN=1` writes the files; only a new version may have new ones.
#[test]
fn a_ledger_reads_and_writes_its_golden_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let partitions = BTreeMap::from([(identity(0), None), (identity(4), Some(ids().uuid))]);
    for (name, ledger) in [("settings", ledger()), ("mig", GpuLedger { mig_mode_on: true, partitions, ..ledger() })] {
        store.put(&ledger).unwrap();
        let bytes = std::fs::read_to_string(store.path(&gpu())).unwrap();
        let path = golden_path(&format!("ledger-v2/{name}"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        assert_eq!(bytes, std::fs::read_to_string(&path).unwrap());
        assert_eq!(store.load(&gpu()).unwrap(), LedgerFound::Ledger(Box::new(ledger)));
    }
    for _ in 0..2 {
        store.remove(&gpu()).unwrap();
        assert_eq!(store.load(&gpu()).unwrap(), LedgerFound::Nothing);
    }
    assert_eq!(store.list().unwrap(), LedgerListing::default());
}

#[test]
fn a_renamed_ledger_that_can_be_read_again_is_the_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    store.put(&ledger()).unwrap();
    let path = store.path(&gpu());
    std::fs::rename(&path, format!("{}.damaged", path.display())).unwrap();
    assert_eq!(store.load(&gpu()).unwrap(), LedgerFound::Ledger(Box::new(ledger())));
    assert_eq!(store.list().unwrap().ledgers, [ledger()]);
}

#[test]
fn a_damaged_ledger_counts_until_another_is_put_or_it_is_removed_and_the_bytes_stay() {
    let other = "GPU-99999999-2222-3333-4444-555555555555";
    let golden =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/ledger-v1/settings.json")).unwrap();
    for (bytes, reason) in [
        ("garbage".to_owned(), "damaged: the first line is not the header of a GPU ledger".to_owned()),
        (
            "dra-claim 1 0 0000000000000000\n\n".to_owned(),
            "damaged: the first line is not the header of a GPU ledger".to_owned(),
        ),
        (golden, format!("about {NAME} although it is named after {other}")),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir);
        let uuid = other.parse().unwrap();
        for clear in [LedgerStore::remove, |store: &LedgerStore, gpu: &_| {
            store.put(&GpuLedger { gpu: Clone::clone(gpu), ..ledger() })
        }] {
            std::fs::write(store.path(&uuid), &bytes).unwrap();
            for _ in 0..2 {
                let damaged = store.list().unwrap().damaged;
                assert_eq!(damaged.iter().map(|one| (&one.gpu, &one.reason)).collect::<Vec<_>>(), [(&uuid, &reason)]);
                assert_eq!(std::fs::read_to_string(&damaged[0].path).unwrap(), bytes);
                assert_eq!(store.load(&uuid).unwrap(), LedgerFound::Damaged(damaged[0].clone()));
            }
            clear(&store, &uuid).unwrap();
            assert!(store.list().unwrap().damaged.is_empty());
            let cleared = dir.path().join(format!("gpus/{other}.json.damaged.settled"));
            assert_eq!(std::fs::read_to_string(cleared).unwrap(), bytes);
        }
    }
}

#[test]
fn a_ledger_of_a_newer_driver_stays_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    store.put(&ledger()).unwrap();
    let good = std::fs::read_to_string(store.path(&gpu())).unwrap();
    let newer = good.replacen("gpu-ledger 2", "gpu-ledger 3", 1);
    std::fs::write(store.path(&gpu()), &newer).unwrap();
    let reason = "written in format 3, which this version of the driver does not know".to_owned();
    let unread = DamagedLedger { gpu: gpu(), path: store.path(&gpu()), reason };
    assert_eq!(store.load(&gpu()).unwrap(), LedgerFound::Newer(unread.clone()));
    assert_eq!(store.list().unwrap(), LedgerListing { newer: vec![unread], ..LedgerListing::default() });
    assert_eq!(std::fs::read_to_string(store.path(&gpu())).unwrap(), newer);
}

#[test]
fn foreign_files_and_leftovers_are_distinguished() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let gpus = dir.path().join("gpus");
    std::fs::write(gpus.join("notes.txt"), "").unwrap();
    std::fs::write(gpus.join("GPU-1.json"), "").unwrap();
    std::fs::write(gpus.join(format!(".{NAME}.json.{NAME}.tmp")), "").unwrap();
    std::fs::create_dir(gpus.join("GPU-22222222-2222-3333-4444-555555555555.json")).unwrap();
    let listing = store.list().unwrap();
    assert_eq!(listing.foreign, [gpus.join("GPU-1.json"), gpus.join("notes.txt")]);
    assert_eq!(listing.unfinished, [gpu()]);
    assert_eq!(listing.damaged[0].reason, "is not a regular file");
    store.remove_unfinished(&gpu()).unwrap();
    assert!(store.list().unwrap().unfinished.is_empty());
}

#[test]
fn a_ledger_that_cannot_be_read_or_moved_stops_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let files = Arc::new(FaultyFiles::default());
    let store = LedgerStore::open(Arc::<FaultyFiles>::clone(&files), dir.path()).unwrap();
    store.put(&ledger()).unwrap();
    let lost = "GPU-00000000-2222-3333-4444-555555555555".parse().unwrap();
    std::fs::write(store.path(&lost), "garbage").unwrap();
    files.fail_after(0, Fault::FromNowOn(Errno::ROFS));
    assert_eq!(store.list().unwrap().ledgers, [ledger()]);
    assert_eq!(store.list().unwrap().damaged[0].path, store.path(&lost), "it stays where it is");
    let error = store.load(&lost).unwrap_err().to_string();
    assert!(error.starts_with("failed to quarantine ") && error.contains("is not the header"), "{error}");
    files.lose(&store.path(&lost));
    assert!(store.list().unwrap().damaged[0].reason.starts_with("failed to read it: "));
}

/// Whichever effect is cut or fails, the ledger is the old one, the new one, or known to be damaged; it is never missing.
#[test]
fn every_effect_can_be_cut_or_fail_and_the_original_settings_are_not_lost() {
    let new = GpuLedger { daemons: BTreeSet::new(), ..ledger() };
    for fault in [Fault::Crash, Fault::Once(Errno::NOSPC), Fault::FromNowOn(Errno::ROFS)] {
        for (at, damage) in (0..6).flat_map(|at| [(at, false), (at, true)]) {
            let dir = tempfile::tempdir().unwrap();
            let files = Arc::new(FaultyFiles::default());
            let store = LedgerStore::open(Arc::<FaultyFiles>::clone(&files), dir.path()).unwrap();
            store.put(&ledger()).unwrap();
            if damage {
                std::fs::write(store.path(&gpu()), "garbage").unwrap();
            }
            files.fail_after(at, fault);
            let outcome = store.load(&gpu()).and_then(|_| store.put(&new));
            files.heal();
            match store.load(&gpu()).unwrap() {
                LedgerFound::Ledger(found) if outcome.is_ok() => assert_eq!(*found, new),
                LedgerFound::Ledger(found) => assert!(*found == new || *found == ledger(), "{fault:?} at {at}"),
                LedgerFound::Damaged(_) => assert!(damage && outcome.is_err(), "{fault:?} at {at}"),
                LedgerFound::Nothing | LedgerFound::Newer(_) => panic!("{fault:?} at {at}"),
            }
            store.put(&new).unwrap();
            assert_eq!(store.list().unwrap(), LedgerListing { ledgers: vec![new.clone()], ..LedgerListing::default() });
        }
    }
}

proptest! {
    #[test]
    fn a_damaged_file_is_never_a_wrong_ledger(
        cut: prop::sample::Index, flip: Option<prop::sample::Index>, bit in 0_u32..8,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir);
        store.put(&ledger()).unwrap();
        let mut bytes = std::fs::read(store.path(&gpu())).unwrap();
        match flip {
            Some(at) => { let length = bytes.len(); bytes[at.index(length)] ^= 1 << bit; }
            None => bytes.truncate(cut.index(bytes.len())),
        }
        std::fs::write(store.path(&gpu()), &bytes).unwrap();
        match store.load(&gpu()).unwrap() {
            LedgerFound::Ledger(found) => prop_assert_eq!(*found, ledger()),
            LedgerFound::Damaged(_) | LedgerFound::Newer(_) => {}
            LedgerFound::Nothing => prop_assert!(false, "a ledger was lost"),
        }
    }
}
