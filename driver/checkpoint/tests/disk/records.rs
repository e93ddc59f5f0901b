// SPDX-License-Identifier: Apache-2.0
//! Records in their directory: read, listed, quarantined, and faults at every effect.

use std::os::unix::net::UnixListener;
use std::sync::Arc;

use dra_checkpoint::frame::Kind;
use dra_checkpoint::store::Found;
use dra_checkpoint::{ClaimRecord, ClaimState, Listing, RecordStore, Step, versions};
use dra_files::faults::{Fault, FaultyFiles};
use dra_files::{Files, HostFiles};
use dra_model::ClaimUid;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::io::Errno;

use crate::samples::{UID, gpu_device, record, shared};

fn store(dir: &tempfile::TempDir) -> RecordStore {
    RecordStore::open(Arc::new(HostFiles), dir.path()).unwrap()
}

fn loaded(store: &RecordStore) -> Option<ClaimRecord> {
    match store.load(&UID.parse().unwrap()).unwrap() {
        Found::Record(record) => Some(*record),
        Found::Nothing | Found::Quarantined(_) => None,
    }
}

/// Lists, and quarantines damaged records, as a caller that holds the locks of all claims may.
fn listed(store: &RecordStore) -> Listing {
    let mut listing = store.list().unwrap();
    for bad in &mut listing.quarantined {
        *bad = store.quarantine_if_damaged(bad.uid.as_ref().unwrap()).unwrap().unwrap();
    }
    listing
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
fn a_damaged_record_is_quarantined_with_its_reason_and_its_devices_are_salvaged() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let good = versions::encode(&record(ClaimState::Ready { done: vec![] })).unwrap();
    let claims = dir.path().join("claims");
    for (name, bytes, reason) in [
        (UID, good[..good.len() - 60].to_vec(), "damaged: the payload has"),
        ("00000000-0000-0000-0000-000000000001", good.clone(), "about claim 0b5f3a1e"),
        ("00000000-0000-0000-0000-000000000002", Vec::new(), "damaged: the first line is not the header"),
        ("00000000-0000-0000-0000-000000000003", vec![b'x'; 600_000], "is larger than"),
        (
            "00000000-0000-0000-0000-000000000005",
            dra_checkpoint::frame::encode(Kind::Claim, 1, b"{}"),
            "not a claim record",
        ),
    ] {
        std::fs::write(claims.join(format!("{name}.json")), bytes).unwrap();
        let listing = listed(&store);
        assert!(listing.records.is_empty());
        assert!(listing.quarantined[0].reason.starts_with(reason), "{}", listing.quarantined[0].reason);
        let quarantined = store.quarantined().unwrap();
        let reported = quarantined.iter().find(|one| one.path == listing.quarantined[0].path).unwrap();
        assert_eq!(*reported, listing.quarantined[0]);
    }
    let cut = &store.quarantined().unwrap()[4];
    assert_eq!(
        cut.salvaged.devices.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["gpu-11111111", "gpu-11111111-mig-9-4"]
    );
    assert!(store.list().unwrap().quarantined.is_empty(), "each is quarantined once");
}

#[test]
fn a_listing_moves_nothing_and_a_record_written_since_is_not_quarantined() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let (uid, good) = (UID.parse().unwrap(), record(ClaimState::Ready { done: vec![] }));
    std::fs::write(store.path(&uid), "garbage").unwrap();
    for _ in 0..2 {
        assert_eq!(store.list().unwrap().quarantined[0].path, store.path(&uid));
        assert_eq!(store.all_quarantined().unwrap().len(), 1);
        assert!(store.quarantined().unwrap().is_empty());
    }
    store.put(&good).unwrap();
    assert_eq!(store.quarantine_if_damaged(&uid).unwrap(), None);
    assert_eq!(loaded(&store), Some(good));
    store.remove(&uid).unwrap();
    assert_eq!(store.quarantine_if_damaged(&uid).unwrap(), None);
}

/// Two plugin processes work on the same records during an upgrade.
#[test]
fn a_record_is_decoded_once_and_what_another_process_changes_is_seen_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let files = Arc::new(FaultyFiles::default());
    let port: Arc<dyn Files> = Arc::<FaultyFiles>::clone(&files);
    let (ours, theirs) = (RecordStore::open(port, dir.path()).unwrap(), store(&dir));
    let uid = UID.parse().unwrap();
    let until_old = || {
        while HostFiles.version(&ours.path(&uid)).unwrap().is_none() {
            std::thread::yield_now();
        }
    };
    let preparing = |next| record(ClaimState::Preparing { done: vec![], next });
    let marked = record(ClaimState::Ready { done: vec![Step::ClaimSpec] });
    let changes: [(&dyn Fn(), Option<ClaimRecord>); 5] = [
        (&|| theirs.put(&preparing(vec![])).unwrap(), Some(preparing(vec![]))),
        (&|| theirs.put(&preparing(vec![Step::ClaimSpec])).unwrap(), Some(preparing(vec![Step::ClaimSpec]))),
        (&|| theirs.mark_ready(&uid).unwrap(), Some(marked)),
        (&|| theirs.remove(&uid).unwrap(), None),
        (&|| theirs.put(&preparing(vec![])).unwrap(), Some(preparing(vec![]))),
    ];
    for (change, expected) in changes {
        change();
        assert_eq!(loaded(&ours), expected);
        assert_eq!(ours.list().unwrap().records.pop(), expected);
        if expected.is_some() {
            until_old();
            assert_eq!(loaded(&ours), expected);
            let reads = files.reads();
            assert_eq!(ours.list().unwrap().records.pop(), expected);
            assert_eq!(loaded(&ours), expected);
            assert_eq!(files.reads(), reads);
        }
    }
}

/// What is remembered of a record that was just written is what its file has, also after a change by another process.
#[test]
fn two_stores_and_a_new_one_read_the_same_after_any_changes_of_both() {
    let (uid, step): (ClaimUid, _) = (UID.parse().unwrap(), Step::ClaimSpec);
    let put = |state: ClaimState| move |store: &RecordStore| store.put(&record(state.clone())).unwrap();
    let preparing = |done, next| ClaimState::Preparing { done, next };
    let preparing_first = put(preparing(vec![], vec![step.clone()]));
    let mark = |store: &RecordStore| store.mark_ready(&uid).unwrap_or_default();
    let damage = |store: &RecordStore| {
        let mut bytes = std::fs::read(store.path(&uid)).unwrap_or_default();
        bytes.iter_mut().rev().nth(20).into_iter().for_each(|byte| *byte ^= 1);
        std::fs::write(store.path(&uid), bytes).unwrap();
    };
    let changes: [&dyn Fn(&RecordStore); 7] = [
        &preparing_first,
        &put(preparing(vec![step.clone()], vec![])),
        &put(ClaimState::Ready { done: vec![step.clone()] }),
        &put(ClaimState::Undoing { left: vec![step.clone()], last_error: "the disk is full".to_owned() }),
        &mark,
        &damage,
        &|store| store.remove(&uid).unwrap(),
    ];
    let by_both = || changes.iter().flat_map(|change| [(change, 0), (change, 1)]);
    for (first, second) in by_both().flat_map(|first| by_both().map(move |second| (first, second))) {
        let dir = tempfile::tempdir().unwrap();
        let stores = [store(&dir), store(&dir)];
        preparing_first(&stores[0]);
        for (change, by) in [first, second] {
            change(&stores[by]);
            let expected = format!("{:?}", store(&dir).inspect(&uid).unwrap());
            for store in &stores {
                assert_eq!(format!("{:?}", store.inspect(&uid).unwrap()), expected);
                let listed: Vec<_> = store.list().unwrap().records;
                assert_eq!(listed, self::store(&dir).list().unwrap().records);
            }
        }
    }
}

#[test]
fn a_record_of_a_newer_driver_stays_in_place_until_its_claim_is_prepared_or_unprepared() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let uid = UID.parse().unwrap();
    let good = String::from_utf8(versions::encode(&record(ClaimState::Ready { done: vec![] })).unwrap()).unwrap();
    let newer = good.replacen("dra-claim 3", "dra-claim 4", 1);
    std::fs::write(store.path(&uid), &newer).unwrap();
    for _ in 0..2 {
        let [reported] = <[_; 1]>::try_from(store.list().unwrap().quarantined).unwrap();
        assert!(
            reported.path == store.path(&uid) && reported.reason.starts_with("written in format 4"),
            "{reported:?}"
        );
        assert_eq!(reported.salvaged.hardware, [gpu_device().hardware]);
        assert!(reported.salvaged.is_claim_certain && store.quarantined().unwrap().is_empty());
        assert_eq!(store.all_quarantined().unwrap(), [reported]);
    }
    assert_eq!(std::fs::read_to_string(store.path(&uid)).unwrap(), newer);
    assert!(matches!(store.load(&uid).unwrap(), Found::Quarantined(_)));
    assert_eq!(store.all_quarantined().unwrap()[0].path, dir.path().join(format!("quarantine/{UID}.json")));
}

#[test]
fn a_quarantined_record_counts_until_it_is_cleared_and_the_bytes_stay() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let mut bytes = versions::encode(&record(ClaimState::Ready { done: vec![] })).unwrap();
    let at = bytes.windows(7).position(|bytes| bytes == b"bootId\"").unwrap();
    bytes[at] ^= 1;
    std::fs::write(dir.path().join(format!("claims/{UID}.json")), &bytes).unwrap();
    let bad = &listed(&store).quarantined[0];
    assert!(!bad.salvaged.is_claim_certain, "the flip may be in its name");
    assert_eq!(bad.salvaged.claim, Some(record(ClaimState::Ready { done: vec![] }).claim));
    assert_eq!(bad.salvaged.admin, ["gpu-11111111-mig-9-4".parse().unwrap()]);
    assert_eq!(bad.salvaged.hardware, [gpu_device().hardware]);
    store.clear_quarantine(&"another".parse().unwrap()).unwrap();
    assert_eq!(store.quarantined().unwrap(), std::slice::from_ref(bad));
    for _ in 0..2 {
        store.clear_quarantine(&UID.parse().unwrap()).unwrap();
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
        let found = dra_checkpoint::salvaged::of(spoilt.as_bytes(), Some(&UID.parse().unwrap()));
        let device = "gpu-11111111".parse().unwrap();
        let named = found.devices.contains(&device) && !found.admin.contains(&device);
        assert_eq!(named, whole_gpu_is_named, "{found:?}");
        assert_eq!(found.hardware.contains(&gpu_device().hardware), uuid_is_there, "{found:?}");
        assert!(found.claim.is_some_and(|claim| claim.to_string() == "ml/train-0"));
    }
    let foreign = good.replace("\"train-0\"", "\"train\\n0\"");
    assert_eq!(
        dra_checkpoint::salvaged::of(foreign.as_bytes(), None).claim,
        None,
        "such a name must not appear in a message"
    );
}

#[test]
fn a_share_that_is_half_readable_holds_its_device_or_the_whole_gpu() {
    let share = &shared()["mps-share"];
    let good = String::from_utf8(versions::encode(share).unwrap()).unwrap();
    let whole = gpu_device().hardware;
    for (spoilt, hardware) in [
        (good.replace("\"bootId\"", "\"?ootId\""), &share.devices[0].hardware),
        (good.replace("{\"request\":", "{\"?equest\":"), &whole),
        (good.replace("\"form\":\"mps\"", "\"form\":\"?ps\""), &whole),
        (good.split_once("\"limits\"").unwrap().0.to_owned(), &whole),
    ] {
        let found = dra_checkpoint::salvaged::of(spoilt.as_bytes(), Some(&UID.parse().unwrap()));
        assert_eq!(found.devices, ["gpu-11111111-mps".parse().unwrap()], "{spoilt}");
        assert!(found.hardware.contains(hardware), "{found:?}");
    }
    let only_cdi = good.replace("\"device\":", "\"?evice\":");
    let found = dra_checkpoint::salvaged::of(only_cdi.as_bytes(), Some(&UID.parse().unwrap()));
    assert_eq!(found.devices, ["gpu-11111111-mps".parse().unwrap()]);
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
    assert!(listing.quarantined[0].reason.contains("failed to read"), "{}", listing.quarantined[0].reason);
    let error = store.load(&lost).unwrap_err().to_string();
    assert!(error.starts_with("failed to read ") && error.contains(lost.as_str()), "{error}");
}

#[test]
fn directories_links_and_foreign_files_in_the_directory_stop_nothing() {
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
fn a_read_only_directory_still_shows_what_is_good_and_what_is_not() {
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
    assert!(error.to_string().starts_with("failed to write "), "{error}");
}

/// Whichever effect is cut or fails, the directory has the old record or the new one.
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
