// SPDX-License-Identifier: Apache-2.0
//! The check of `helm test`: every node with a ready driver pod has a complete pool of slices.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use dra_model::{Advice, explain};
use dra_resource::DriverName;
use dra_resource::published::{PublishedPool, pools};
use tracing::{info, warn};

use crate::cluster::{Cluster, RequestError};
use crate::repeated_failures::RepeatedFailures;
use crate::workload::{is_ready, node_of};

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
pub async fn check(cluster: &Cluster, driver: &DriverName, pods: &DriverPods) -> Result<(), CheckError> {
    let end = tokio::time::Instant::now() + pods.timeout;
    let mut failures = RepeatedFailures::default();
    loop {
        let found = check_once(cluster, driver, pods).await;
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

async fn check_once(cluster: &Cluster, driver: &DriverName, wanted: &DriverPods) -> Result<(), CheckError> {
    let pods = cluster.pods(&wanted.namespace, &wanted.selector).await.map_err(CheckError::Request)?;
    let nodes: BTreeSet<&str> = pods.iter().filter(|pod| is_ready(pod)).filter_map(node_of).collect();
    if nodes.is_empty() {
        let DriverPods { namespace, selector, .. } = wanted.clone();
        return Err(CheckError::NoPods { namespace, selector });
    }
    let slices = cluster.slices().await.map_err(CheckError::Request)?;
    let pools = pools(&slices, driver.as_str());
    let is_complete = |node: &str| pools.get(node).is_some_and(PublishedPool::is_complete);
    let missing: Vec<String> = nodes.iter().filter(|node| !is_complete(node)).map(ToString::to_string).collect();
    if !missing.is_empty() {
        return Err(CheckError::Incomplete { nodes: missing });
    }
    for node in nodes {
        let devices = pools.get(node).map_or(0, |pool| pool.devices().count());
        info!(node, devices, "published");
    }
    Ok(())
}
