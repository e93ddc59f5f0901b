// SPDX-License-Identifier: Apache-2.0
//! The memory of the GPUs and the MIG profiles of the driver, from `kubectl get resourceslices -o json`.
//!
//! Devices of other drivers and of other types are ignored.

use std::collections::BTreeSet;

use dra_model::{Bytes, SharedForm};
use dra_resource::published::{PublishedDevice, PublishedError, parse_list, pools};
use dra_resource::{DriverName, names};

/// The published devices of the driver.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Published {
    pub whole: Sizes,
    pub mps: Sizes,
    pub time_slicing: Sizes,
    /// Of MIG devices.
    pub profiles: BTreeSet<String>,
}

/// The memory of the devices of one type.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// In whole MiB.
    pub memory: BTreeSet<Bytes>,
    /// Whether a device has no published memory.
    pub unknown: bool,
}

impl Published {
    /// The memory of the devices in a form; that of whole GPUs if the form is not published.
    pub fn of(&self, form: SharedForm) -> &Sizes {
        let shared = match form {
            SharedForm::Mps => &self.mps,
            SharedForm::TimeSlicing => &self.time_slicing,
        };
        if *shared == Sizes::default() { &self.whole } else { shared }
    }

    /// The profiles of the MIG devices as text, if there are MIG devices and none has this profile.
    pub fn others_than(&self, profile: &str) -> Option<String> {
        let published: Vec<&str> = self.profiles.iter().map(String::as_str).collect();
        (!published.is_empty() && !published.contains(&profile)).then(|| published.join(", "))
    }
}

impl Sizes {
    fn add(&mut self, device: &PublishedDevice<'_>) -> Result<(), PublishedError> {
        let memory = device.memory()?;
        self.unknown |= memory.is_none();
        self.memory.extend(memory.map(|memory| Bytes::from_mib(memory.mib())));
        Ok(())
    }
}

/// Reads the slices of one driver.
pub fn read(json: &str, driver: &DriverName) -> Result<Published, PublishedError> {
    let slices = parse_list(json)?;
    let mut published = Published::default();
    for pool in pools(&slices, driver.as_str()).into_values() {
        for device in pool.devices() {
            match (device.kind(), device.attribute(names::SHARING_STRATEGY)) {
                (Some("gpu"), _) => published.whole.add(&device)?,
                (Some("shared-gpu"), Some("MPS")) => published.mps.add(&device)?,
                (Some("shared-gpu"), Some("TimeSlicing")) => published.time_slicing.add(&device)?,
                (Some("mig"), _) => {
                    published.profiles.extend(device.attribute(names::PROFILE).map(str::to_owned));
                }
                _ => {}
            }
        }
    }
    Ok(published)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slices(device: &serde_json::Value) -> String {
        let pool = json!({"name": "n", "generation": 1, "resourceSliceCount": 1});
        let spec = json!({"driver": "gpu.nvidia.com", "nodeName": "n", "pool": pool, "devices": [device]});
        json!({"items": [{"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "spec": spec}]}).to_string()
    }

    fn device(attributes: &serde_json::Value, memory: &str) -> serde_json::Value {
        json!({"name": "d", "attributes": attributes, "capacity": {"memory": {"value": memory}}})
    }

    #[test]
    fn memory_and_profiles_of_the_driver_are_read() {
        let driver = &"gpu.nvidia.com".parse().unwrap();
        let published = |attributes, memory| read(&slices(&device(&attributes, memory)), driver).unwrap();
        let of = |mib| Sizes { memory: BTreeSet::from([Bytes::from_mib(mib)]), unknown: false };
        let gpu = Published { whole: of(81_559), ..Published::default() };
        assert_eq!(published(json!({"type": {"string": "gpu"}}), "81559Mi"), gpu);
        assert_eq!(gpu.of(SharedForm::Mps), &of(81_559));
        let shared = json!({"gpu.nvidia.com/type": {"string": "shared-gpu"}, "sharingStrategy": {"string": "MPS"}});
        let mps = Published { mps: of(81_559), ..Published::default() };
        assert_eq!(published(shared, "83516417Ki"), mps);
        assert_eq!(Published { whole: of(90_000), ..mps }.of(SharedForm::Mps), &of(81_559));
        assert_eq!(published(json!({"type": {"string": "vfio"}}), "81559Mi"), Published::default());
        let mig = published(json!({"type": {"string": "mig"}, "profile": {"string": "1g.10gb"}}), "9856Mi");
        assert_eq!(mig, Published { profiles: BTreeSet::from(["1g.10gb".to_owned()]), ..Published::default() });
    }

    #[test]
    fn what_is_no_list_of_slices_is_refused() {
        let driver = &"gpu.nvidia.com".parse().unwrap();
        let odd = read(&slices(&device(&json!({"type": {"string": "gpu"}}), "much")), driver).unwrap_err();
        assert_eq!(odd.to_string(), r#"device d of pool n has the invalid memory "much""#);
        for text in ["", "{}", "[]", r#"{"items": [{"apiVersion": "v1", "kind": "Pod"}]}"#] {
            assert!(matches!(read(text, driver), Err(PublishedError::Json(_))), "{text}");
        }
    }
}
