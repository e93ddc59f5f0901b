// SPDX-License-Identifier: Apache-2.0
//! The loop that keeps the slices equal to the view.
//!
//! It wakes up for a new view, for a change of a slice by somebody else, for a retry and every few minutes anyway;
//! waits a moment for more of the same; lists the slices as they are, packs, diffs and applies. Nothing is remembered
//! between rounds that could be wrong: a restart finds its slices and writes nothing.

use std::sync::Arc;
use std::time::Duration;

use dra_model::Inventory;
use dra_model::chain;
use dra_resource::{Offer, Pool, SliceContent, Write, diff, pack};
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

/// How often a round is begun anew because somebody else wrote at the same time.
const MAX_ATTEMPTS: usize = 5;

/// The times of the loop.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// How long to wait for more changes before acting on one.
    pub debounce: Duration,
    /// The first and the longest delay after a failure.
    pub retry: (Duration, Duration),
    /// The shortest and the longest time between two looks without a cause.
    pub recheck: (Duration, Duration),
    /// Rounds with writes that may follow each other at once, and the time each further one takes.
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

/// Why a round failed.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The slices could not be read.
    #[error("failed to list the slices of this node")]
    List(#[source] RequestError),
    /// The slice that holds a name could not be read.
    #[error("failed to read ResourceSlice {slice}, which holds the name of a slice of this node")]
    ForeignSlice {
        /// The name.
        slice: String,
        /// How the request for the slice failed.
        #[source]
        source: RequestError,
    },
    /// The owner of the slices could not be read.
    #[error("failed to read Node {node}")]
    Node {
        /// The node.
        node: dra_model::NodeName,
        /// Why.
        #[source]
        source: RequestError,
    },
    /// It is unknown what may be published.
    #[error("failed to ask the API server which fields of slices it keeps")]
    Server(#[source] RequestError),
    /// A write failed.
    #[error("failed to publish")]
    Apply(#[source] ApplyError),
    /// Others write the same slices all the time.
    #[error(
        "slice {slice} is written by somebody else again and again: only one controller per node and driver may run"
    )]
    Contended {
        /// The slice.
        slice: String,
    },
}

/// What a round came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoundOutcome {
    /// The slices are what they should be.
    UpToDate {
        /// How many writes that took.
        writes: usize,
    },
    /// Nothing may be written, and this is why.
    Withheld(String),
}

/// Publishes the devices of one node.
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
    /// A publisher that has seen nothing yet. It publishes as much of the offer as the API server keeps.
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

    /// Publishes until `stop`. Slices stay when the process ends: an upgraded one takes over.
    pub async fn run(mut self, mut slice_events: mpsc::Receiver<SliceEvent>, stop: CancellationToken) {
        let mut recheck_at = self.next_recheck();
        self.report.mark_changed();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.report.changed() => if changed.is_err() { return },
                () = foreign(&mut slice_events, &self.versions) => debug!("somebody else changed the slices"),
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
            recheck_at = self.next_recheck();
        }
    }

    /// One round, with its outcome told to readiness and its failure to the retry clock.
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
        if let Some(away) = self.failures.recovered() {
            info!(away_s = away.as_secs(), "publishing works again");
        }
    }

    /// Says a failure once, and returns what was said.
    fn log_failure(&mut self, error: &PublishError) -> String {
        let error = chain(error).to_string();
        if self.failures.should_log(&error) {
            warn!(error, "unable to publish, leaving the slices as they are (will retry)");
        }
        error
    }

    /// Makes the slices equal to the view, if that may be done now.
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
                // What was written may be handed out twice, so nothing but the budget for writes holds up its replacement.
                Outcome::Dropped(gated) => self.support.mark_dropped(gated),
            }
        }
        Err(PublishError::Contended { slice: contended })
    }

    /// The slice that holds a name in conflict, if it is not of this pool and not among those known already.
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
                "a slice of another driver or node holds the name of a slice of this node: publishing under another name, delete that slice if nothing needs it"
            );
        }
        Ok(foreign)
    }

    /// Makes the slices equal to the inventory once; the names of the foreign slices are passed over.
    async fn attempt(
        &mut self,
        inventory: &Arc<Inventory>,
        foreign: &[ResourceSlice],
        writes: &mut usize,
    ) -> Result<Outcome, PublishError> {
        let observed = self.cluster.slices().await.map_err(PublishError::List)?;
        self.versions.replace(observed.iter().map(|slice| &slice.metadata));
        self.metrics.set_generation(generation(observed.iter()));
        if self.pool.node_uid.is_empty() {
            self.read_node().await?;
        }
        let desired = self.desired(inventory, &observed).await?;
        self.metrics.set_devices(DeviceCounts::of(&desired));
        let present = [observed.as_slice(), foreign].concat();
        let mut planned = diff(&self.pool, &desired, &present);
        if planned.is_empty() {
            return Ok(Outcome::Done);
        }
        // Slices that vanish may mean that the Node was created anew; an owner that is gone would take them with it.
        if self.read_node().await? {
            planned = diff(&self.pool, &desired, &present);
        }
        sleep(self.write_limit.reserve(Instant::now())).await;
        let report = &self.report;
        let may_write = || report.borrow().publishable().is_ok();
        let applied = apply(&self.cluster, &planned, &mut self.versions, &self.metrics, may_write);
        let applied = applied.await.map_err(PublishError::Apply)?;
        *writes += applied.writes;
        self.metrics.set_generation(generation(planned.iter().take(applied.writes).filter_map(Write::slice)));
        Ok(applied.outcome)
    }

    /// What should be published, which depends on what the API server keeps.
    async fn desired(
        &mut self,
        inventory: &Inventory,
        observed: &[ResourceSlice],
    ) -> Result<Vec<SliceContent>, PublishError> {
        let everything = pack(inventory, &self.offer);
        let features = self.support.features(&self.cluster, &self.pool, &everything, observed);
        let features = features.await.map_err(PublishError::Server)?;
        if features == self.offer.features {
            return Ok(everything);
        }
        Ok(pack(inventory, &Offer { features, ..self.offer.clone() }))
    }

    /// Reads the UID of the Node; true when it changed.
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

    /// Tells the Node what is wrong with its GPUs; false when that should be tried again soon.
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

/// Ends with the first news that is not an echo of an own write.
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

/// The newest generation of some slices, if there are any.
fn generation<'a>(slices: impl Iterator<Item = &'a ResourceSlice>) -> Option<i64> {
    slices.map(|slice| slice.spec.pool.generation).max()
}
