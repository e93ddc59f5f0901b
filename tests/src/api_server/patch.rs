// SPDX-License-Identifier: Apache-2.0
//! Patches: JSON merge patch (RFC 7386), and server-side apply as far as `status.devices` goes.
//!
//! `status.devices` is a list-map with the keys driver, device, pool and shareID. What a field manager applied before and
//! leaves out now is removed; entries of others stay (KEP-4817).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::key::Key;
use super::refusal::Refusal;
use super::validate;

/// Merges `patch` into `target`.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            target.as_object_mut().map(|target| target.remove(name));
        } else {
            merge(&mut target[name], value);
        }
    }
}

/// Who applied which device statuses.
#[derive(Debug, Default)]
pub(super) struct Owners(BTreeMap<(Key, String), BTreeSet<String>>);

impl Owners {
    /// Applies the device statuses of `patch` to `claim` for a field manager.
    pub(super) fn apply(&mut self, key: &Key, manager: &str, claim: &mut Value, patch: &Value) -> Result<(), Refusal> {
        let mut wanted: BTreeMap<String, Value> =
            entries(patch).map(|entry| (list_key(entry), entry.clone())).collect();
        let before = self.0.entry((key.clone(), manager.to_owned())).or_default();
        let mut merged = Vec::new();
        for entry in entries(claim) {
            let list_key = list_key(entry);
            match wanted.remove(&list_key) {
                Some(new) => merged.push(new),
                None if before.contains(&list_key) => {}
                None => merged.push(entry.clone()),
            }
        }
        merged.extend(wanted.into_values());
        *before = entries(patch).map(list_key).collect();
        claim["status"]["devices"] = json!(merged);
        validate::device_statuses(claim)
    }
}

fn entries(claim: &Value) -> impl Iterator<Item = &Value> {
    claim["status"]["devices"].as_array().into_iter().flatten()
}

fn list_key(entry: &Value) -> String {
    ["driver", "pool", "device", "shareID"].map(|key| entry[key].as_str().unwrap_or_default()).join("/")
}
