// SPDX-License-Identifier: Apache-2.0
//! What the driver publishes, from `kubectl get resourceslices -o json`: the memory of its GPUs and its MIG profiles.
//!
//! Other drivers, and devices of kinds that are not imported, are passed over.

use std::collections::BTreeSet;

use dra_model::Bytes;
use dra_resource::DriverName;
use k8s_openapi::api::resource::v1::{Device, ResourceSlice};
use serde::Deserialize;

use crate::amount;

/// Sizes and profiles, each once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) memory: BTreeSet<Bytes>,
    pub(crate) profiles: BTreeSet<String>,
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
                Some("gpu" | "shared-gpu") => published.memory.extend(memory(device, driver, &spec.pool.name)?),
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
    let total = amount::parse(&memory.value.0).ok_or_else(|| PublishedError::Amount {
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
