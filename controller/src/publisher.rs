// SPDX-License-Identifier: Apache-2.0
//! The loop that publishes the reported inventory.
//!
//! A round is triggered by a new report, a slice event of another client, a retry or a timer. It waits for further triggers, then
//! lists the slices, packs, diffs and applies. No state between rounds affects the result: after a restart the slices are equal and
//! nothing is written.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use dra_model::{Advice, Inventory, explain};
use dra_resource::published::newest_generation;
use dra_resource::{Offer, Pool, SliceContent, Write, diff, pack};
use dra_runtime::heap;
use k8s_openapi::api::resource::v1::ResourceSlice;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::apply::{ApplyError, Outcome, apply};
use crate::args::PoolIdentity;
use crate::cluster::{Cluster, RequestError};
use crate::feature_support::FeatureSupport;
use crate::metrics::{DeviceCounts, Metrics};
use crate::node_events::{NodeEvents, problems};
use crate::node_report::{NodeReport, send_if_changed};
use crate::rate_limits::{Backoff, RateLimit, random_between};
use crate::repeated_failures::RepeatedFailures;
use crate::slice_events::{SliceEvent, SliceVersions};

/// Limit of attempts in a round when other clients write at the same time.
const MAX_ATTEMPTS: usize = 5;

#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Wait for further triggers before a round.
    pub debounce: Duration,
    /// Minimum and maximum delay after a failure.
    pub retry: (Duration, Duration),
    /// Minimum and maximum interval of rounds without a trigger.
    pub recheck: (Duration, Duration),
    /// Burst of rounds with writes, and the interval of further ones.
    pub write_limit: (u32, Duration),
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            debounce: Duration::from_millis(100),
            retry: (Duration::from_millis(200), Duration::from_secs(4)),
            recheck: (Duration::from_mins(5), Duration::from_mins(10)),
            write_limit: (10, Duration::from_secs(2)),
        }
    }
}

/// A failed round.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("failed to list the ResourceSlices of this node")]
    List(#[source] RequestError),
    #[error("failed to read ResourceSlice {slice}, which has the name of a slice of this node")]
    ForeignSlice {
        slice: String,
        #[source]
        source: RequestError,
    },
    #[error("failed to read Node {node}")]
    Node {
        node: dra_model::NodeName,
        #[source]
        source: RequestError,
    },
    #[error("failed to determine which fields of ResourceSlices the API server stores")]
    FeatureSupport(#[source] RequestError),
    #[error("failed to publish the inventory")]
    Apply(#[source] ApplyError),
    #[error("ResourceSlice {slice}: concurrent writes in every attempt")]
    Contended { slice: String },
}

impl Advice for PublishError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Contended { .. } => Some("run only one gpu-controller per node and driver name".into()),
            Self::List(_)
            | Self::ForeignSlice { .. }
            | Self::Node { .. }
            | Self::FeatureSupport(_)
            | Self::Apply(_) => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoundOutcome {
    UpToDate {
        /// Number of writes in the round.
        writes: usize,
    },
    /// Nothing may be written, for this reason.
    Withheld(String),
}

#[derive(Debug)]
pub struct Publisher {
    cluster: Cluster,
    pool: Pool,
    report: watch::Receiver<NodeReport>,
    timing: Timing,
    metrics: Metrics,
    readiness: watch::Sender<Result<(), String>>,
    events: NodeEvents,
    versions: SliceVersions,
    offer: Offer,
    support: FeatureSupport,
    write_limit: RateLimit,
    backoff: Backoff,
    failures: RepeatedFailures,
    retry_at: Option<Instant>,
}

impl Publisher {
    /// Publishes as much of the offer as the API server stores.
    pub fn new(
        cluster: Cluster,
        identity: PoolIdentity,
        offer: Offer,
        report: watch::Receiver<NodeReport>,
        timing: Timing,
        metrics: Metrics,
        readiness: watch::Sender<Result<(), String>>,
    ) -> Self {
        let PoolIdentity { driver, node } = identity;
        Self {
            cluster,
            report,
            timing,
            metrics,
            readiness,
            events: NodeEvents::new(driver.clone(), node.clone()),
            pool: Pool { driver, node, node_uid: String::new() },
            versions: SliceVersions::default(),
            offer,
            support: FeatureSupport::default(),
            write_limit: RateLimit::new(timing.write_limit.0, timing.write_limit.1),
            backoff: Backoff::new(timing.retry.0, timing.retry.1),
            failures: RepeatedFailures::default(),
            retry_at: None,
        }
    }

    /// Publishes until `stop`. The slices remain after the process ends, for the next one.
    pub async fn run(mut self, mut slice_events: mpsc::Receiver<SliceEvent>, stop: CancellationToken) {
        let mut recheck_at = self.next_recheck();
        self.report.mark_changed();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.report.changed() => if changed.is_err() { return },
                () = foreign(&mut slice_events, &self.versions) => debug!("another client changed the slices"),
                () = until(self.retry_at) => {}
                () = sleep_until(recheck_at) => self.support.recheck(),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(self.timing.debounce) => {}
            }
            while slice_events.try_recv().is_ok() {}
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.run_round() => {}
            }
            // A round holds all slices several times, and the next one is minutes away.
            heap::release_freed();
            recheck_at = self.next_recheck();
        }
    }

    /// Runs a round, reports its outcome to readiness and schedules a retry after a failure.
    async fn run_round(&mut self) {
        self.report.borrow_and_update();
        self.retry_at = None;
        let round = self.round().await;
        let reported = self.report_events().await;
        match &round {
            Ok(_) if reported => self.backoff.reset(),
            Ok(_) | Err(_) => self.retry_at = Some(Instant::now() + self.backoff.next_delay()),
        }
        let ready = match round {
            Ok(RoundOutcome::UpToDate { .. }) => {
                self.log_recovery();
                Ok(())
            }
            Ok(RoundOutcome::Withheld(reason)) => Err(reason),
            Err(error) => Err(self.log_failure(&error)),
        };
        send_if_changed(&self.readiness, ready);
    }

    fn log_recovery(&mut self) {
        if let Some(elapsed) = self.failures.recovered() {
            info!(failed_s = elapsed.as_secs(), "publishing works again");
        }
    }

    /// Logs a failure once and returns its text.
    fn log_failure(&mut self, error: &PublishError) -> String {
        let error = explain(error);
        if self.failures.should_log(&error) {
            warn!(error, "failed to publish, the slices are unchanged; retrying");
        }
        error
    }

    /// Makes the slices equal to the reported inventory, if writing is allowed.
    pub async fn round(&mut self) -> Result<RoundOutcome, PublishError> {
        let begin = Instant::now();
        let mut writes = 0;
        let mut contended = String::new();
        let mut foreign = Vec::new();
        let mut attempts_left = MAX_ATTEMPTS;
        while attempts_left > 0 {
            attempts_left -= 1;
            let inventory = match self.report.borrow().publishable() {
                Ok(inventory) => inventory,
                Err(reason) => return Ok(RoundOutcome::Withheld(reason)),
            };
            match self.attempt(&inventory, &foreign, &mut writes).await? {
                Outcome::Done => {
                    if writes > 0 {
                        self.metrics.observe_publish(begin.elapsed().as_secs_f64());
                        info!(writes, "published");
                    }
                    return Ok(RoundOutcome::UpToDate { writes });
                }
                Outcome::Conflict { slice } => match self.foreign_holder(&slice, &foreign).await? {
                    Some(holder) => {
                        foreign.push(holder);
                        attempts_left += 1;
                    }
                    None => contended = slice,
                },
                Outcome::Withheld => {}
                // The devices may be allocated twice, so only the rate limit delays the replacement.
                Outcome::Dropped(gated) => self.support.mark_dropped(gated),
            }
        }
        Err(PublishError::Contended { slice: contended })
    }

    /// The slice that has a conflicting name, if it is of another driver or node and not found before.
    async fn foreign_holder(
        &self,
        slice: &str,
        found: &[ResourceSlice],
    ) -> Result<Option<ResourceSlice>, PublishError> {
        if found.iter().any(|holder| holder.metadata.name.as_deref() == Some(slice)) {
            return Ok(None);
        }
        let holder = self.cluster.slice(slice).await;
        let holder = holder.map_err(|source| PublishError::ForeignSlice { slice: slice.to_owned(), source })?;
        let foreign = holder.filter(|holder| !self.pool.has(holder));
        if let Some(ResourceSlice { spec, .. }) = &foreign {
            let (driver, node) = (&spec.driver, spec.node_name.as_deref().unwrap_or("none"));
            warn!(
                slice,
                driver,
                node,
                "a ResourceSlice of another driver or node has the name of a slice of this node; publishing under another name; delete that slice if it is unused"
            );
        }
        Ok(foreign)
    }

    /// Makes the slices equal to the inventory once, without the names of the foreign slices.
    async fn attempt(
        &mut self,
        inventory: &Arc<Inventory>,
        foreign: &[ResourceSlice],
        writes: &mut usize,
    ) -> Result<Outcome, PublishError> {
        let observed = self.cluster.slices().await.map_err(PublishError::List)?;
        self.versions.replace(observed.iter().map(|slice| &slice.metadata));
        self.metrics.set_generation(newest_generation(&observed));
        if self.pool.node_uid.is_empty() {
            self.read_node().await?;
        }
        let desired = self.desired(inventory, &observed).await?;
        self.metrics.set_devices(DeviceCounts::of(&self.pool, &desired));
        // A copy of all slices is large, and a foreign one is rare.
        let present =
            if foreign.is_empty() { Cow::Borrowed(&*observed) } else { Cow::Owned([&*observed, foreign].concat()) };
        let mut planned = diff(&self.pool, &desired, &present);
        if planned.is_empty() {
            return Ok(Outcome::Done);
        }
        // Deleted slices may mean that the Node was recreated; slices with a deleted owner would be deleted as well.
        if self.read_node().await? {
            planned = diff(&self.pool, &desired, &present);
        }
        sleep(self.write_limit.reserve(Instant::now())).await;
        let report = &self.report;
        let may_write = || report.borrow().publishable().is_ok();
        let applied = apply(&self.cluster, &planned, &mut self.versions, &self.metrics, may_write);
        let applied = applied.await.map_err(PublishError::Apply)?;
        *writes += applied.writes;
        self.metrics.set_generation(newest_generation(planned.iter().take(applied.writes).filter_map(Write::slice)));
        Ok(applied.outcome)
    }

    /// The desired slices, with the fields that the API server stores.
    async fn desired(
        &mut self,
        inventory: &Inventory,
        observed: &[ResourceSlice],
    ) -> Result<Vec<SliceContent>, PublishError> {
        let everything = pack(&self.pool.driver, inventory, &self.offer);
        let features = self.support.features(&self.cluster, &self.pool, &everything, observed);
        let features = features.await.map_err(PublishError::FeatureSupport)?;
        if features == self.offer.features {
            return Ok(everything);
        }
        Ok(pack(&self.pool.driver, inventory, &Offer { features, ..self.offer.clone() }))
    }

    /// Reads the UID of the Node; true if it changed.
    async fn read_node(&mut self) -> Result<bool, PublishError> {
        let uid = self
            .cluster
            .node_uid(&self.pool.node)
            .await
            .map_err(|source| PublishError::Node { node: self.pool.node.clone(), source })?;
        let changed = uid != self.pool.node_uid;
        self.pool.node_uid = uid;
        Ok(changed)
    }

    /// Reports the problems of the node; false if that must be retried.
    async fn report_events(&mut self) -> bool {
        let inventory = self.report.borrow().inventory();
        match inventory {
            Some(inventory) if !self.pool.node_uid.is_empty() => {
                let problems = problems(&inventory, &self.support, &self.offer);
                self.events.report(&self.cluster, &self.pool.node_uid, problems).await
            }
            Some(_) | None => true,
        }
    }

    fn next_recheck(&self) -> Instant {
        Instant::now() + random_between(self.timing.recheck.0, self.timing.recheck.1)
    }
}

/// Completes with the first event that another client caused.
async fn foreign(slice_events: &mut mpsc::Receiver<SliceEvent>, versions: &SliceVersions) {
    while let Some(item) = slice_events.recv().await {
        if versions.is_foreign(&item) {
            return;
        }
    }
    std::future::pending::<()>().await;
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
