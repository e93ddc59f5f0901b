// SPDX-License-Identifier: Apache-2.0
//! What the GPUs of a cluster are used for, from the published devices and the allocations of claims.

mod gpu;
mod partitions;
mod table;

use std::collections::BTreeMap;

use dra_allocation::counters::FreeCounters;
use dra_allocation::pool::PoolFault;
use dra_allocation::usage::{Kind, PoolUsage};
use dra_allocation::{Device, Pool, Pools, Usage};
use serde::Serialize;

pub use gpu::{Form, Gpu, Shares, form_of, name as gpu_name};
pub use table::{View, table};

use crate::bar::Bar;
use dra_explain::reading::WaitingPod;

/// The answer of `kubectl gpu status`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Version of the API server.
    pub server_version: String,
    pub nodes: Vec<Node>,
    /// The claims that are listed, in the order of namespace and name.
    pub claims: Vec<Claim>,
    /// Pods with claims that have no node, as `namespace/name`.
    pub waiting_pods: Vec<String>,
    /// Rights that would show more, with what is not shown without them.
    pub incomplete: Vec<String>,
}

/// A node with GPUs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    pub name: String,
    /// Versions of the NVIDIA driver and of CUDA, without the parts that semver needs.
    pub driver_version: Option<String>,
    pub cuda_version: Option<String>,
    /// Why the scheduler does not use the devices of the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    pub gpus: Vec<Gpu>,
}

/// A claim that holds devices.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    pub namespace: String,
    pub name: String,
    pub pods: Vec<String>,
    pub node: String,
    pub device: String,
    pub form: &'static str,
    /// RFC 3339; absent if the scheduler wrote no time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// Which claims are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    All,
    Namespace(String),
    /// Those on the nodes that are shown.
    OnNodes,
}

/// What was read of the cluster.
#[derive(Debug)]
pub struct Seen<'a> {
    pub pools: &'a Pools,
    pub usage: &'a Usage,
    pub waiting: &'a [WaitingPod],
    pub driver: &'a str,
    pub server_version: String,
    pub incomplete: Vec<String>,
}

/// The nodes of one driver in the order of their names.
pub fn status(seen: Seen<'_>, listed: &Listed) -> Status {
    let pools = || seen.pools.iter().filter(|pool| *pool.driver == *seen.driver);
    let nodes = pools().map(|pool| node(pool, seen.usage));
    let mut claims: Vec<Claim> = pools().flat_map(|pool| claims(pool, seen.usage)).collect();
    claims.retain(|claim| match listed {
        Listed::All | Listed::OnNodes => true,
        Listed::Namespace(namespace) => claim.namespace == *namespace,
    });
    claims.sort();
    let waiting = seen.waiting.iter().map(|pod| format!("{}/{}", pod.namespace, pod.name));
    Status {
        nodes: nodes.collect(),
        claims,
        waiting_pods: waiting.collect(),
        server_version: seen.server_version,
        incomplete: seen.incomplete,
    }
}

fn node(pool: &Pool, usage: &Usage) -> Node {
    let driver = &pool.driver;
    let version = |name| pool.devices().find_map(|device| device.text(name, driver)).map(str::to_owned);
    let empty = PoolUsage::new();
    let usage = usage.of_pool(pool).unwrap_or(&empty);
    let mut gpus: BTreeMap<String, Vec<&Device>> = BTreeMap::new();
    for device in pool.devices() {
        gpus.entry(gpu::name(device, driver)).or_default().push(device);
    }
    let in_pool = gpu::InPool { pool, usage, free: FreeCounters::of(pool, Some(usage)) };
    let gpus = gpus.into_iter().map(|(name, devices)| in_pool.gpu(name, &devices));
    Node {
        name: pool.name.to_string(),
        driver_version: version("driverVersion"),
        cuda_version: version("cudaDriverVersion"),
        fault: pool.fault.as_ref().map(pool_fault),
        gpus: gpus.collect(),
    }
}

/// Why the scheduler does not use the devices of a pool.
pub fn pool_fault(fault: &PoolFault) -> String {
    match fault {
        PoolFault::Incomplete { found, expected } => {
            format!("{found} of {expected} ResourceSlices are there: the driver is starting or replacing them")
        }
        PoolFault::Duplicate(device) => format!("two devices have the name {device}"),
    }
}

fn claims(pool: &Pool, usage: &Usage) -> Vec<Claim> {
    let of_pool = usage.of_pool(pool).into_iter().flatten();
    let by_name: BTreeMap<&str, &Device> = pool.devices().map(|device| (device.name.as_ref(), device)).collect();
    let claim = |(device, allocation)| {
        let (device, allocation): (&str, &dra_allocation::usage::Allocation) = (device, allocation);
        let holder = usage.holder(allocation)?;
        let form = match (&allocation.kind, by_name.get(device)) {
            (Kind::Admin, _) => "adminAccess",
            (Kind::Exclusive | Kind::Share(_), Some(found)) => gpu::form_of(found, &pool.driver).name(),
            (Kind::Exclusive | Kind::Share(_), None) => "",
        };
        Some(Claim {
            namespace: holder.namespace.to_string(),
            name: holder.name.to_string(),
            pods: holder.consumers.iter().map(ToString::to_string).collect(),
            node: pool.name.to_string(),
            device: device.to_owned(),
            form,
            since: holder.since.as_deref().map(str::to_owned),
        })
    };
    let allocations = of_pool.flat_map(|(device, found)| found.iter().map(move |found| (device.as_ref(), found)));
    allocations.filter_map(claim).collect()
}

impl Node {
    /// One bar for all GPUs of the node.
    pub fn bar(&self) -> Bar {
        Bar::of_parts(self.gpus.iter().map(Gpu::part).collect())
    }
}
