// SPDX-License-Identifier: Apache-2.0
//! The driver's ResourceSlices, read through `kubectl`.

use crate::stage::list;
use dra_cluster::{Cluster, ClusterError, Result};
use dra_resource::{
    names,
    published::{self, PublishedDevice, PublishedPool},
};
use k8s_openapi::api::resource::v1::ResourceSlice;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Name of the DRA driver.
pub const DRIVER: &str = "gpu.nvidia.com";

/// The pool of a node, with the devices of its newest generation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pool {
    is_complete: bool,
    /// In the order in which the scheduler tries them.
    pub devices: Vec<Device>,
}

/// A published device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Name in the pool.
    pub name: String,
    /// `gpu`, `mig` or `shared-gpu`.
    pub kind: String,
    /// `MPS` or `TimeSlicing`; of a `shared-gpu`.
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
    /// Whether all slices of the newest generation exist.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// The device of this UUID that is not shared.
    pub fn device(&self, uuid: &str) -> Option<&Device> {
        self.devices.iter().find(|device| device.uuid == uuid && device.strategy.is_none())
    }

    /// The devices of this type that exist.
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Device> {
        self.devices.iter().filter(move |device| device.kind == kind && !device.is_partition())
    }

    /// The MIG devices that the driver creates when a claim needs them.
    pub fn partitions(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter().filter(|device| device.is_partition())
    }
}

/// Like devices in one line, such as `6 x NVIDIA H100 80GB HBM3, 80Gi`, and the profiles of partitions in a last one.
impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts: Vec<(String, usize)> = Vec::new();
        for device in self.devices.iter().filter(|device| !device.is_partition()) {
            let line = device.to_string();
            match counts.iter_mut().find(|(known, _)| *known == line) {
                Some((_, count)) => *count += 1,
                None => counts.push((line, 1)),
            }
        }
        counts.iter().enumerate().try_for_each(|(index, (line, count))| {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{count} x {line}")
        })?;
        let profiles: BTreeSet<&str> = self.partitions().filter_map(|device| device.profile.as_deref()).collect();
        if profiles.is_empty() {
            return Ok(());
        }
        write!(f, "\nMIG devices on demand: {}", profiles.into_iter().collect::<Vec<_>>().join(", "))
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

/// The slices of the driver.
pub fn slices(cluster: &Cluster) -> Result<Vec<Value>> {
    let selector = format!("spec.driver={DRIVER}");
    list(cluster, &["resourceslices", "--field-selector", &selector])
}

/// The pools of all nodes, by name.
pub fn pools(cluster: &Cluster) -> Result<BTreeMap<String, Pool>> {
    let slices = slices(cluster)?.into_iter().map(serde_json::from_value).collect::<std::result::Result<Vec<_>, _>>();
    let slices =
        slices.map_err(|source| ClusterError::Json { what: "the list of ResourceSlices".to_owned(), source })?;
    Ok(pools_of(&slices))
}

fn pools_of(slices: &[ResourceSlice]) -> BTreeMap<String, Pool> {
    let pool = |pool: PublishedPool<'_>| Pool {
        is_complete: pool.is_complete(),
        devices: pool.devices().map(|device| Device::of(&device)).collect(),
    };
    published::pools(slices, DRIVER).into_iter().map(|(name, found)| (name.to_owned(), pool(found))).collect()
}

impl Device {
    /// Whether the driver creates the device when a claim needs it. Only then it has a UUID.
    pub fn is_partition(&self) -> bool {
        self.kind == "mig" && self.uuid == "Unknown"
    }

    fn of(device: &PublishedDevice<'_>) -> Self {
        let optional = |name: &str| device.attribute(name).map(str::to_owned);
        let attribute = |name: &str| optional(name).unwrap_or_default();
        Self {
            name: device.name().to_owned(),
            kind: attribute(names::TYPE),
            strategy: optional(names::SHARING_STRATEGY),
            product_name: attribute(names::PRODUCT_NAME),
            profile: optional(names::PROFILE),
            uuid: attribute(names::UUID),
            memory: device.capacity(names::MEMORY).unwrap_or_default().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DRIVER, pools_of};
    use serde_json::json;

    #[test]
    fn like_devices_of_the_newest_generation_are_one_line() {
        let gpu = |name: &str| {
            let attributes =
                json!({"type": {"string": "gpu"}, "productName": {"string": "Tesla T4"}, "uuid": {"string": name}});
            json!({"name": name, "attributes": attributes, "capacity": {"memory": {"value": "15Gi"}}})
        };
        let slice = |generation: i64, devices: serde_json::Value| {
            let pool = json!({"name": "n", "generation": generation, "resourceSliceCount": 2});
            let spec = json!({"driver": DRIVER, "nodeName": "n", "pool": pool, "devices": devices});
            serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap()
        };
        let [old, first, second] =
            [slice(1, json!([gpu("a")])), slice(2, json!([gpu("a"), gpu("b")])), slice(2, json!(null))];
        let pools = pools_of(&[old, first, second]);
        assert!(pools["n"].is_complete());
        assert_eq!(pools["n"].to_string(), "2 x Tesla T4, 15Gi");
    }
}
