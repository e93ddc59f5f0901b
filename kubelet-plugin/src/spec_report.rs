// SPDX-License-Identifier: Apache-2.0
//! The devices of a CDI spec as it is on disk, of this driver or not. Pure.

use dra_model::claim_report::{NodeReport, SpecDeviceReport};
use serde::Deserialize;

#[derive(Deserialize)]
struct Spec {
    kind: String,
    #[serde(default)]
    devices: Vec<Device>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    name: String,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Edits {
    device_nodes: Vec<Node>,
    env: Vec<String>,
    mounts: Vec<Mount>,
}

/// A spec of another program may leave the numbers to the runtime.
#[derive(Deserialize)]
struct Node {
    path: String,
    #[serde(default)]
    major: u32,
    #[serde(default)]
    minor: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    host_path: String,
}

/// The devices with their qualified names.
pub fn spec_devices(bytes: &[u8]) -> Result<Vec<SpecDeviceReport>, serde_json::Error> {
    let Spec { kind, devices } = serde_json::from_slice(bytes)?;
    let report = |Device { name, container_edits: Edits { device_nodes, env, mounts } }| SpecDeviceReport {
        name: format!("{kind}={name}"),
        nodes: device_nodes.into_iter().map(|Node { path, major, minor }| NodeReport { path, major, minor }).collect(),
        env,
        mounts: mounts.into_iter().map(|mount| mount.host_path).collect(),
    };
    Ok(devices.into_iter().map(report).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_the_name_of_its_kind() {
        let text = r#"{"cdiVersion": "0.5.0", "kind": "v/claim", "devices": [{"name": "u-gpu-1", "containerEdits": {
            "env": ["A=b"], "deviceNodes": [{"path": "/dev/nvidia0", "type": "c", "major": 195, "minor": 0}, {"path": "/dev/x"}],
            "mounts": [{"hostPath": "/run/mps", "containerPath": "/mps"}]}}, {"name": "none"}]}"#;
        let devices = spec_devices(text.as_bytes()).unwrap();
        let names: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
        assert_eq!(names, ["v/claim=u-gpu-1", "v/claim=none"]);
        let nodes: Vec<String> = devices[0].nodes.iter().map(ToString::to_string).collect();
        assert_eq!(nodes, ["/dev/nvidia0 (195:0)", "/dev/x (0:0)"]);
        assert_eq!((devices[0].env.join(""), devices[0].mounts.join("")), ("A=b".to_owned(), "/run/mps".to_owned()));
        assert!(spec_devices(b"{").is_err() && spec_devices(b"{}").is_err());
    }
}
