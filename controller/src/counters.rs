// SPDX-License-Identifier: Apache-2.0
//! Whether the API server keeps counters. One that drops them would let the scheduler hand out a GPU twice, so this is
//! known before the first slice that needs them is published.

use dra_resource::{Pool, SliceContent, Write, diff};
use k8s_openapi::api::resource::v1::ResourceSlice;

use crate::cluster::{Cluster, RequestError, ServerVersion};

/// Counters are beta and on by default since this minor version of Kubernetes 1 (KEP-4815).
const FIRST_MINOR: u32 = 36;

/// What the API server does with counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Counters {
    /// It keeps them.
    Kept,
    /// It does not, and this is why.
    Unavailable {
        /// For people.
        reason: String,
    },
}

/// Finds out. Slices that already hold counters prove it without a request; otherwise the first slice of counters that
/// would be published is sent as a dry run.
pub async fn ask(
    cluster: &Cluster,
    pool: &Pool,
    desired: &[SliceContent],
    observed: &[ResourceSlice],
) -> Result<Counters, RequestError> {
    if observed.iter().any(|slice| slice.spec.shared_counters.is_some()) {
        return Ok(Counters::Kept);
    }
    let version = cluster.version().await?;
    if (version.major, version.minor) < (1, FIRST_MINOR) {
        return Ok(too_old(&version));
    }
    let Some(mut probe) = first_counters(pool, desired) else {
        return Ok(Counters::Kept);
    };
    probe.metadata.name = probe.metadata.name.map(|name| format!("probe-{name}").chars().take(253).collect());
    match cluster.dry_run(&probe).await {
        Ok(kept) if kept.spec.shared_counters.is_none() => Ok(dropped(&version)),
        Ok(_) => Ok(Counters::Kept),
        // Whoever refuses dry runs does not answer the question; the answers to real writes will.
        Err(error) if error.is_final() => Ok(Counters::Kept),
        Err(error) => Err(error),
    }
}

/// The verdict after a write whose counters did not come back.
pub fn dropped(version: &ServerVersion) -> Counters {
    Counters::Unavailable {
        reason: format!(
            "the API server {} drops counters; enable its feature gate DRAPartitionableDevices",
            version.full
        ),
    }
}

fn too_old(version: &ServerVersion) -> Counters {
    Counters::Unavailable {
        reason: format!("the API server {} has no counters; they need Kubernetes 1.{FIRST_MINOR}", version.full),
    }
}

fn first_counters(pool: &Pool, desired: &[SliceContent]) -> Option<ResourceSlice> {
    diff(pool, desired, &[]).into_iter().find_map(|write| match write {
        Write::Create(slice) if slice.spec.shared_counters.is_some() => Some(*slice),
        Write::Create(_) | Write::Update(_) | Write::Delete { .. } => None,
    })
}
