// SPDX-License-Identifier: Apache-2.0
//! Sends writes in order and compares each stored slice with the sent one, because the API server silently drops the fields of
//! disabled feature gates.

use dra_resource::Write;
use k8s_openapi::api::resource::v1::{ResourceSlice, ResourceSliceSpec};
use tracing::{info, warn};

use crate::cluster::{Cluster, RequestError};
use crate::feature_support::GatedFields;
use crate::metrics::Metrics;
use crate::slice_events::SliceVersions;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Number of successful writes.
    pub writes: usize,
    pub outcome: Outcome,
}

/// Why the writes ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All writes are done.
    Done,
    /// Another client wrote the slice; the slices must be listed again.
    Conflict { slice: String },
    /// The API server dropped these fields: the devices may be allocated twice, so the slices must be replaced at once.
    Dropped(GatedFields),
    /// The plugin disconnected or is not registered any more.
    Withheld,
}

#[derive(Debug, thiserror::Error)]
#[error("failed to {operation} ResourceSlice {slice}")]
pub struct ApplyError {
    /// `create`, `update` or `delete`.
    pub operation: &'static str,
    pub slice: String,
    #[source]
    pub source: RequestError,
}

/// Sends the writes as long as `may_write` is true.
pub async fn apply(
    cluster: &Cluster,
    writes: &[Write],
    versions: &mut SliceVersions,
    metrics: &Metrics,
    may_write: impl Fn() -> bool,
) -> Result<Applied, ApplyError> {
    for (done, write) in writes.iter().enumerate() {
        if !may_write() {
            return Ok(Applied { writes: done, outcome: Outcome::Withheld });
        }
        let (operation, slice) = (operation(write), write.slice_name());
        let answer = cluster.write(write).await;
        metrics.count_write(operation, result(&answer));
        match answer {
            Ok(stored) => {
                info!(operation, slice, "wrote ResourceSlice");
                if let Some(gated) = record(write, stored.as_ref(), versions) {
                    return Ok(Applied { writes: done + 1, outcome: Outcome::Dropped(gated) });
                }
            }
            // An update of a deleted slice is a conflict as well: the slice must be created instead.
            Err(error) if error.is_conflict() || error.is_not_found() => {
                return Ok(Applied { writes: done, outcome: Outcome::Conflict { slice: slice.to_owned() } });
            }
            Err(source) => return Err(ApplyError { operation, slice: slice.to_owned(), source }),
        }
    }
    Ok(Applied { writes: writes.len(), outcome: Outcome::Done })
}

/// Records the version of a stored slice, and returns the gated fields that the API server dropped.
fn record(write: &Write, stored: Option<&ResourceSlice>, versions: &mut SliceVersions) -> Option<GatedFields> {
    let Some(stored) = stored else {
        versions.forget(write.slice_name());
        return None;
    };
    versions.remember(&stored.metadata);
    let sent = write.slice()?;
    let dropped = GatedFields::ALL.into_iter().find(|gated| gated.amount(&stored.spec) < gated.amount(&sent.spec));
    if dropped.is_none() && without_times(&sent.spec) != without_times(&stored.spec) {
        warn!(slice = write.slice_name(), "the API server changed or dropped fields of a ResourceSlice");
    }
    dropped
}

/// The API server adds the time of a taint.
fn without_times(spec: &ResourceSliceSpec) -> ResourceSliceSpec {
    let mut spec = spec.clone();
    for taint in spec.devices.iter_mut().flatten().flat_map(|device| device.taints.iter_mut().flatten()) {
        taint.time_added = None;
    }
    spec
}

fn operation(write: &Write) -> &'static str {
    match write {
        Write::Delete { .. } => "delete",
        Write::Update(_) => "update",
        Write::Create(_) => "create",
    }
}

fn result(answer: &Result<Option<ResourceSlice>, RequestError>) -> &'static str {
    match answer {
        Ok(_) => "success",
        Err(error) if error.is_conflict() => "conflict",
        Err(_) => "error",
    }
}
