// SPDX-License-Identifier: Apache-2.0
//! An entry of a mig-parted configuration: what is done with some GPUs of a node.

use dra_model::PciIds;
use serde_json::Value;

use crate::device_id::DeviceId;
use crate::error::LayoutError;
use crate::field::Field;
use crate::profile::Profile;

#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    pub path: String,
    /// `devices`, if not `all`: positions in the PCI order of the node's GPUs.
    pub indexes: Option<Limit<u64>>,
    /// `device-filter`.
    pub filter: Option<Limit<DeviceId>>,
    pub gpus: Gpus,
}

/// A key that limits an entry to some GPUs.
#[derive(Debug, PartialEq, Eq)]
pub struct Limit<T> {
    pub path: String,
    pub values: Vec<T>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Gpus {
    /// MIG mode is off.
    Whole,
    /// MIG mode is on, with these devices.
    Parted(Vec<MigDevices>),
}

/// MIG devices of one profile on each GPU.
#[derive(Debug, PartialEq, Eq)]
pub struct MigDevices {
    pub profile: Profile,
    pub count: u32,
    /// Of the count.
    pub path: String,
}

impl Entry {
    /// Whether the entry is about a GPU. Ids that are not known match no filter.
    pub fn is_about(&self, index: u64, ids: Option<PciIds>) -> bool {
        let is_listed = |limit: &Limit<u64>| limit.values.contains(&index);
        let is_of_model =
            |limit: &Limit<DeviceId>| limit.values.iter().any(|id| ids.is_some_and(|ids| id.matches(ids)));
        self.indexes.as_ref().is_none_or(is_listed) && self.filter.as_ref().is_none_or(is_of_model)
    }
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

fn indexes(field: &Field<'_>) -> Result<Option<Limit<u64>>, LayoutError> {
    if field.value == "all" {
        return Ok(None);
    }
    let wrong = || LayoutError::Type(field.is_not("all or a list of GPU indexes"));
    let items = field.value.as_array().ok_or_else(wrong)?;
    let values: Option<Vec<u64>> = items.iter().map(Value::as_u64).collect();
    Ok(Some(Limit { path: field.path.clone(), values: values.ok_or_else(wrong)? }))
}

/// An empty filter is none.
fn filter(field: Field<'_>) -> Result<Option<Limit<DeviceId>>, LayoutError> {
    let items = if field.value.is_string() { vec![field.clone()] } else { field.items().map_err(LayoutError::Type)? };
    let mut values = Vec::new();
    for item in items {
        let text = item.text().map_err(LayoutError::Type)?.unwrap_or_default();
        if !text.is_empty() {
            let invalid = || LayoutError::DeviceId { path: item.path.clone(), found: text.to_owned() };
            values.push(DeviceId::parse(text).ok_or_else(invalid)?);
        }
    }
    Ok((!values.is_empty()).then_some(Limit { path: field.path, values }))
}

fn devices(field: &Field<'_>) -> Result<Vec<MigDevices>, LayoutError> {
    let mut devices = Vec::new();
    for (name, field) in field.entries().map_err(LayoutError::Type)? {
        let profile = Profile::parse(name).ok_or_else(|| LayoutError::Profile { path: field.path.clone() })?;
        let number = field.number().map_err(LayoutError::Type)?.unwrap_or_default();
        match u32::try_from(number) {
            Ok(count) if count > 0 => devices.push(MigDevices { profile, count, path: field.path }),
            Ok(_) | Err(_) => return Err(LayoutError::Count { path: field.path, found: number }),
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
