// SPDX-License-Identifier: Apache-2.0
//! Records as they are on disk: golden files, damage, and faults at every effect.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its builders too")]

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use dra_checkpoint::files::faults::{Fault, FaultyFiles};
use dra_checkpoint::files::{Files, HostFiles};
use dra_checkpoint::store::Found;
use dra_checkpoint::{ClaimRecord, ClaimState, RecordStore, RecordedDevice, RecordedHardware, Step, Unknown, versions};
use dra_model::{ClaimRef, ClaimUid, ComputeShare, MigIdentity, Placement};
use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::io::Errno;

const UID: &str = "0b5f3a1e-7d52-4c53-9a3c-2f1f5f0f9a01";

fn gpu_device() -> RecordedDevice {
    RecordedDevice {
        request: "train".to_owned(),
        pool: "node-a".to_owned(),
        device: "gpu-11111111".parse().unwrap(),
        admin_access: false,
        share_id: None,
        hardware: RecordedHardware::Gpu { uuid: "GPU-11111111-2222-3333-4444-555555555555".parse().unwrap() },
        cdi_ids: vec![
            "k8s.gpu.nvidia.com/base=550.54.15".to_owned(),
            format!("k8s.gpu.nvidia.com/claim={UID}-gpu-11111111"),
        ],
        unknown: Unknown::new(),
    }
}

fn mig_device() -> RecordedDevice {
    RecordedDevice {
        request: "infer/small".to_owned(),
        device: "gpu-11111111-mig-9-4".parse().unwrap(),
        admin_access: true,
        share_id: Some("7c2d8a0e-0000-4000-8000-000000000001".to_owned()),
        hardware: RecordedHardware::Mig {
            identity: MigIdentity {
                parent: "GPU-11111111-2222-3333-4444-555555555555".parse().unwrap(),
                profile_id: 9,
                placement: Placement { start: 4, size: 4 },
                share: ComputeShare { start: 0, slices: 3, of: 3 },
            },
            uuid: "MIG-aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee".parse().unwrap(),
            gpu_instance: 2,
            compute_instance: 0,
            profile: "3g.40gb".to_owned(),
        },
        ..gpu_device()
    }
}

fn record(state: ClaimState) -> ClaimRecord {
    ClaimRecord {
        claim: ClaimRef { namespace: "ml".to_owned(), name: "train-0".to_owned(), uid: UID.parse().unwrap() },
        boot_id: "5f8f7c2a-2f0e-4a51-9d0e-8c2f4b5a6d7e".to_owned(),
        base: "550.54.15".to_owned(),
        devices: vec![gpu_device(), mig_device()],
        state,
        unknown: Unknown::new(),
    }
}

fn states() -> [(&'static str, ClaimState); 3] {
    let spec = || vec![Step::ClaimSpec];
    [
        ("preparing", ClaimState::Preparing { done: vec![], next: spec() }),
        ("ready", ClaimState::Ready { done: spec() }),
        ("undoing", ClaimState::Undoing { left: spec(), last_error: "unable to remove a file".to_owned() }),
    ]
}

fn store(dir: &tempfile::TempDir) -> RecordStore {
    RecordStore::open(Arc::new(HostFiles), dir.path()).unwrap()
}

fn loaded(store: &RecordStore) -> Option<ClaimRecord> {
    match store.load(&UID.parse().unwrap()).unwrap() {
        Found::Record(record) => Some(*record),
        Found::Nothing | Found::Bad(_) => None,
    }
}

/// `UPDATE_GOLDEN=1` writes the files; only a new version may have new ones.
#[test]
fn version_1_reads_and_writes_its_golden_files() {
    for (name, state) in states() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("testdata/v1/{name}.json"));
        let bytes = versions::encode(&record(state.clone())).unwrap();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &bytes).unwrap();
        }
        let golden = std::fs::read(&path).unwrap();
        assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&golden), "{name}");
        assert_eq!(versions::decode(&golden).unwrap(), record(state), "{name}");
    }
}

#[test]
fn fields_of_newer_versions_are_written_back() {
    let mut given = record(ClaimState::Preparing { done: vec![], next: vec![] });
    given.unknown.insert("owner".to_owned(), serde_json::json!({"team": ["a", 1]}));
    given.devices[0].unknown.insert("sharing".to_owned(), serde_json::json!("MPS"));
    assert_eq!(versions::decode(&versions::encode(&given).unwrap()).unwrap(), given);
}

#[test]
fn a_record_becomes_ready_by_its_mark_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let uid = UID.parse().unwrap();
    store.put(&record(ClaimState::Preparing { done: vec![], next: vec![Step::ClaimSpec] })).unwrap();
    store.mark_ready(&uid).unwrap();
    assert_eq!(loaded(&store), Some(record(ClaimState::Ready { done: vec![Step::ClaimSpec] })));
    store.remove(&uid).unwrap();
    store.remove(&uid).unwrap();
    assert_eq!(loaded(&store), None);
}

#[test]
fn garbage_is_set_aside_with_its_reason_and_its_devices_are_still_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let good = versions::encode(&record(ClaimState::Ready { done: vec![] })).unwrap();
    let claims = dir.path().join("claims");
    for (name, bytes, reason) in [
        (UID, good[..good.len() - 60].to_vec(), "damaged: the payload has"),
        ("00000000-0000-0000-0000-000000000001", good.clone(), "about claim 0b5f3a1e"),
        ("00000000-0000-0000-0000-000000000002", Vec::new(), "damaged: the first line is not the header"),
        ("00000000-0000-0000-0000-000000000003", vec![b'x'; 600_000], "is larger than"),
        ("00000000-0000-0000-0000-000000000004", b"dra-claim 7 0 0000000000000000\n\n".to_vec(), "written in format 7"),
        ("00000000-0000-0000-0000-000000000005", dra_checkpoint::frame::encode(1, b"{}"), "not a claim record"),
    ] {
        std::fs::write(claims.join(format!("{name}.json")), bytes).unwrap();
        let listing = store.list().unwrap();
        assert!(listing.records.is_empty());
        assert!(listing.quarantined[0].reason.starts_with(reason), "{}", listing.quarantined[0].reason);
        let told = store.quarantined().unwrap();
        let told = told.iter().find(|one| one.path == listing.quarantined[0].path).unwrap();
        assert_eq!(*told, listing.quarantined[0]);
    }
    let cut = &store.quarantined().unwrap()[5];
    assert_eq!(
        cut.remains.devices.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["gpu-11111111", "gpu-11111111-mig-9-4"]
    );
    assert!(store.list().unwrap().quarantined.is_empty(), "each is set aside once");
}

#[test]
fn what_was_set_aside_counts_until_it_is_settled_and_the_bytes_stay() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let mut bytes = versions::encode(&record(ClaimState::Ready { done: vec![] })).unwrap();
    let at = bytes.windows(7).position(|bytes| bytes == b"bootId\"").unwrap();
    bytes[at] ^= 1;
    std::fs::write(dir.path().join(format!("claims/{UID}.json")), &bytes).unwrap();
    let bad = &store.list().unwrap().quarantined[0];
    assert!(!bad.remains.is_claim_certain, "the flip may be in its name");
    assert_eq!(bad.remains.claim, Some(record(ClaimState::Ready { done: vec![] }).claim));
    assert_eq!(bad.remains.admin, ["gpu-11111111-mig-9-4".parse().unwrap()]);
    assert_eq!(bad.remains.hardware, [gpu_device().hardware]);
    store.settle(&"another".parse().unwrap()).unwrap();
    assert_eq!(store.quarantined().unwrap(), std::slice::from_ref(bad));
    for _ in 0..2 {
        store.settle(&UID.parse().unwrap()).unwrap();
        assert!(store.quarantined().unwrap().is_empty());
    }
    assert_eq!(std::fs::read(dir.path().join(format!("quarantine/{UID}.json.settled"))).unwrap(), bytes);
}

#[test]
fn damage_in_one_place_hides_no_device() {
    let good = String::from_utf8(versions::encode(&record(ClaimState::Ready { done: vec![] })).unwrap()).unwrap();
    let name = "\"device\":\"gpu-11111111\"";
    let uuid = "{\"gpu\":{\"uuid\":\"GPU-11111111";
    for (spoilt, whole_gpu_is_named, uuid_is_there) in [
        (good.replace(name, "\"device\":\"gpu-1111????\""), true, true),
        (good.replace(name, "\"device\":??"), true, true),
        (good.replace("{\"request\":", "{\"?equest\":"), true, true),
        (good.replace(uuid, "{\"gpu\":{\"uuid\":\"GPU-????1111"), true, false),
        (good.split_once(name).unwrap().0.to_owned(), false, false),
    ] {
        let found = dra_checkpoint::remains::of(spoilt.as_bytes(), Some(&UID.parse().unwrap()));
        let device = "gpu-11111111".parse().unwrap();
        let named = found.devices.contains(&device) && !found.admin.contains(&device);
        assert_eq!(named, whole_gpu_is_named, "{found:?}");
        assert_eq!(found.hardware.contains(&gpu_device().hardware), uuid_is_there, "{found:?}");
        assert!(found.claim.is_some_and(|claim| claim.to_string() == "ml/train-0"));
    }
    let foreign = good.replace("\"train-0\"", "\"train\\n0\"");
    assert_eq!(dra_checkpoint::remains::of(foreign.as_bytes(), None).claim, None, "nobody is shown such a name");
}

#[test]
fn a_record_that_cannot_be_read_stays_where_it_is_and_stops_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let files = Arc::new(FaultyFiles::default());
    let store = RecordStore::open(Arc::<FaultyFiles>::clone(&files), dir.path()).unwrap();
    store.put(&record(ClaimState::Ready { done: vec![] })).unwrap();
    let lost: ClaimUid = "00000000-0000-0000-0000-000000000001".parse().unwrap();
    std::fs::write(store.path(&lost), "").unwrap();
    files.lose(&store.path(&lost));
    let listing = store.list().unwrap();
    assert_eq!(listing.records.len(), 1);
    assert_eq!((&listing.quarantined[0].path, listing.quarantined[0].uid.as_ref()), (&store.path(&lost), Some(&lost)));
    assert!(listing.quarantined[0].reason.contains("unable to read"), "{}", listing.quarantined[0].reason);
    let error = store.load(&lost).unwrap_err().to_string();
    assert!(error.starts_with("unable to read ") && error.contains(lost.as_str()), "{error}");
}

#[test]
fn folders_links_and_strangers_in_the_folder_stop_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let claims = dir.path().join("claims");
    store.put(&record(ClaimState::Ready { done: vec![] })).unwrap();
    std::fs::create_dir(claims.join("00000000-0000-0000-0000-000000000001.json")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", claims.join("00000000-0000-0000-0000-000000000002.json")).unwrap();
    let pipe = claims.join("00000000-0000-0000-0000-000000000003.json");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
    let _listener = UnixListener::bind(claims.join("00000000-0000-0000-0000-000000000004.json")).unwrap();
    std::fs::write(claims.join("notes.txt"), "").unwrap();
    std::fs::write(claims.join(format!(".{UID}.json.{UID}.tmp")), "").unwrap();
    let listing = store.list().unwrap();
    assert_eq!(listing.records.len(), 1);
    assert_eq!(listing.quarantined.len(), 4);
    assert_eq!(listing.foreign, [claims.join("notes.txt")]);
    assert_eq!(listing.unfinished, [UID.parse().unwrap()]);
    store.remove_unfinished(&UID.parse().unwrap()).unwrap();
    assert!(store.list().unwrap().unfinished.is_empty());
}

#[test]
fn a_read_only_folder_still_shows_what_is_good_and_what_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let files = Arc::new(FaultyFiles::default());
    let store = RecordStore::open(Arc::<FaultyFiles>::clone(&files), dir.path()).unwrap();
    store.put(&record(ClaimState::Ready { done: vec![] })).unwrap();
    let bad = dir.path().join("claims/bad.json");
    std::fs::write(&bad, "garbage").unwrap();
    files.fail_after(0, Fault::FromNowOn(Errno::ROFS));
    let listing = store.list().unwrap();
    assert_eq!(listing.records.len(), 1);
    assert_eq!(listing.quarantined[0].path, bad);
    let error = store.put(&record(ClaimState::Ready { done: vec![] })).unwrap_err();
    assert!(error.to_string().starts_with("unable to write "), "{error}");
}

/// Whatever effect is cut or fails, the folder holds the old record or the new one.
#[test]
fn every_effect_can_be_cut_or_fail_and_the_record_is_the_old_or_the_new_one() {
    let old = record(ClaimState::Preparing { done: vec![], next: vec![Step::ClaimSpec] });
    let new = record(ClaimState::Undoing { left: vec![], last_error: "x".repeat(400) });
    for fault in [Fault::Crash, Fault::Once(Errno::NOSPC), Fault::FromNowOn(Errno::ROFS)] {
        for at in 0..4 {
            let dir = tempfile::tempdir().unwrap();
            let files = Arc::new(FaultyFiles::default());
            let store = RecordStore::open(Arc::<FaultyFiles>::clone(&files), dir.path()).unwrap();
            store.put(&old).unwrap();
            files.fail_after(at, fault);
            let outcome = store.put(&new);
            files.heal();
            let found = loaded(&store).unwrap();
            assert!(found == old || found == new, "{fault:?} at {at}");
            assert!(outcome.is_err() || found == new, "{fault:?} at {at}");
            store.put(&new).unwrap();
            assert_eq!(loaded(&store), Some(new.clone()));
            assert_eq!(files.list(&dir.path().join("claims")).unwrap().len(), 1, "no temporary file is left");
        }
    }
}

proptest! {
    #[test]
    fn a_damaged_file_is_never_a_wrong_record(
        state in 0_usize..3, cut: prop::sample::Index, flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u32..8), 0..4),
        truncate: bool,
    ) {
        let given = record(states()[state].1.clone());
        let mut bytes = versions::encode(&given).unwrap();
        if truncate {
            bytes.truncate(cut.index(bytes.len()));
        }
        for (at, bit) in flips {
            let length = bytes.len();
            if let Some(byte) = bytes.get_mut(at.index(length.max(1))) {
                *byte ^= 1 << bit;
            }
        }
        if let Ok(found) = versions::decode(&bytes) {
            // Only the mark may be lost, which is the safe side.
            let unmarked = matches!(found.state, ClaimState::Preparing { .. });
            prop_assert!(found.state == given.state || unmarked);
            prop_assert_eq!(ClaimRecord { state: given.state.clone(), ..found }, given);
        }
    }
}
