// SPDX-License-Identifier: Apache-2.0
//! What a claim's `status.devices` says about the devices that were prepared for it: which silicon it really is.
//!
//! Only the API object is made here; who writes it, and when, is the kubelet plugin's business.

use dra_model::{AllocatedDevice, ClaimRef, LiveIdentity};
use k8s_openapi::api::resource::v1::AllocatedDeviceStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

use crate::names::DriverName;

/// How the pods of a claim use the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// As it is; nothing was configured.
    Plain,
}

impl Strategy {
    fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "None",
        }
    }
}

/// One device of a claim that containers can use.
#[derive(Debug, Clone)]
pub struct DeviceStatus<'a> {
    /// The allocation result it is for.
    pub allocated: &'a AllocatedDevice,
    /// What it is.
    pub identity: &'a LiveIdentity,
    /// How it is used.
    pub strategy: Strategy,
    /// Since when.
    pub since: Time,
}

impl DeviceStatus<'_> {
    /// The entry of `status.devices`; its key is driver, pool, device and share.
    pub fn entry(&self, driver: &DriverName) -> AllocatedDeviceStatus {
        AllocatedDeviceStatus {
            driver: driver.to_string(),
            pool: self.allocated.pool.clone(),
            device: self.allocated.device.to_string(),
            share_id: self.allocated.share_id.as_ref().map(ToString::to_string),
            conditions: Some(vec![self.condition()]),
            data: Some(RawExtension(data(self.identity, self.strategy))),
            network_data: None,
        }
    }

    fn condition(&self) -> Condition {
        Condition {
            type_: "Ready".to_owned(),
            status: "True".to_owned(),
            reason: "Prepared".to_owned(),
            message: "device is ready for containers".to_owned(),
            last_transition_time: self.since.clone(),
            observed_generation: None,
        }
    }
}

/// The body of a server-side apply of `status`, which touches this driver's entries and nobody else's.
pub fn apply_patch(claim: &ClaimRef, driver: &DriverName, devices: &[DeviceStatus<'_>]) -> Value {
    let entries: Vec<AllocatedDeviceStatus> = devices.iter().map(|device| device.entry(driver)).collect();
    json!({
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"namespace": claim.namespace, "name": claim.name, "uid": claim.uid.as_str()},
        "status": {"devices": entries},
    })
}

fn data(identity: &LiveIdentity, strategy: Strategy) -> Value {
    match identity {
        LiveIdentity::Gpu { uuid } => json!({"type": "gpu", "uuid": uuid, "strategy": strategy.as_str()}),
        LiveIdentity::Mig { uuid, parent, gpu_instance, compute_instance, profile } => json!({
            "type": "mig",
            "uuid": uuid,
            "parentUUID": parent,
            "giID": gpu_instance,
            "ciID": compute_instance,
            "profile": profile,
            "strategy": strategy.as_str(),
        }),
        LiveIdentity::Shared { uuid, form } => json!({"type": "shared-gpu", "uuid": uuid, "strategy": form}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocated() -> AllocatedDevice {
        AllocatedDevice {
            request: "r".to_owned(),
            pool: "node-1".to_owned(),
            device: "gpu-12345678-mig-19-0".parse().unwrap(),
            admin_access: false,
            share_id: None,
            consumed: dra_model::ShareLimits::default(),
        }
    }

    #[test]
    fn a_prepared_mig_device_shows_what_it_really_is() {
        let allocated = allocated();
        let identity = LiveIdentity::Mig {
            uuid: "MIG-00000000-0000-0000-0000-000000000002".parse().unwrap(),
            parent: "GPU-12345678-0000-0000-0000-000000000001".parse().unwrap(),
            gpu_instance: 7,
            compute_instance: 0,
            profile: "1g.10gb".to_owned(),
        };
        let status = DeviceStatus {
            allocated: &allocated,
            identity: &identity,
            strategy: Strategy::Plain,
            since: Time("2026-11-22T03:00:00Z".parse().unwrap()),
        };
        let claim = ClaimRef { namespace: "ns".to_owned(), name: "c".to_owned(), uid: "u".parse().unwrap() };
        assert_eq!(
            apply_patch(&claim, &"gpu.nvidia.com".parse().unwrap(), &[status]),
            json!({
                "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
                "metadata": {"namespace": "ns", "name": "c", "uid": "u"},
                "status": {"devices": [{
                    "driver": "gpu.nvidia.com", "pool": "node-1", "device": "gpu-12345678-mig-19-0",
                    "conditions": [{
                        "type": "Ready", "status": "True", "reason": "Prepared",
                        "message": "device is ready for containers", "lastTransitionTime": "2026-11-22T03:00:00Z",
                    }],
                    "data": {
                        "type": "mig", "uuid": "MIG-00000000-0000-0000-0000-000000000002",
                        "parentUUID": "GPU-12345678-0000-0000-0000-000000000001",
                        "giID": 7, "ciID": 0, "profile": "1g.10gb", "strategy": "None",
                    },
                }]},
            })
        );
    }
}
