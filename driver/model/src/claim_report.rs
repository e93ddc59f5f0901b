// SPDX-License-Identifier: Apache-2.0
//! What a node has for one claim: its record, its CDI specs and the hardware. The plugin prints it as JSON, and programs of users
//! compare it with the claim.
//!
//! Fields are only ever added, since the reader may be of another version.

use serde::{Deserialize, Serialize};

/// One claim on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimReport {
    pub claim_uid: String,
    pub record: RecordReport,
    /// The spec of the driver version, then that of the claim. Only the first without a record.
    pub specs: Vec<SpecReport>,
}

/// The record of the claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum RecordReport {
    Absent {
        path: String,
    },
    Unreadable {
        path: String,
        why: String,
    },
    /// The claim is being prepared, or its preparation was interrupted.
    Preparing {
        devices: Vec<DeviceReport>,
    },
    Ready {
        /// Whether it was prepared since the last boot of the node.
        is_of_this_boot: bool,
        devices: Vec<DeviceReport>,
    },
    /// An unprepare is incomplete.
    Undoing {
        last_error: String,
        devices: Vec<DeviceReport>,
    },
}

impl RecordReport {
    /// The recorded devices.
    pub fn devices(&self) -> &[DeviceReport] {
        match self {
            Self::Absent { .. } | Self::Unreadable { .. } => &[],
            Self::Preparing { devices } | Self::Ready { devices, .. } | Self::Undoing { devices, .. } => devices,
        }
    }
}

/// One device of the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceReport {
    /// `request` or `request/subrequest`.
    pub request: String,
    pub pool: String,
    pub device: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_id: Option<String>,
    /// Of the GPU, or of the MIG device once it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// The MPS daemon that its clients use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mps_daemon: Option<String>,
    /// The CDI devices that the kubelet was given.
    pub cdi_devices: Vec<String>,
    pub hardware: HardwareReport,
}

/// What NVML has of a device, and the device nodes that belong to it now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "camelCase")]
pub enum HardwareReport {
    Found { uuid: String, nodes: Vec<NodeReport> },
    Missing { why: String },
}

/// A character device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeReport {
    pub path: String,
    pub major: u32,
    pub minor: u32,
}

impl std::fmt::Display for NodeReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}:{})", self.path, self.major, self.minor)
    }
}

/// A CDI spec on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpecReport {
    pub path: String,
    #[serde(flatten)]
    pub content: SpecContent,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "camelCase")]
pub enum SpecContent {
    Absent,
    Unreadable { why: String },
    Found { devices: Vec<SpecDeviceReport> },
}

/// A device of a CDI spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpecDeviceReport {
    /// `vendor/class=name`.
    pub name: String,
    #[serde(default)]
    pub nodes: Vec<NodeReport>,
    /// `NAME=value`.
    #[serde(default)]
    pub env: Vec<String>,
    /// Paths on the host.
    #[serde(default)]
    pub mounts: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_it_was_written_and_by_an_older_reader() {
        let node = NodeReport { path: "/dev/nvidia0".to_owned(), major: 195, minor: 0 };
        let device = DeviceReport {
            request: "gpu".to_owned(),
            pool: "n".to_owned(),
            device: "gpu-1".to_owned(),
            share_id: None,
            uuid: Some("GPU-1".to_owned()),
            mps_daemon: None,
            cdi_devices: vec!["a/claim=u".to_owned()],
            hardware: HardwareReport::Found { uuid: "GPU-1".to_owned(), nodes: vec![node.clone()] },
        };
        let found = SpecDeviceReport { name: "a/claim=u".to_owned(), nodes: vec![node], env: vec![], mounts: vec![] };
        let spec = SpecReport { path: "/cdi/a.json".to_owned(), content: SpecContent::Found { devices: vec![found] } };
        let record = RecordReport::Ready { is_of_this_boot: true, devices: vec![device] };
        let report = ClaimReport { claim_uid: "u".to_owned(), record, specs: vec![spec] };
        let mut json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["record"]["state"], "ready");
        assert_eq!((&json["specs"][0]["state"], &json["record"]["isOfThisBoot"]), (&"found".into(), &true.into()));
        json["record"]["devices"][0]["new"] = true.into();
        assert_eq!(serde_json::from_value::<ClaimReport>(json).unwrap(), report);
    }
}
