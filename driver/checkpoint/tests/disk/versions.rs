// SPDX-License-Identifier: Apache-2.0
//! Records as bytes: golden files of every version, and damage.

use std::path::PathBuf;

use dra_checkpoint::frame::{self, Kind};
use dra_checkpoint::{ClaimRecord, ClaimState, versions};
use proptest::prelude::*;

use crate::samples::{partitions, record, shared, states};

fn golden_path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("testdata/{name}.json"))
}

/// What version 1 describes, with the golden file it is in. No program writes these files any more.
fn version_1() -> Vec<(String, ClaimRecord)> {
    states().map(|(name, state)| (format!("v1/{name}"), record(state))).into()
}

/// What version 2 describes, with the golden file it is in. No program writes these files any more.
fn version_2() -> Vec<(String, ClaimRecord)> {
    in_files("v2", states().map(|(name, state)| (name, record(state))).into_iter().chain(shared()))
}

/// Every kind of record, with the golden file of the current version.
fn version_3() -> Vec<(String, ClaimRecord)> {
    let plain = states().map(|(name, state)| (name, record(state)));
    in_files("v3", plain.into_iter().chain(shared()).chain(partitions()))
}

fn in_files(dir: &str, records: impl Iterator<Item = (&'static str, ClaimRecord)>) -> Vec<(String, ClaimRecord)> {
    records.map(|(name, record)| (format!("{dir}/{name}"), record)).collect()
}

#[test]
fn golden_files_of_every_version_are_read() {
    for (name, record) in version_1().into_iter().chain(version_2()).chain(version_3()) {
        let golden = std::fs::read(golden_path(&name)).unwrap();
        assert_eq!(versions::decode(&golden).unwrap(), record, "{name}");
    }
}

/// `UPDATE_GOLDEN=1` writes the files; only a new version may have new ones.
#[test]
fn every_record_is_written_in_the_current_version() {
    for (name, record) in version_3() {
        let path = golden_path(&name);
        let bytes = versions::encode(&record).unwrap();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        let golden = std::fs::read(&path).unwrap();
        assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&golden), "{name}");
        assert!(bytes.starts_with(format!("dra-claim {} ", versions::CURRENT).as_bytes()), "{name}");
    }
}

#[test]
fn a_record_of_version_1_is_as_large_in_the_current_version() {
    for (name, record) in version_1() {
        let golden = std::fs::read(golden_path(&name)).unwrap();
        assert_eq!(versions::encode(&record).unwrap().len(), golden.len(), "{name}");
    }
}

#[test]
fn fields_of_newer_versions_are_written_back() {
    let plain = record(ClaimState::Preparing { done: vec![], next: vec![] });
    for mut given in [plain, shared()["mps-share"].clone(), partitions()["partition-ready"].clone()] {
        given.unknown.insert("owner".to_owned(), serde_json::json!({"team": ["a", 1]}));
        given.devices[0].unknown.insert("colour".to_owned(), serde_json::json!("green"));
        assert_eq!(versions::decode(&versions::encode(&given).unwrap()).unwrap(), given);
    }
}

#[test]
fn fields_that_version_1_does_not_know_are_written_back() {
    let golden = std::fs::read(golden_path("v1/preparing")).unwrap();
    let mut json: serde_json::Value =
        serde_json::from_slice(frame::decode(Kind::Claim, &golden).unwrap().payload).unwrap();
    json["owner"] = serde_json::json!({"team": ["a", 1]});
    json["devices"][0]["colour"] = serde_json::json!("green");
    let mut given = versions::decode(&golden).unwrap();
    given.unknown.insert("owner".to_owned(), serde_json::json!({"team": ["a", 1]}));
    given.devices[0].unknown.insert("colour".to_owned(), serde_json::json!("green"));
    let bytes = frame::encode(Kind::Claim, 1, &serde_json::to_vec(&json).unwrap());
    assert_eq!(versions::decode(&bytes).unwrap(), given);
    assert_eq!(versions::decode(&versions::encode(&given).unwrap()).unwrap(), given);
}

proptest! {
    #[test]
    fn a_damaged_file_is_never_a_wrong_record(
        kind: prop::sample::Index, cut: prop::sample::Index, flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u32..8), 0..4),
        truncate: bool,
    ) {
        let records = [version_1(), version_2(), version_3()].concat();
        let (name, given) = kind.get(&records);
        let mut bytes = std::fs::read(golden_path(name)).unwrap();
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
            prop_assert_eq!(&ClaimRecord { state: given.state.clone(), ..found }, given);
        }
    }
}
