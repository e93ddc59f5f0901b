// SPDX-License-Identifier: Apache-2.0
//! Records as bytes: golden files of every version, and damage.

use std::path::PathBuf;

use dra_checkpoint::{ClaimRecord, ClaimState, versions};
use proptest::prelude::*;

use crate::samples::{record, shared, states};

/// Every kind of record, with the golden file it is in.
fn records() -> Vec<(String, ClaimRecord)> {
    let plain = states().map(|(name, state)| (format!("v1/{name}"), record(state)));
    let shared = shared().into_iter().map(|(name, record)| (format!("v2/{name}"), record));
    plain.into_iter().chain(shared).collect()
}

/// `UPDATE_GOLDEN=1` writes the files; only a new version may have new ones.
#[test]
fn every_version_reads_and_writes_its_golden_files() {
    for (name, record) in records() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("testdata/{name}.json"));
        let bytes = versions::encode(&record).unwrap();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &bytes).unwrap();
        }
        let golden = std::fs::read(&path).unwrap();
        assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&golden), "{name}");
        assert_eq!(versions::decode(&golden).unwrap(), record, "{name}");
    }
}

#[test]
fn what_version_1_has_words_for_stays_readable_by_it() {
    for (name, record) in records() {
        let header = format!("dra-claim {} ", name.trim_start_matches('v').split('/').next().unwrap());
        assert!(versions::encode(&record).unwrap().starts_with(header.as_bytes()), "{name}");
    }
}

#[test]
fn fields_of_newer_versions_are_written_back() {
    let plain = record(ClaimState::Preparing { done: vec![], next: vec![] });
    for mut given in [plain, shared()["mps-share"].clone()] {
        given.unknown.insert("owner".to_owned(), serde_json::json!({"team": ["a", 1]}));
        given.devices[0].unknown.insert("colour".to_owned(), serde_json::json!("green"));
        assert_eq!(versions::decode(&versions::encode(&given).unwrap()).unwrap(), given);
    }
}

proptest! {
    #[test]
    fn a_damaged_file_is_never_a_wrong_record(
        kind: prop::sample::Index, cut: prop::sample::Index, flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u32..8), 0..4),
        truncate: bool,
    ) {
        let records = records();
        let given = &kind.get(&records).1;
        let mut bytes = versions::encode(given).unwrap();
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
