// SPDX-License-Identifier: Apache-2.0
//! Reads ResourceSlices that are published: pools with their newest generation, and devices with attributes and capacities.
//!
//! Consumers of a pool use only the slices of its newest generation, and only if all of them exist (KEP-4381). The keys of
//! attributes and capacities may have the domain of the driver, which the API server neither adds nor removes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use dra_model::quantity::parse_bytes;
use dra_model::{Advice, Bytes};
use k8s_openapi::api::resource::v1::{Device, ResourceSlice};
use serde::Deserialize;

use crate::diff::Pool;
use crate::names;

/// Slices or devices that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PublishedError {
    #[error("failed to parse a list of ResourceSlices")]
    Json(#[source] serde_json::Error),
    #[error("device {device} of pool {pool} has the invalid memory {found:?}")]
    Memory { pool: String, device: String, found: String },
}

impl Advice for PublishedError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Json(_) => Some("use the output of `kubectl get resourceslices -o json`".into()),
            Self::Memory { .. } => None,
        }
    }
}

#[derive(Deserialize)]
struct List {
    items: Vec<ResourceSlice>,
}

/// Parses the output of `kubectl get resourceslices -o json`.
pub fn parse_list(json: &str) -> Result<Vec<ResourceSlice>, PublishedError> {
    serde_json::from_str(json).map(|List { items }| items).map_err(PublishedError::Json)
}

/// The highest pool generation of slices of one pool; absent without slices.
pub fn newest_generation<'a>(slices: impl IntoIterator<Item = &'a ResourceSlice>) -> Option<i64> {
    slices.into_iter().map(|slice| slice.spec.pool.generation).max()
}

/// The slices of one pool that have its newest generation.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishedPool<'a> {
    generation: i64,
    slices: Vec<&'a ResourceSlice>,
}

/// One published device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PublishedDevice<'a> {
    driver: &'a str,
    pool: &'a str,
    device: &'a Device,
}

/// The pools of one driver, by name.
pub fn pools<'a>(
    slices: impl IntoIterator<Item = &'a ResourceSlice>,
    driver: &str,
) -> BTreeMap<&'a str, PublishedPool<'a>> {
    let mut pools: BTreeMap<&str, PublishedPool<'_>> = BTreeMap::new();
    for slice in slices.into_iter().filter(|slice| slice.spec.driver == driver) {
        let generation = slice.spec.pool.generation;
        let empty = PublishedPool { generation, slices: Vec::new() };
        let pool = pools.entry(&slice.spec.pool.name).or_insert_with(|| empty.clone());
        if generation > pool.generation {
            *pool = empty;
        }
        if generation == pool.generation {
            pool.slices.push(slice);
        }
    }
    pools
}

impl<'a> PublishedPool<'a> {
    /// Whether all slices of the newest generation exist.
    pub fn is_complete(&self) -> bool {
        let count = i64::try_from(self.slices.len()).unwrap_or(i64::MAX);
        self.slices.iter().all(|slice| slice.spec.pool.resource_slice_count == count)
    }

    /// The devices in the order in which the scheduler tries them.
    pub fn devices(&self) -> impl Iterator<Item = PublishedDevice<'a>> {
        self.slices.iter().flat_map(|slice| PublishedDevice::of(slice))
    }
}

impl<'a> PublishedDevice<'a> {
    /// A device that is or will be published in a pool.
    pub fn new(pool: &'a Pool, device: &'a Device) -> Self {
        Self { driver: pool.driver.as_str(), pool: pool.node.as_str(), device }
    }

    /// The devices of a slice.
    pub fn of(slice: &'a ResourceSlice) -> impl Iterator<Item = Self> {
        let (driver, pool) = (slice.spec.driver.as_str(), slice.spec.pool.name.as_str());
        slice.spec.devices.iter().flatten().map(move |device| Self { driver, pool, device })
    }

    pub fn name(&self) -> &'a str {
        &self.device.name
    }

    /// The attribute `type`: `gpu`, `mig` or `shared-gpu`.
    pub fn kind(&self) -> Option<&'a str> {
        self.attribute(names::TYPE)
    }

    /// A string attribute of the driver.
    pub fn attribute(&self, name: &str) -> Option<&'a str> {
        value_of(self.device.attributes.as_ref()?, self.driver, name)?.string.as_deref()
    }

    /// The value of a capacity of the driver, a Kubernetes quantity.
    pub fn capacity(&self, name: &str) -> Option<&'a str> {
        Some(&value_of(self.device.capacity.as_ref()?, self.driver, name)?.value.0)
    }

    /// The capacity `memory`; absent if it is not published.
    pub fn memory(&self) -> Result<Option<Bytes>, PublishedError> {
        let Some(found) = self.capacity(names::MEMORY) else { return Ok(None) };
        parse_bytes(found).map(Some).ok_or_else(|| PublishedError::Memory {
            pool: self.pool.to_owned(),
            device: self.device.name.clone(),
            found: found.to_owned(),
        })
    }
}

/// The value of a key with or without the domain of the driver.
fn value_of<'a, T>(values: &'a BTreeMap<String, T>, driver: &str, name: &str) -> Option<&'a T> {
    values.get(name).or_else(|| values.get(&format!("{driver}/{name}")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const DRIVER: &str = "gpu.nvidia.com";

    fn slice(pool: &str, generation: i64, count: i64, devices: &Value) -> ResourceSlice {
        let pool = json!({"name": pool, "generation": generation, "resourceSliceCount": count});
        let spec = json!({"driver": DRIVER, "nodeName": "n", "pool": pool, "devices": devices});
        serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap()
    }

    fn named(count: usize) -> Value {
        (0..count).map(|index| json!({"name": format!("gpu-{index}")})).collect()
    }

    #[test]
    fn a_pool_is_complete_with_all_slices_of_its_newest_generation() {
        let slices = [
            slice("complete", 2, 2, &Value::Null),
            slice("complete", 2, 2, &named(8)),
            slice("complete", 1, 1, &named(3)),
            slice("half", 1, 1, &named(8)),
            slice("half", 2, 2, &named(8)),
            slice("empty", 1, 1, &json!([])),
        ];
        let pools = pools(&slices, DRIVER);
        let found = pools.iter().map(|(name, pool)| (*name, pool.is_complete(), pool.devices().count()));
        assert_eq!(found.collect::<Vec<_>>(), [("complete", true, 8), ("empty", true, 0), ("half", false, 8)]);
        assert_eq!(newest_generation(&slices), Some(2));
        assert_eq!(super::pools(&slices, "net.example.com"), BTreeMap::new());
    }

    #[test]
    fn keys_may_have_the_domain_of_the_driver() {
        for prefix in ["", "gpu.nvidia.com/"] {
            let device = json!([{
                "name": "gpu-1",
                "attributes": {format!("{prefix}type"): {"string": "gpu"}, "net.example.com/uuid": {"string": "other"}},
                "capacity": {format!("{prefix}memory"): {"value": "15Gi"}},
            }]);
            let slice = slice("n", 1, 1, &device);
            let device = PublishedDevice::of(&slice).next().unwrap();
            assert_eq!((device.name(), device.kind(), device.attribute("uuid")), ("gpu-1", Some("gpu"), None));
            assert_eq!(device.capacity("memory"), Some("15Gi"));
            assert_eq!(device.memory().unwrap(), Some(Bytes(15 << 30)));
        }
    }

    #[test]
    fn invalid_lists_and_amounts_are_errors() {
        for text in ["", "{}", "[]", r#"{"items": [{"apiVersion": "v1", "kind": "Pod"}]}"#] {
            assert!(matches!(parse_list(text), Err(PublishedError::Json(_))), "{text}");
        }
        let device = json!([{"name": "d", "capacity": {"memory": {"value": "much"}}}]);
        let slice = slice("n", 1, 1, &device);
        let error = PublishedDevice::of(&slice).next().unwrap().memory().unwrap_err();
        assert_eq!(error.to_string(), r#"device d of pool n has the invalid memory "much""#);
    }
}
