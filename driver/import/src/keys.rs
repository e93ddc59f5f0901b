// SPDX-License-Identifier: Apache-2.0
//! The keys of the plugin's configuration and their sections.

use dra_mig_parted::Field;
use serde_json::{Map, Value};

use crate::key_notes;

pub const SECTIONS: [&str; 4] = ["version", "flags", "resources", "sharing"];
pub const STRATEGIES: [&str; 2] = ["mps", "timeSlicing"];
pub const STRATEGY_KEYS: [&str; 3] = ["failRequestsGreaterThanOne", "renameByDefault", "resources"];
pub const RESOURCE_KEYS: [&str; 4] = ["name", "replicas", "rename", "devices"];

/// The keys beside an empty `sharing` that belong below it.
pub fn lost_indentation<'k>(entries: &[(&'k str, Field<'_>)]) -> Vec<&'k str> {
    let is_empty = |field: &Field<'_>| field.value.is_null() || field.value.as_object().is_some_and(Map::is_empty);
    if !entries.iter().any(|(key, field)| is(key, "sharing") && is_empty(field)) {
        return Vec::new();
    }
    let below = |(key, field): &&(&str, Field<'_>)| match *key {
        // The top-level section `resources` is a mapping.
        "resources" => field.value.is_array(),
        key => STRATEGIES.contains(&key) || STRATEGY_KEYS.contains(&key) || RESOURCE_KEYS.contains(&key),
    };
    entries.iter().filter(below).map(|(key, _)| *key).collect()
}

fn is(key: &str, section: &str) -> bool {
    key.eq_ignore_ascii_case(section)
}

/// The section of a key that the plugin does not know at its path.
pub fn section_of(key: &str) -> Option<&'static str> {
    match key {
        _ if STRATEGIES.contains(&key) => Some("below sharing"),
        _ if STRATEGY_KEYS.contains(&key) => Some("below sharing.mps or sharing.timeSlicing"),
        _ if RESOURCE_KEYS.contains(&key) => Some("in an entry of resources, below sharing.mps or sharing.timeSlicing"),
        "migStrategy" => Some("below flags"),
        _ if SECTIONS.contains(&key) => Some("at the top, not below another key"),
        _ => key_notes::section_of_flag(key),
    }
}

/// Whether the plugin accepts the value of `devices`: `all`, a number, or a list.
pub fn is_choice(devices: &Value) -> bool {
    match devices {
        Value::String(text) => text == "all",
        Value::Number(count) => count.as_i64().is_some_and(|count| count > 0),
        Value::Array(_) => true,
        Value::Null | Value::Bool(_) | Value::Object(_) => false,
    }
}
