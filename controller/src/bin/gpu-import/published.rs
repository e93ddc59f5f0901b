// SPDX-License-Identifier: Apache-2.0
//! What the driver publishes, from `kubectl get resourceslices -o json`: the memory of its GPUs and its MIG profiles.
//!
//! Other drivers, and devices of kinds that are not imported, are passed over.

use std::collections::BTreeSet;

use dra_model::quantity::parse_bytes;
use dra_model::{Bytes, SharedForm};
use dra_resource::DriverName;
use k8s_openapi::api::resource::v1::{Device, ResourceSlice};
use serde::Deserialize;

/// What the driver has to give.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Published {
    /// Whole GPUs.
    pub(crate) whole: Sizes,
    /// GPUs in their MPS form.
    pub(crate) mps: Sizes,
    /// GPUs in their time-slicing form.
    pub(crate) time_slicing: Sizes,
    /// Of MIG devices, each once.
    pub(crate) profiles: BTreeSet<String>,
}

/// How much memory the devices of a kind have.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// In whole MiB, each size once.
    pub(crate) memory: BTreeSet<Bytes>,
    /// Whether some device has none.
    pub(crate) unknown: bool,
}

impl Published {
    /// What there is to share; that of whole GPUs where the form is not published.
    pub(crate) fn of(&self, form: SharedForm) -> &Sizes {
        let shared = match form {
            SharedForm::Mps => &self.mps,
            SharedForm::TimeSlicing => &self.time_slicing,
        };
        if *shared == Sizes::default() { &self.whole } else { shared }
    }
}

impl Sizes {
    fn add(&mut self, memory: Option<Bytes>) {
        self.unknown |= memory.is_none();
        self.memory.extend(memory);
    }
}

/// Why nothing can be learned.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishedError {
    #[error("no list of ResourceSlices: give the output of `kubectl get resourceslices -o json`")]
    Json(#[source] serde_json::Error),
    #[error("device {device:?} of pool {pool:?} has memory {found:?}, which is no amount")]
    Amount { pool: String, device: String, found: String },
}

#[derive(Deserialize)]
struct List {
    items: Vec<ResourceSlice>,
}

/// Reads the slices of one driver.
pub(crate) fn read(json: &str, driver: &DriverName) -> Result<Published, PublishedError> {
    let list: List = serde_json::from_str(json).map_err(PublishedError::Json)?;
    let mut published = Published::default();
    for spec in list.items.iter().map(|slice| &slice.spec).filter(|spec| spec.driver == driver.as_str()) {
        for device in spec.devices.iter().flatten() {
            match attribute(device, driver, "type") {
                Some("gpu") => published.whole.add(memory(device, driver, &spec.pool.name)?),
                Some("shared-gpu") => match attribute(device, driver, "sharingStrategy") {
                    Some("MPS") => published.mps.add(memory(device, driver, &spec.pool.name)?),
                    Some("TimeSlicing") => published.time_slicing.add(memory(device, driver, &spec.pool.name)?),
                    Some(_) | None => {}
                },
                Some("mig") => published.profiles.extend(attribute(device, driver, "profile").map(str::to_owned)),
                Some(_) | None => {}
            }
        }
    }
    Ok(published)
}

/// In whole MiB, as shares are counted.
fn memory(device: &Device, driver: &DriverName, pool: &str) -> Result<Option<Bytes>, PublishedError> {
    let capacity = device.capacity.as_ref();
    let qualified = format!("{}/memory", driver.as_str());
    let Some(memory) = capacity.and_then(|of| of.get("memory").or_else(|| of.get(&qualified))) else { return Ok(None) };
    let total = parse_bytes(&memory.value.0).ok_or_else(|| PublishedError::Amount {
        pool: pool.to_owned(),
        device: device.name.clone(),
        found: memory.value.0.clone(),
    })?;
    Ok(Some(Bytes::from_mib(total.mib())))
}

fn attribute<'d>(device: &'d Device, driver: &DriverName, name: &str) -> Option<&'d str> {
    let attributes = device.attributes.as_ref()?;
    let qualified = format!("{}/{name}", driver.as_str());
    attributes.get(name).or_else(|| attributes.get(&qualified))?.string.as_deref()
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
        assert_eq!(odd.to_string(), r#"device "d" of pool "n" has memory "much", which is no amount"#);
        for text in ["", "{}", "[]", r#"{"items": [{"apiVersion": "v1", "kind": "Pod"}]}"#] {
            assert!(matches!(read(text, driver), Err(PublishedError::Json(_))), "{text}");
        }
    }
}
