// SPDX-License-Identifier: Apache-2.0
//! Watch events of the slices of this node, and which of them are caused by writes of this process.

use std::collections::BTreeMap;
use std::time::Duration;

use dra_model::chain;
use futures::TryStreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher::Event;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::cluster::{Cluster, REQUEST_TIMEOUT, RequestError};
use crate::rate_limits::Backoff;
use crate::repeated_failures::RepeatedFailures;

/// A change of the slices of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SliceEvent {
    /// A slice was created or updated.
    Stored {
        name: String,
        /// Resource version.
        version: String,
    },
    /// A slice was deleted.
    Deleted { name: String },
    /// The watch was opened again; changes in between are unknown.
    Relisted,
}

/// The resource version of each slice that this process last read or wrote, by name.
#[derive(Debug, Default)]
pub struct SliceVersions(BTreeMap<String, String>);

impl SliceVersions {
    /// Replaces all versions by those of these slices.
    pub fn replace<'a>(&mut self, slices: impl Iterator<Item = &'a ObjectMeta>) {
        self.0.clear();
        for slice in slices {
            self.remember(slice);
        }
    }

    pub fn remember(&mut self, slice: &ObjectMeta) {
        if let (Some(name), Some(version)) = (&slice.name, &slice.resource_version) {
            self.0.insert(name.clone(), version.clone());
        }
    }

    /// Removes a slice that this process deleted.
    pub fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Whether another client caused the event.
    pub fn is_foreign(&self, slice_events: &SliceEvent) -> bool {
        match slice_events {
            SliceEvent::Stored { name, version } => self.0.get(name) != Some(version),
            SliceEvent::Deleted { name } => self.0.contains_key(name),
            SliceEvent::Relisted => true,
        }
    }
}

/// Maximum delay before a watch is opened again; up to a quarter is added. The slices are repaired within five seconds after the
/// API server is reachable again.
const MAX_DELAY: Duration = Duration::from_secs(4);

/// Passes on the events until `stop`. A failed watch is opened again with a list: its first event triggers the publisher, which may
/// have been waiting for the API server as well.
pub async fn follow(cluster: Cluster, slice_events: mpsc::Sender<SliceEvent>, stop: CancellationToken) {
    let mut backoff = Backoff::new(Duration::from_millis(250), MAX_DELAY);
    let mut failures = RepeatedFailures::default();
    loop {
        let opened = || {
            backoff.reset();
            if let Some(elapsed) = failures.recovered() {
                info!(failed_s = elapsed.as_secs(), "the slices of this node are watched again");
            }
        };
        let failed = tokio::select! {
            () = stop.cancelled() => return,
            failed = watch(&cluster, &slice_events, opened) => failed,
        };
        let Err(error) = failed else { return };
        let error = chain(&error).to_string();
        if failures.should_log(&error) {
            warn!(
                error,
                "failed to watch the slices of this node, changes by other clients are repaired later; retrying"
            );
        } else {
            debug!(error, "the watch failed");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(backoff.next_delay()) => {}
        }
    }
}

/// A watch counts as open after this time without a failure, because the API server may accept the list and refuse the watch.
const OPEN_AFTER: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Listing,
    /// The API server may still refuse the watch.
    Listed,
    Open,
}

impl Stage {
    /// Timeout for the next event. kube's client retries requests that an overloaded API server refuses, at growing intervals.
    fn timeout(self) -> Duration {
        match self {
            Self::Listing => REQUEST_TIMEOUT,
            Self::Listed => OPEN_AFTER,
            Self::Open => Duration::MAX,
        }
    }
}

/// Passes on events until the watch fails or the receiver is dropped.
async fn watch(
    cluster: &Cluster,
    slice_events: &mpsc::Sender<SliceEvent>,
    mut opened: impl FnMut(),
) -> Result<(), RequestError> {
    let mut events = std::pin::pin!(cluster.watch());
    let mut stage = Stage::Listing;
    loop {
        let event = match (timeout(stage.timeout(), events.try_next()).await, stage) {
            (Ok(event), _) => event?,
            (Err(_elapsed), Stage::Listing) => return Err(RequestError::TimedOut),
            (Err(_elapsed), Stage::Listed | Stage::Open) => {
                stage = Stage::Open;
                opened();
                continue;
            }
        };
        let Some(event) = event else { return Ok(()) };
        if stage == Stage::Listed {
            stage = Stage::Open;
            opened();
        }
        let Some(item) = slice_event(event) else { continue };
        if item == SliceEvent::Relisted && stage == Stage::Listing {
            stage = Stage::Listed;
        }
        if slice_events.send(item).await.is_err() {
            return Ok(());
        }
    }
}

fn slice_event<K>(event: Event<kube::core::PartialObjectMeta<K>>) -> Option<SliceEvent> {
    match event {
        Event::Apply(slice) => Some(SliceEvent::Stored {
            name: slice.metadata.name.unwrap_or_default(),
            version: slice.metadata.resource_version.unwrap_or_default(),
        }),
        Event::Delete(slice) => Some(SliceEvent::Deleted { name: slice.metadata.name.unwrap_or_default() }),
        Event::Init | Event::InitApply(_) => None,
        Event::InitDone => Some(SliceEvent::Relisted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_own_writes_are_not_foreign() {
        let slice = |name: &str, version: &str| ObjectMeta {
            name: Some(name.to_owned()),
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        };
        let seen =
            |name: &str, version: &str| SliceEvent::Stored { name: name.to_owned(), version: version.to_owned() };
        let deleted = |name: &str| SliceEvent::Deleted { name: name.to_owned() };
        let mut versions = SliceVersions::default();
        versions.replace([slice("a", "1"), slice("b", "2")].iter());
        versions.remember(&slice("a", "3"));
        versions.forget("b");
        for (given, expect) in [
            (seen("a", "3"), false),
            (seen("a", "4"), true),
            (seen("c", "1"), true),
            (deleted("a"), true),
            (deleted("b"), false),
            (SliceEvent::Relisted, true),
        ] {
            assert_eq!(versions.is_foreign(&given), expect, "{given:?}");
        }
    }
}
