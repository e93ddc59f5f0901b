// SPDX-License-Identifier: Apache-2.0
//! The part of a CDI spec that this driver writes.
//!
//! Source: container-device-interface v1.1.0, `specs-go/config.go`. Loaders are strict: they reject a file with an unknown key.

use serde::Serialize;

/// A spec file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// The lowest version that allows the content, for old runtimes.
    pub cdi_version: &'static str,
    /// `vendor/class`.
    pub kind: String,
    /// At least one.
    pub devices: Vec<CdiDevice>,
    /// Applied once, whichever devices are requested.
    #[serde(skip_serializing_if = "ContainerEdits::is_empty")]
    pub container_edits: ContainerEdits,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CdiDevice {
    /// Unique within the directory, for devices of one kind.
    pub name: String,
    /// Never empty, because loaders reject that.
    pub container_edits: ContainerEdits,
}

/// Changes to a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerEdits {
    /// `NAME=value`; replaces a variable of the image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_nodes: Vec<CdiDeviceNode>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<CdiMount>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<CdiHook>,
}

impl ContainerEdits {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A device node with all attributes, so that no runtime reads those of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CdiDeviceNode {
    pub path: String,
    /// If it differs from `path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_path: Option<String>,
    #[serde(rename = "type")]
    pub node_type: &'static str,
    pub major: u32,
    pub minor: u32,
    /// Permission bits; a decimal number in JSON.
    pub file_mode: u32,
    /// For the device cgroup.
    pub permissions: &'static str,
}

/// A bind mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CdiMount {
    pub host_path: String,
    pub container_path: String,
    pub options: &'static [&'static str],
}

/// A program that the runtime starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CdiHook {
    /// A point of the life of a container, such as `createContainer`.
    pub hook_name: &'static str,
    pub path: String,
    /// The first is the name of the program.
    pub args: Vec<String>,
    /// Never empty, because runc and crun give a hook without variables those of the image.
    pub env: Vec<String>,
    /// Seconds, after which the runtime ends the program and the start of the container.
    pub timeout: u32,
}

/// The lowest version that allows this content (container-device-interface v1.1.0, `pkg/cdi/version.go`).
///
/// `hostPath` of a device node and device names that begin with a digit came with 0.5.0; everything else that this driver
/// writes needs at most 0.3.0.
pub fn minimum_version(devices: &[CdiDevice], edits: &ContainerEdits) -> &'static str {
    let digit_first = devices.iter().any(|device| device.name.starts_with(|first: char| first.is_ascii_digit()));
    let all_edits = devices.iter().map(|device| &device.container_edits).chain([edits]);
    let host_path = all_edits.flat_map(|edits| &edits.device_nodes).any(|node| node.host_path.is_some());
    if digit_first || host_path { "0.5.0" } else { "0.3.0" }
}
