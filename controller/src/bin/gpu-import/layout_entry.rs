// SPDX-License-Identifier: Apache-2.0
//! Parses an entry of a mig-parted configuration: what is done with some GPUs of a node.

use serde_json::Value;

use crate::fields::Field;
use crate::layout_error::LayoutError;
use crate::profile::Profile;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: String,
    /// `devices`, if not `all`.
    pub(crate) indexes: Option<Limit>,
    /// `device-filter`.
    pub(crate) filter: Option<Limit>,
    pub(crate) gpus: Gpus,
}

/// A key that limits an entry to some GPUs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) path: String,
    /// As JSON, without the brackets of a list of texts.
    pub(crate) values: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Gpus {
    /// MIG mode is off.
    Whole,
    /// MIG mode is on, with devices of these profiles and the paths of their counts.
    Parted(Vec<(Profile, String)>),
}

const KEYS: [&str; 4] = ["device-filter", "devices", "mig-enabled", "mig-devices"];

/// Reads an entry.
pub(crate) fn read(entry: &Field<'_>) -> Result<Entry, LayoutError> {
    check_keys(entry, &KEYS)?;
    let indexes = indexes(&required(entry, "devices")?)?;
    let filter = entry.at(&["device-filter"]).map_or(Ok(None), filter)?;
    let gpus = if required(entry, "mig-enabled")?.flag().map_err(LayoutError::Type)? == Some(true) {
        Gpus::Parted(devices(&required(entry, "mig-devices")?)?)
    } else {
        whole(entry)?
    };
    Ok(Entry { path: entry.path.clone(), indexes, filter, gpus })
}

/// Whole GPUs, which have no MIG devices.
fn whole(entry: &Field<'_>) -> Result<Gpus, LayoutError> {
    match entry.at(&["mig-devices"]) {
        Some(field) if !devices(&field)?.is_empty() => Err(LayoutError::Disabled { path: field.path }),
        _ => Ok(Gpus::Whole),
    }
}

fn indexes(field: &Field<'_>) -> Result<Option<Limit>, LayoutError> {
    if field.value == "all" {
        return Ok(None);
    }
    let wrong = || LayoutError::Type(field.is_not("all or a list of GPU indexes"));
    let items = field.value.as_array().ok_or_else(wrong)?;
    let indexes: Option<Vec<u64>> = items.iter().map(Value::as_u64).collect();
    let indexes: Vec<String> = indexes.ok_or_else(wrong)?.iter().map(ToString::to_string).collect();
    Ok(Some(Limit { path: field.path.clone(), values: format!("[{}]", indexes.join(", ")) }))
}

/// An empty filter is none.
fn filter(field: Field<'_>) -> Result<Option<Limit>, LayoutError> {
    let items = if field.value.is_string() { vec![field.clone()] } else { field.items().map_err(LayoutError::Type)? };
    let mut ids = Vec::new();
    for item in items {
        let id = item.text().map_err(LayoutError::Type)?.filter(|id| !id.is_empty());
        ids.extend(id.map(|id| format!("{id:?}")));
    }
    Ok((!ids.is_empty()).then(|| Limit { path: field.path, values: ids.join(", ") }))
}

fn devices(field: &Field<'_>) -> Result<Vec<(Profile, String)>, LayoutError> {
    let mut devices = Vec::new();
    for (name, count) in field.entries().map_err(LayoutError::Type)? {
        let profile = Profile::parse(name).ok_or_else(|| LayoutError::Profile { path: count.path.clone() })?;
        match count.number().map_err(LayoutError::Type)? {
            Some(number) if number > 0 => devices.push((profile, count.path)),
            found => return Err(LayoutError::Count { path: count.path, found: found.unwrap_or_default() }),
        }
    }
    Ok(devices)
}

/// Refuses other keys than the known.
pub(crate) fn check_keys(section: &Field<'_>, known: &[&str]) -> Result<(), LayoutError> {
    let entries = section.entries().map_err(LayoutError::Type)?;
    match entries.into_iter().find(|(key, _)| !known.contains(key)) {
        Some((_, field)) => Err(LayoutError::UnknownKey { path: field.path, known: known.join(", ") }),
        None => Ok(()),
    }
}

/// A key that must be there; null is an absent key.
pub(crate) fn required<'a>(section: &Field<'a>, key: &'static str) -> Result<Field<'a>, LayoutError> {
    let missing = || LayoutError::Missing { path: section.path_below(key) };
    section.at(&[key]).filter(|field| !field.value.is_null()).ok_or_else(missing)
}
