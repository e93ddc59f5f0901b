// SPDX-License-Identifier: Apache-2.0
//! The check of `helm test`: every node with a ready driver pod has a complete pool of slices.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dra_model::{Advice, explain};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::ResourceSlice;
use tracing::{info, warn};

use crate::cluster::{Cluster, RequestError};
use crate::repeated_failures::RepeatedFailures;

const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The driver's pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverPods {
    pub namespace: String,
    /// Label selector.
    pub selector: String,
    /// Limits the wait for the pods and their slices.
    pub timeout: Duration,
}

/// A node is not published.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error("no ready pod of the driver in namespace {namespace} with labels {selector}")]
    NoPods { namespace: String, selector: String },
    #[error("no complete pool of ResourceSlices for {}", nodes.join(", "))]
    Incomplete { nodes: Vec<String> },
    #[error("failed to list pods and ResourceSlices")]
    Request(#[source] RequestError),
}

impl Advice for CheckError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::NoPods { .. } => Some("check the DaemonSet in this namespace".into()),
            Self::Incomplete { .. } => Some("check the log of the controller container on these nodes".into()),
            Self::Request(_) => None,
        }
    }
}

/// Repeats the check until every node is published or the timeout expires.
pub async fn check(cluster: &Cluster, pods: &DriverPods) -> Result<(), CheckError> {
    let end = tokio::time::Instant::now() + pods.timeout;
    let mut failures = RepeatedFailures::default();
    loop {
        let found = check_once(cluster, pods).await;
        let over = tokio::time::Instant::now() >= end;
        match found {
            Ok(()) => return Ok(()),
            Err(error) if over => return Err(error),
            Err(error) => {
                let error = explain(&error);
                if failures.should_log(&error) {
                    warn!(error, "not complete; retrying");
                }
            }
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

async fn check_once(cluster: &Cluster, wanted: &DriverPods) -> Result<(), CheckError> {
    let pods = cluster.pods(&wanted.namespace, &wanted.selector).await.map_err(CheckError::Request)?;
    let nodes: BTreeSet<&str> = pods.iter().filter(|pod| is_ready(pod)).filter_map(node_of).collect();
    if nodes.is_empty() {
        let DriverPods { namespace, selector, .. } = wanted.clone();
        return Err(CheckError::NoPods { namespace, selector });
    }
    let slices = cluster.slices().await.map_err(CheckError::Request)?;
    let pools = complete_pools(&slices);
    let missing: Vec<String> =
        nodes.iter().filter(|node| !pools.contains_key(*node)).map(ToString::to_string).collect();
    if !missing.is_empty() {
        return Err(CheckError::Incomplete { nodes: missing });
    }
    for node in nodes {
        info!(node, devices = pools.get(node).copied().unwrap_or_default(), "published");
    }
    Ok(())
}

pub(crate) fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Pools whose newest generation is there in full (KEP-4381: consumers ignore the others), with their devices.
fn complete_pools(slices: &[ResourceSlice]) -> BTreeMap<&str, usize> {
    let mut pools: BTreeMap<&str, Vec<&ResourceSlice>> = BTreeMap::new();
    for slice in slices {
        pools.entry(&slice.spec.pool.name).or_default().push(slice);
    }
    pools.into_iter().filter_map(|(pool, slices)| Some((pool, devices_of_complete(&slices)?))).collect()
}

fn devices_of_complete(slices: &[&ResourceSlice]) -> Option<usize> {
    let newest = slices.iter().map(|slice| slice.spec.pool.generation).max()?;
    let current: Vec<_> = slices.iter().filter(|slice| slice.spec.pool.generation == newest).collect();
    let count = i64::try_from(current.len()).ok()?;
    let complete = current.iter().all(|slice| slice.spec.pool.resource_slice_count == count);
    complete.then(|| current.iter().map(|slice| slice.spec.devices.as_ref().map_or(0, Vec::len)).sum())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(pool: &str, generation: i64, count: i64, devices: usize) -> ResourceSlice {
        let devices: Vec<_> = (0..devices).map(|index| json!({"name": format!("gpu-{index}")})).collect();
        serde_json::from_value(json!({"metadata": {}, "spec": {
            "driver": "gpu.nvidia.com", "nodeName": pool, "devices": devices,
            "pool": {"name": pool, "generation": generation, "resourceSliceCount": count},
        }}))
        .unwrap()
    }

    #[test]
    fn a_pool_counts_when_its_newest_generation_is_complete() {
        let slices = [
            slice("complete", 2, 2, 0),
            slice("complete", 2, 2, 8),
            slice("complete", 1, 1, 3),
            slice("half", 2, 2, 8),
            slice("half", 1, 1, 8),
            slice("empty", 1, 1, 0),
        ];
        assert_eq!(complete_pools(&slices), BTreeMap::from([("complete", 8), ("empty", 0)]));
    }
}
