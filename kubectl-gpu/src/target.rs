// SPDX-License-Identifier: Apache-2.0
//! The GPUs that a name on the command line means. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use dra_allocation::device::Taint;
use dra_allocation::{Device, Pool, Pools};
use dra_model::Advice;

use crate::status::gpu_name;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// The GPU of a device of any form, or with a UUID.
    Gpu { name: &'a str, node: Option<&'a str> },
    /// All GPUs of a node.
    Node(&'a str),
}

/// A GPU of a node, with the devices that are its forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub node: String,
    pub gpu: String,
    pub uuid: Option<String>,
    pub product: Option<String>,
    pub devices: Vec<String>,
    /// The taints of its devices in the slices, each once.
    pub taints: BTreeSet<Taint>,
}

/// The name means no GPU, or more than one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error("no device of the driver {driver} has the name or the UUID {name}{}", on(node.as_deref()))]
    Unknown { name: String, node: Option<String>, driver: String },
    #[error("{name} is on the nodes {}", nodes.join(", "))]
    Ambiguous { name: String, nodes: Vec<String> },
    #[error("node {node} has no GPU of the driver {driver}")]
    NoGpus { node: String, driver: String },
}

fn on(node: Option<&str>) -> String {
    node.map(|node| format!(" on node {node}")).unwrap_or_default()
}

impl Advice for TargetError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Unknown { .. } => {
                Some("`kubectl gpu status -o wide` lists the GPUs with their names and UUIDs".into())
            }
            Self::Ambiguous { .. } => Some("choose one of the nodes with --node, or use the UUID of the GPU".into()),
            Self::NoGpus { .. } => Some("`kubectl gpu status` lists the nodes with GPUs".into()),
        }
    }
}

/// The GPUs that are meant, in the order of their names.
pub fn find(pools: &Pools, driver: &str, wanted: Wanted<'_>) -> Result<Vec<Target>, TargetError> {
    let (name, node) = match wanted {
        Wanted::Gpu { name, node } => (Some(name), node),
        Wanted::Node(node) => (None, Some(node)),
    };
    let of_driver = pools.iter().filter(|pool| *pool.driver == *driver);
    let on_node = of_driver.filter(|pool| node.is_none_or(|node| *pool.name == *node));
    let mut found: Vec<Target> = on_node.flat_map(|pool| gpus(pool, name)).collect();
    match (name, node) {
        (None, Some(node)) if found.is_empty() => {
            Err(TargetError::NoGpus { node: node.to_owned(), driver: driver.to_owned() })
        }
        (None, _) => Ok(found),
        (Some(name), node) => match found.len() {
            0 => Err(TargetError::Unknown {
                name: name.to_owned(),
                node: node.map(str::to_owned),
                driver: driver.to_owned(),
            }),
            1 => Ok(found),
            _ => {
                let nodes = found.drain(..).map(|target| target.node).collect();
                Err(TargetError::Ambiguous { name: name.to_owned(), nodes })
            }
        },
    }
}

/// The GPUs of a pool, all or the one that a name means.
fn gpus(pool: &Pool, name: Option<&str>) -> Vec<Target> {
    let mut gpus: BTreeMap<String, Vec<&Device>> = BTreeMap::new();
    for device in pool.devices() {
        gpus.entry(gpu_name(device, &pool.driver)).or_default().push(device);
    }
    let is_meant = |gpu: &str, devices: &[&Device]| {
        name.is_none_or(|name| gpu == name || devices.iter().any(|device| is_named(device, pool, name)))
    };
    let meant = gpus.into_iter().filter(|(gpu, devices)| is_meant(gpu, devices));
    meant.map(|(gpu, devices)| target(pool, gpu, &devices)).collect()
}

fn is_named(device: &Device, pool: &Pool, name: &str) -> bool {
    *device.name == *name
        || ["gpuUUID", "uuid"].iter().any(|attribute| device.text(attribute, &pool.driver) == Some(name))
}

fn target(pool: &Pool, gpu: String, devices: &[&Device]) -> Target {
    let text = |name| devices.iter().find_map(|device| device.text(name, &pool.driver)).map(str::to_owned);
    Target {
        node: pool.name.to_string(),
        gpu,
        uuid: text("gpuUUID").or_else(|| text("parentUUID")).or_else(|| text("uuid")),
        product: text("productName"),
        devices: devices.iter().map(|device| device.name.to_string()).collect(),
        taints: devices.iter().flat_map(|device| &device.taints).cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use dra_allocation::SliceReader;
    use serde_json::{Value, json};

    use super::*;

    fn pools() -> Pools {
        let device = |name: &str, uuid: &str| json!({"name": name, "attributes": {"gpuUUID": {"string": "GPU-1"}, "uuid": {"string": uuid}}});
        let slice = |node: &str, devices: Value| {
            let pool = json!({"name": node, "generation": 1, "resourceSliceCount": 1});
            json!({"metadata": {"name": node}, "spec": {"driver": "a", "pool": pool, "nodeName": node, "devices": devices}})
        };
        let first = json!([device("gpu-1", "GPU-1"), device("gpu-1-mig-19-0", "MIG-5")]);
        let second = json!([{"name": "gpu-1"}, {"name": "gpu-2"}]);
        let mut reader = SliceReader::default();
        let list = json!({"items": [slice("n1", first), slice("n2", second)]});
        reader.add_page(list.to_string().as_bytes()).unwrap();
        reader.pools()
    }

    fn found(wanted: Wanted<'_>) -> Result<Vec<String>, TargetError> {
        let found = find(&pools(), "a", wanted)?;
        Ok(found.into_iter().map(|target| format!("{}/{} {}", target.node, target.gpu, target.devices.len())).collect())
    }

    #[test]
    fn every_name_of_a_gpu_means_all_of_its_devices() {
        for name in ["gpu-1-mig-19-0", "GPU-1", "MIG-5"] {
            assert_eq!(found(Wanted::Gpu { name, node: None }).unwrap(), ["n1/gpu-1 2"], "{name}");
        }
        assert_eq!(found(Wanted::Gpu { name: "gpu-1", node: Some("n2") }).unwrap(), ["n2/gpu-1 1"]);
        assert_eq!(found(Wanted::Node("n2")).unwrap(), ["n2/gpu-1 1", "n2/gpu-2 1"]);
    }

    #[test]
    fn a_name_that_means_no_gpu_or_several_is_refused_with_the_choices() {
        let refused = |wanted| found(wanted).unwrap_err().to_string();
        assert_eq!(refused(Wanted::Gpu { name: "gpu-1", node: None }), "gpu-1 is on the nodes n1, n2");
        let expect = "no device of the driver a has the name or the UUID gpu-2 on node n1";
        assert_eq!(refused(Wanted::Gpu { name: "gpu-2", node: Some("n1") }), expect);
        assert_eq!(refused(Wanted::Node("n3")), "node n3 has no GPU of the driver a");
    }
}
