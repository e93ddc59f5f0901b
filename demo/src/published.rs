// SPDX-License-Identifier: Apache-2.0
//! What the driver's ResourceSlices say, read through `kubectl`.

use crate::{
    driver::DRIVER,
    stage::{list, number, text},
};
use dra_cluster::{Cluster, Result};
use serde_json::Value;
use std::{collections::BTreeMap, fmt};

/// The slices of a node's pool that have its newest generation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pool {
    /// Newest generation.
    pub generation: u64,
    /// How many slices there are.
    pub slices: u64,
    /// How many there should be.
    pub expected_slices: u64,
    /// In the order in which the scheduler tries them.
    pub devices: Vec<Device>,
}

/// A device as users can select it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Name in the pool.
    pub name: String,
    /// `gpu`, `mig` or `shared-gpu`.
    pub kind: String,
    /// How many claims share it: `MPS` or `TimeSlicing`; of a `shared-gpu`.
    pub strategy: Option<String>,
    /// Such as `NVIDIA H100 80GB HBM3`.
    pub product_name: String,
    /// Of a MIG device, such as `1g.10gb`.
    pub profile: Option<String>,
    /// `GPU-…` or `MIG-…`.
    pub uuid: String,
    /// As a Kubernetes quantity.
    pub memory: String,
}

impl Pool {
    /// Whether no slice is missing.
    pub fn is_complete(&self) -> bool {
        self.slices > 0 && self.slices == self.expected_slices
    }

    /// The device of this UUID that one claim has for itself.
    pub fn device(&self, uuid: &str) -> Option<&Device> {
        self.devices.iter().find(|device| device.uuid == uuid && device.strategy.is_none())
    }

    /// The devices of this type.
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Device> {
        self.devices.iter().filter(move |device| device.kind == kind)
    }
}

/// Like devices in one line, such as `6 x NVIDIA H100 80GB HBM3, 80Gi`.
impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts: Vec<(String, usize)> = Vec::new();
        for device in &self.devices {
            let line = device.to_string();
            match counts.iter_mut().find(|(known, _)| *known == line) {
                Some((_, count)) => *count += 1,
                None => counts.push((line, 1)),
            }
        }
        counts.iter().enumerate().try_for_each(|(index, (line, count))| {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{count} x {line}")
        })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { product_name, profile, strategy, memory, .. } = self;
        match (profile, strategy) {
            (Some(profile), _) => write!(f, "MIG {profile} of {product_name}, {memory}"),
            (None, Some(strategy)) => write!(f, "{product_name}, {memory}, or shares of it by {strategy}"),
            (None, None) => write!(f, "{product_name}, {memory}"),
        }
    }
}

/// The driver's slices as they are.
pub fn slices(cluster: &Cluster) -> Result<Vec<Value>> {
    let selector = format!("spec.driver={DRIVER}");
    list(cluster, &["resourceslices", "--field-selector", &selector])
}

/// The pools of all nodes by name.
pub fn pools(cluster: &Cluster) -> Result<BTreeMap<String, Pool>> {
    let mut pools = BTreeMap::<String, Pool>::new();
    for slice in slices(cluster)? {
        add(pools.entry(text(&slice, "/spec/pool/name").to_owned()).or_default(), &slice);
    }
    Ok(pools)
}

fn add(pool: &mut Pool, slice: &Value) {
    let generation = number(slice, "/spec/pool/generation");
    if generation > pool.generation {
        *pool = Pool { generation, ..Pool::default() };
    }
    if generation == pool.generation {
        pool.slices += 1;
        pool.expected_slices = number(slice, "/spec/pool/resourceSliceCount");
        let devices = slice.pointer("/spec/devices").and_then(Value::as_array);
        pool.devices.extend(devices.into_iter().flatten().map(device));
    }
}

fn device(device: &Value) -> Device {
    let attribute = |name: &str| text(device, &format!("/attributes/{name}/string")).to_owned();
    let optional = |name: &str| Some(attribute(name)).filter(|text| !text.is_empty());
    Device {
        name: text(device, "/name").to_owned(),
        kind: attribute("type"),
        strategy: optional("sharingStrategy"),
        product_name: attribute("productName"),
        profile: optional("profile"),
        uuid: attribute("uuid"),
        memory: text(device, "/capacity/memory/value").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Pool, add};
    use serde_json::json;

    fn slice(generation: u64, expected: u64, devices: &serde_json::Value) -> serde_json::Value {
        let pool = json!({"name": "n", "generation": generation, "resourceSliceCount": expected});
        json!({"spec": {"pool": pool, "devices": devices}})
    }

    #[test]
    fn only_the_newest_generation_counts() {
        let gpu = json!([{
            "name": "gpu-1",
            "attributes": {"type": {"string": "gpu"}, "productName": {"string": "Tesla T4"}, "uuid": {"string": "GPU-1"}},
            "capacity": {"memory": {"value": "15Gi"}},
        }]);
        let mut pool = Pool::default();
        add(&mut pool, &slice(1, 1, &gpu));
        assert!(pool.is_complete());
        add(&mut pool, &slice(2, 2, &gpu));
        assert!(!pool.is_complete());
        add(&mut pool, &slice(1, 1, &gpu));
        add(&mut pool, &slice(2, 2, &json!(null)));
        assert!(pool.is_complete());
        assert_eq!(pool.to_string(), "1 x Tesla T4, 15Gi");
    }
}
