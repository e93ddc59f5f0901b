// SPDX-License-Identifier: Apache-2.0
//! What a real API server checks of slices and claims, as far as the driver could get it wrong.
//!
//! Sources: `pkg/apis/resource/validation`, `pkg/registry/resource/resourceclaim/strategy.go` and `types.go` of
//! Kubernetes 1.37.

use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSlice};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::refusal::{Refusal, invalid};

mod request_policy;

/// A slice as the server keeps it: fields it does not know dropped, limits and immutable fields checked.
pub(super) fn slice(mut object: Value, old: Option<&Value>, dropped_fields: &[&str]) -> Result<Value, Refusal> {
    drop_fields(&mut object["spec"], dropped_fields);
    let object = strict::<ResourceSlice>(&object)?;
    let spec = &object["spec"];
    let devices = spec["devices"].as_array().map_or(&[][..], Vec::as_slice);
    let counters = spec["sharedCounters"].as_array().map_or(0, Vec::len);
    let gated = devices.iter().any(|device| !device["consumesCounters"].is_null() || !device["taints"].is_null());
    let most = if gated { 64 } else { 128 };
    if devices.len() > most {
        return Err(invalid(format!("spec.devices: Too many: {}: must have at most {most} items", devices.len())));
    }
    if counters > 8 {
        return Err(invalid(format!("spec.sharedCounters: Too many: {counters}: must have at most 8 items")));
    }
    if counters > 0 && !devices.is_empty() {
        return Err(invalid("spec: only one of `sharedCounters` or `devices` is allowed"));
    }
    devices.iter().try_for_each(request_policy::check)?;
    if let Some(field) = old.and_then(|old| changed_immutable(&old["spec"], spec)) {
        return Err(invalid(format!("spec.{field}: Invalid value: field is immutable")));
    }
    Ok(object)
}

/// A claim as the server keeps it: the statuses of devices that were deallocated are dropped.
pub(super) fn claim(object: &Value, old: Option<&Value>) -> Result<Value, Refusal> {
    let mut claim = strict::<ResourceClaim>(object)?;
    if let Some(old) = old {
        drop_deallocated(&mut claim, old);
    }
    Ok(claim)
}

/// Removes the statuses of devices that the claim had and has no more (`dropDeallocatedStatusDevices`).
fn drop_deallocated(claim: &mut Value, old: &Value) {
    let (before, now) = (allocated(old), allocated(claim));
    let Some(status) = claim["status"].as_object_mut() else { return };
    let Some(entries) = status.get_mut("devices").and_then(Value::as_array_mut) else { return };
    let is_among = |results: &[Value], entry: &Value| results.iter().any(|result| is_of(entry, result));
    entries.retain(|entry| !is_among(&before, entry) || is_among(&now, entry));
    if entries.is_empty() {
        status.remove("devices");
    }
}

/// The allocation results of a claim.
fn allocated(claim: &Value) -> Vec<Value> {
    claim["status"]["allocation"]["devices"]["results"].as_array().cloned().unwrap_or_default()
}

/// Whether a device status is about this allocation result.
fn is_of(entry: &Value, result: &Value) -> bool {
    ["driver", "pool", "device", "shareID"].iter().all(|key| result[key] == entry[key])
}

/// Every device status must belong to an allocation result (`validateDeviceStatus`).
pub(super) fn device_statuses(claim: &Value) -> Result<(), Refusal> {
    let results = allocated(claim);
    for entry in claim["status"]["devices"].as_array().into_iter().flatten() {
        if !results.iter().any(|result| is_of(entry, result)) {
            return Err(invalid(format!(
                "status.devices: Invalid value: {entry}: must be an allocated device in the claim"
            )));
        }
    }
    Ok(())
}

fn changed_immutable(old: &Value, new: &Value) -> Option<&'static str> {
    ["/driver", "/pool/name", "/nodeName"]
        .into_iter()
        .find(|field| old.pointer(field) != new.pointer(field))
        .map(|f| &f[1..])
}

/// Through the published types and back: a wrong type is refused, an unknown field is lost.
fn strict<T: DeserializeOwned + Serialize>(object: &Value) -> Result<Value, Refusal> {
    let failed = |error: serde_json::Error| Refusal::new(400, "BadRequest", error.to_string());
    let typed: T = T::deserialize(object).map_err(failed)?;
    serde_json::to_value(typed).map_err(failed)
}

fn drop_fields(value: &mut Value, names: &[&str]) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !names.contains(&name.as_str()));
            fields.values_mut().for_each(|value| drop_fields(value, names));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| drop_fields(value, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
