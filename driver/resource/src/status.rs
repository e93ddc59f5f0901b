// SPDX-License-Identifier: Apache-2.0
//! The entries of `status.devices` of a claim: the identity of each prepared device, its sharing settings and the state of its MPS
//! daemon.
//!
//! The module only creates the API object; the kubelet plugin writes it.

mod json_patch;
mod sharing;

use dra_model::{ClaimRef, DeviceName, Finding, LiveIdentity, ShareId, Verdict};
use k8s_openapi::api::resource::v1::AllocatedDeviceStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

pub use self::json_patch::json_patch;
pub use self::sharing::{DaemonHealth, DaemonStatus, Limits, SharingStatus, Strategy};
use crate::names::DriverName;

/// One prepared device of a claim.
#[derive(Debug, Clone)]
pub struct DeviceStatus<'a> {
    pub pool: &'a str,
    pub device: &'a DeviceName,
    /// Absent for a device that is not shared.
    pub share_id: Option<&'a ShareId>,
    pub identity: &'a LiveIdentity,
    pub sharing: &'a SharingStatus,
    /// The worst that is known of its health.
    pub finding: Option<&'a Finding>,
    /// Time of the preparation.
    pub since: Time,
}

impl DeviceStatus<'_> {
    /// The entry of `status.devices`, whose key is driver, pool, device and share.
    pub fn entry(&self, driver: &DriverName) -> AllocatedDeviceStatus {
        let mps_ready = self.sharing.daemon.as_ref().map(DaemonStatus::condition);
        AllocatedDeviceStatus {
            driver: driver.to_string(),
            pool: self.pool.to_owned(),
            device: self.device.to_string(),
            share_id: self.share_id.map(ToString::to_string),
            conditions: Some([self.condition(), self.healthy()].into_iter().chain(mps_ready).collect()),
            data: Some(RawExtension(Value::Object(self.data()))),
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

    fn healthy(&self) -> Condition {
        let (status, reason, message, since) = match self.finding {
            None => ("True", "Healthy", "no fault of the GPU is known".to_owned(), self.since.clone()),
            Some(Finding { cause, verdict, message, since, .. }) => {
                let status = match verdict {
                    Verdict::Healthy => "True",
                    Verdict::Unknown => "Unknown",
                    Verdict::Unhealthy => "False",
                };
                let since = i64::try_from(*since).ok().and_then(|since| Timestamp::from_second(since).ok());
                (status, cause.reason(), message.clone(), since.map_or_else(|| self.since.clone(), Time))
            }
        };
        Condition {
            type_: "Healthy".to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            last_transition_time: since,
            observed_generation: None,
        }
    }

    fn data(&self) -> Map<String, Value> {
        let share = self.share_id.map(|share| ("shareID", json!(share)));
        identity(self.identity)
            .into_iter()
            .chain(share)
            .chain(self.sharing.data())
            .map(|(key, value)| (key.to_owned(), value))
            .collect()
    }
}

/// The body of a server-side apply of `status`, which changes only the entries of this driver.
pub fn apply_patch(claim: &ClaimRef, driver: &DriverName, devices: &[DeviceStatus<'_>]) -> Value {
    let entries: Vec<AllocatedDeviceStatus> = devices.iter().map(|device| device.entry(driver)).collect();
    json!({
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"namespace": claim.namespace, "name": claim.name, "uid": claim.uid.as_str()},
        "status": {"devices": entries},
    })
}

fn identity(identity: &LiveIdentity) -> Vec<(&'static str, Value)> {
    match identity {
        LiveIdentity::Gpu { uuid } => vec![("type", json!("gpu")), ("uuid", json!(uuid))],
        LiveIdentity::Shared { uuid, .. } => vec![("type", json!("shared-gpu")), ("uuid", json!(uuid))],
        LiveIdentity::Mig { identity, ids, profile } => vec![
            ("type", json!("mig")),
            ("uuid", json!(ids.uuid)),
            ("parentUUID", json!(identity.parent)),
            ("giID", json!(ids.gpu_instance)),
            ("ciID", json!(ids.compute_instance)),
            ("profile", json!(profile)),
            ("placement", json!({"start": identity.placement.start, "size": identity.placement.size})),
        ],
    }
}

#[cfg(test)]
mod tests {
    use dra_model::{Bytes, ComputeMode, ComputeShare, Interval, MigIdentity, MigIds, Placement, SharedForm};

    use super::*;

    fn time() -> Time {
        Time("2026-11-22T03:00:00Z".parse().unwrap())
    }

    fn status_of(name: &str, share: Option<&str>, identity: &LiveIdentity, sharing: &SharingStatus) -> (Value, Value) {
        let (device, share_id) = (name.parse().unwrap(), share.map(|share| share.parse().unwrap()));
        let share_id = share_id.as_ref();
        let status =
            DeviceStatus { pool: "node-1", device: &device, share_id, identity, sharing, finding: None, since: time() };
        let claim = ClaimRef { namespace: "ns".to_owned(), name: "c".to_owned(), uid: "u".parse().unwrap() };
        let mut patch = apply_patch(&claim, &"gpu.nvidia.com".parse().unwrap(), &[status]);
        let mut entry = patch["status"]["devices"][0].take();
        let (conditions, data) = (entry["conditions"].take(), entry["data"].take());
        for (field, expect) in [("driver", json!("gpu.nvidia.com")), ("pool", json!("node-1")), ("device", json!(name))]
        {
            assert_eq!(entry[field], expect);
        }
        assert_eq!(entry.get("shareID"), share.map(|share| json!(share)).as_ref());
        assert_eq!(patch["metadata"], json!({"namespace": "ns", "name": "c", "uid": "u"}));
        (conditions, data)
    }

    fn healthy() -> Value {
        json!({
            "type": "Healthy", "status": "True", "reason": "Healthy",
            "message": "no fault of the GPU is known", "lastTransitionTime": "2026-11-22T03:00:00Z",
        })
    }

    fn ready() -> Value {
        json!({
            "type": "Ready", "status": "True", "reason": "Prepared",
            "message": "device is ready for containers", "lastTransitionTime": "2026-11-22T03:00:00Z",
        })
    }

    #[test]
    fn a_prepared_mig_device_shows_its_identity() {
        let identity = LiveIdentity::Mig {
            identity: MigIdentity {
                parent: "GPU-12345678-0000-0000-0000-000000000001".parse().unwrap(),
                profile_id: 19,
                placement: Placement { start: 4, size: 1 },
                share: ComputeShare { start: 0, slices: 1, of: 1 },
            },
            ids: MigIds {
                uuid: "MIG-00000000-0000-0000-0000-000000000002".parse().unwrap(),
                gpu_instance: 7,
                compute_instance: 0,
            },
            profile: "1g.10gb".to_owned(),
        };
        let data = json!({
            "type": "mig", "uuid": "MIG-00000000-0000-0000-0000-000000000002",
            "parentUUID": "GPU-12345678-0000-0000-0000-000000000001",
            "giID": 7, "ciID": 0, "profile": "1g.10gb", "placement": {"start": 4, "size": 1}, "strategy": "None",
        });
        let found = status_of("gpu-12345678-mig-19-0", None, &identity, &SharingStatus::default());
        assert_eq!(found, (json!([ready(), healthy()]), data));
    }

    /// Health and restarts of a daemon, and the expected condition.
    fn daemon_states() -> [(DaemonHealth, u32, &'static str, &'static str, &'static str); 5] {
        [
            (
                DaemonHealth::Ready,
                0,
                "True",
                "MPSDaemonReady",
                "MPS daemon gpu-12345678000000000000000000000001 accepts clients",
            ),
            (
                DaemonHealth::Ready,
                12,
                "True",
                "MPSDaemonReady",
                "MPS daemon gpu-12345678000000000000000000000001 accepts clients; restarted 12 times, a client that runs as root can stop the daemon",
            ),
            (
                DaemonHealth::UserWaiting { waiting: 1001, active: 1000 },
                1,
                "False",
                "MPSUserWaiting",
                "Processes of UID 1001 wait until all MPS clients of UID 1000 exit; run all pods sharing this GPU under one UID",
            ),
            (
                DaemonHealth::Exited { why: "killed by signal 9".to_owned() },
                1,
                "False",
                "MPSDaemonExited",
                "MPS daemon gpu-12345678000000000000000000000001 exited unexpectedly (killed by signal 9); end the processes that use it (restart their pods), then it is restarted; restarted once",
            ),
            (
                DaemonHealth::GpuFailed { why: "GPU-1 fell off the bus (XID 79)".to_owned() },
                1,
                "False",
                "MPSDaemonEnded",
                "MPS daemon gpu-12345678000000000000000000000001 was ended because GPU-1 fell off the bus (XID 79); it starts again when the GPU is well and the processes that used it have ended",
            ),
        ]
    }

    #[test]
    fn a_share_shows_its_limits_and_the_state_of_its_daemon() {
        let uuid = "GPU-12345678-0000-0000-0000-000000000001".parse().unwrap();
        let identity = LiveIdentity::Shared { uuid, form: SharedForm::Mps };
        let daemon = |health, restarts| DaemonStatus {
            id: "gpu-12345678000000000000000000000001".parse().unwrap(),
            health,
            multi_user: Some(false),
            restarts,
            since: time(),
        };
        for (health, restarts, status, reason, message) in daemon_states() {
            let sharing = SharingStatus {
                strategy: Strategy::Mps,
                interval: None,
                limits: Limits {
                    memory: Some(Bytes::from_mib(10240)),
                    threads: Some(30.try_into().unwrap()),
                    per_device: [("GPU-12345678-0000-0000-0000-000000000001".to_owned(), Bytes::from_mib(81559))]
                        .into(),
                },
                compute_mode: Some(ComputeMode::ExclusiveProcess),
                daemon: Some(daemon(health, restarts)),
            };
            let (conditions, data) = status_of("gpu-12345678-mps", Some("s-1"), &identity, &sharing);
            let mps_ready = json!({
                "type": "MPSReady", "status": status, "reason": reason, "message": message,
                "lastTransitionTime": "2026-11-22T03:00:00Z",
            });
            assert_eq!(conditions, json!([ready(), healthy(), mps_ready]));
            assert_eq!(
                data,
                json!({
                    "type": "shared-gpu", "uuid": "GPU-12345678-0000-0000-0000-000000000001", "shareID": "s-1",
                    "strategy": "MPS", "computeMode": "Exclusive_Process",
                    "limits": {
                        "memory": "10Gi", "activeThreadPercentage": 30,
                        "perDevice": {"GPU-12345678-0000-0000-0000-000000000001": "81559Mi"},
                    },
                    "daemon": {"id": "gpu-12345678000000000000000000000001", "state": reason, "multiUser": false},
                })
            );
        }
    }

    #[test]
    fn the_state_of_a_daemon_is_unknown_without_its_host() {
        let id = "gpu-12345678000000000000000000000001";
        let uuid = "GPU-12345678-0000-0000-0000-000000000001".parse().unwrap();
        let (health, multi_user) = (DaemonHealth::HostUnreachable, None);
        let daemon = DaemonStatus { id: id.parse().unwrap(), health, multi_user, restarts: 0, since: time() };
        let sharing = SharingStatus { strategy: Strategy::Mps, daemon: Some(daemon), ..SharingStatus::default() };
        let (conditions, data) = status_of("gpu-12345678", None, &LiveIdentity::Gpu { uuid }, &sharing);
        let mps_ready = json!({
            "type": "MPSReady", "status": "Unknown", "reason": "MPSHostUnreachable",
            "message": format!("State of MPS daemon {id} unknown: the MPS host does not respond; check the mps-host pod of this node"),
            "lastTransitionTime": "2026-11-22T03:00:00Z",
        });
        assert_eq!(conditions, json!([ready(), healthy(), mps_ready]));
        assert_eq!(data["daemon"], json!({"id": id, "state": "MPSHostUnreachable"}));
    }

    #[test]
    fn a_time_slice_shows_its_interval() {
        let uuid = "GPU-12345678-0000-0000-0000-000000000001".parse().unwrap();
        let identity = LiveIdentity::Gpu { uuid };
        let sharing = SharingStatus {
            strategy: Strategy::TimeSlicing,
            interval: Some(Interval::Medium),
            compute_mode: Some(ComputeMode::Default),
            ..SharingStatus::default()
        };
        let (conditions, data) = status_of("gpu-12345678", None, &identity, &sharing);
        assert_eq!(conditions, json!([ready(), healthy()]));
        assert_eq!(
            data,
            json!({
                "type": "gpu", "uuid": "GPU-12345678-0000-0000-0000-000000000001",
                "strategy": "TimeSlicing", "interval": "Medium", "computeMode": "Default",
            })
        );
    }
    #[test]
    fn a_fault_of_the_gpu_is_a_condition_from_when_it_began() {
        let (device, uuid) =
            ("gpu-12345678".parse().unwrap(), "GPU-12345678-0000-0000-0000-000000000001".parse().unwrap());
        let (identity, sharing) = (LiveIdentity::Gpu { uuid }, SharingStatus::default());
        for (verdict, status) in
            [(Verdict::Unhealthy, "False"), (Verdict::Unknown, "Unknown"), (Verdict::Healthy, "True")]
        {
            let finding = Finding {
                cause: dra_model::Cause::GpuLost,
                value: "lost".to_owned(),
                effect: dra_model::Effect::NoExecute,
                verdict,
                scope: None,
                message: "the GPU fell off the bus (XID 79)".to_owned(),
                since: 1_795_000_000,
            };
            let entry = DeviceStatus {
                pool: "node-1",
                device: &device,
                share_id: None,
                identity: &identity,
                sharing: &sharing,
                finding: Some(&finding),
                since: time(),
            };
            let conditions = entry.entry(&"gpu.nvidia.com".parse().unwrap()).conditions.unwrap();
            let expect = json!({
                "type": "Healthy", "status": status, "reason": "GpuLost", "message": finding.message,
                "lastTransitionTime": "2026-11-18T11:06:40Z",
            });
            assert_eq!(json!(conditions[1]), expect);
        }
    }
}
