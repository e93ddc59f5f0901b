// SPDX-License-Identifier: Apache-2.0
//! News of our slices from the API server, and which of it is only the echo of our own writes.

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

/// Something that happened to a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SliceEvent {
    /// It is there, in this version.
    Stored {
        /// Its name.
        name: String,
        /// Its resource version.
        version: String,
    },
    /// It was deleted.
    Deleted {
        /// Its name.
        name: String,
    },
    /// The watch began anew; anything may have happened meanwhile.
    Relisted,
}

/// The slices as this process last saw or wrote them: name to resource version.
#[derive(Debug, Default)]
pub struct SliceVersions(BTreeMap<String, String>);

impl SliceVersions {
    /// Forgets everything and remembers these.
    pub fn replace<'a>(&mut self, slices: impl Iterator<Item = &'a ObjectMeta>) {
        self.0.clear();
        for slice in slices {
            self.remember(slice);
        }
    }

    /// Remembers a slice.
    pub fn remember(&mut self, slice: &ObjectMeta) {
        if let (Some(name), Some(version)) = (&slice.name, &slice.resource_version) {
            self.0.insert(name.clone(), version.clone());
        }
    }

    /// Forgets a slice that this process deleted.
    pub fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Whether news tells of a change by somebody else.
    pub fn is_foreign(&self, slice_events: &SliceEvent) -> bool {
        match slice_events {
            SliceEvent::Stored { name, version } => self.0.get(name) != Some(version),
            SliceEvent::Deleted { name } => self.0.contains_key(name),
            SliceEvent::Relisted => true,
        }
    }
}

/// The longest delay before a watch is opened again; up to a quarter is added. An API server that comes back has the
/// slices it should have within five seconds.
const MAX_DELAY: Duration = Duration::from_secs(4);

/// Passes on news until `stop`. A watch that fails is opened again, from the beginning: its first news wakes up the
/// publisher, which may have waited for the API server as well.
pub async fn follow(cluster: Cluster, slice_events: mpsc::Sender<SliceEvent>, stop: CancellationToken) {
    let mut backoff = Backoff::new(Duration::from_millis(250), MAX_DELAY);
    let mut failures = RepeatedFailures::default();
    loop {
        let opened = || {
            backoff.reset();
            if let Some(away) = failures.recovered() {
                info!(away_s = away.as_secs(), "the slices of this node are watched again");
            }
        };
        let failed = tokio::select! {
            () = stop.cancelled() => return,
            failed = watch(&cluster, &slice_events, opened) => failed,
        };
        let Err(error) = failed else { return };
        let error = chain(&error).to_string();
        if failures.should_log(&error) {
            warn!(error, "unable to watch the slices of this node: edits by others are undone later (will retry)");
        } else {
            debug!(error, "the watch failed");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(backoff.next_delay()) => {}
        }
    }
}

/// How long a watch has to last to count as open. The list before it may go well, and the watch itself be refused.
const OPEN_AFTER: Duration = Duration::from_secs(5);

/// How far a watch has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Listing,
    /// The watch itself may still be refused.
    Listed,
    Open,
}

impl Stage {
    /// How long the next event may take. The client below repeats what the API server is too busy for, at ever longer
    /// intervals.
    fn timeout(self) -> Duration {
        match self {
            Self::Listing => REQUEST_TIMEOUT,
            Self::Listed => OPEN_AFTER,
            Self::Open => Duration::MAX,
        }
    }
}

/// Passes on news until the watch fails, or nobody listens any more.
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
        let gone = |name: &str| SliceEvent::Deleted { name: name.to_owned() };
        let mut versions = SliceVersions::default();
        versions.replace([slice("a", "1"), slice("b", "2")].iter());
        versions.remember(&slice("a", "3"));
        versions.forget("b");
        for (given, expect) in [
            (seen("a", "3"), false),
            (seen("a", "4"), true),
            (seen("c", "1"), true),
            (gone("a"), true),
            (gone("b"), false),
            (SliceEvent::Relisted, true),
        ] {
            assert_eq!(versions.is_foreign(&given), expect, "{given:?}");
        }
    }
}
