// SPDX-License-Identifier: Apache-2.0
//! Performs writes in order and compares every answer with what was sent, because an API server silently drops the
//! fields of features it has not enabled.

use dra_resource::Write;
use k8s_openapi::api::resource::v1::{ResourceSlice, ResourceSliceSpec};
use tracing::{info, warn};

use crate::cluster::{Cluster, RequestError};
use crate::feature_support::GatedFields;
use crate::metrics::Metrics;
use crate::slice_events::SliceVersions;

/// How far the writes got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// How many were done.
    pub writes: usize,
    /// Why no more were.
    pub outcome: Outcome,
}

/// Why no more was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// There is no more.
    Done,
    /// Somebody else wrote this slice; look again.
    Conflict {
        /// Its name.
        slice: String,
    },
    /// These fields were dropped: what was published may be handed out twice and must be replaced at once.
    Dropped(GatedFields),
    /// Nothing may be written any more.
    Withheld,
}

/// A write that failed.
#[derive(Debug, thiserror::Error)]
#[error("failed to {operation} ResourceSlice {slice}")]
pub struct ApplyError {
    /// `create`, `update` or `delete`.
    pub operation: &'static str,
    /// Which slice.
    pub slice: String,
    /// Why.
    #[source]
    pub source: RequestError,
}

/// Performs the writes while `may_write` says so.
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
                info!(operation, slice, "wrote a slice");
                if let Some(gated) = record(write, stored.as_ref(), versions) {
                    return Ok(Applied { writes: done + 1, outcome: Outcome::Dropped(gated) });
                }
            }
            // An update of a slice that is gone is a conflict as well: it has to be created instead.
            Err(error) if error.is_conflict() || error.is_not_found() => {
                return Ok(Applied { writes: done, outcome: Outcome::Conflict { slice: slice.to_owned() } });
            }
            Err(source) => return Err(ApplyError { operation, slice: slice.to_owned(), source }),
        }
    }
    Ok(Applied { writes: writes.len(), outcome: Outcome::Done })
}

/// Remembers what was stored, and tells which fields behind a gate are missing from it.
fn record(write: &Write, stored: Option<&ResourceSlice>, versions: &mut SliceVersions) -> Option<GatedFields> {
    let Some(stored) = stored else {
        versions.forget(write.slice_name());
        return None;
    };
    versions.remember(&stored.metadata);
    let sent = write.slice()?;
    let dropped = GatedFields::ALL.into_iter().find(|gated| gated.amount(&stored.spec) < gated.amount(&sent.spec));
    if dropped.is_none() && without_times(&sent.spec) != without_times(&stored.spec) {
        warn!(slice = write.slice_name(), "the API server changed or dropped fields of a slice");
    }
    dropped
}

/// The API server adds the times of taints.
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
        Ok(_) => "ok",
        Err(error) if error.is_conflict() => "conflict",
        Err(_) => "error",
    }
}
