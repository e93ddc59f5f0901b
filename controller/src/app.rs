// SPDX-License-Identifier: Apache-2.0
//! Starts the tasks of a [`Config`].

use std::borrow::Cow;
use std::time::Duration;

use dra_model::{Advice, NodeName, explain};
use dra_resource::{DriverName, Offer, Pool, Write, diff, pack};
use dra_runtime::api_server::ApiServerError;
use dra_runtime::signals::SignalsError;
use dra_runtime::tasks::{Tasks, TasksError};
use dra_runtime::{ApiServer, http, stop_on_signals};
use k8s_openapi::api::resource::v1::ResourceSlice;
use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::args::{Config, PoolIdentity, Source};
use crate::check::{CheckError, DriverPods, check};
use crate::cluster::{Cluster, RequestError};
use crate::metrics::Metrics;
use crate::node_cleanup::{self, NodeCleanup};
use crate::node_report::NodeReport;
use crate::node_source;
use crate::publisher::{PublishError, Publisher, RoundOutcome, Timing};
use crate::slice_events;
use crate::withdraw::{WithdrawError, WithdrawTiming, withdraw};

/// Limit of queued slice events; the watch waits while the queue is full.
const MAX_QUEUED_EVENTS: usize = 64;

/// The process failed.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("failed to start the runtime")]
    Runtime(#[source] std::io::Error),
    #[error("failed to configure the API server client")]
    ApiServer(#[source] ApiServerError),
    #[error("failed to start the process")]
    Signals(#[source] SignalsError),
    #[error("stopped by a signal before the work was done")]
    Stopped,
    #[error("failed to run the controller")]
    Tasks(#[source] TasksError),
    #[error("no inventory was received within {} s: {reason}", ONCE_TIMEOUT.as_secs())]
    NoInventory {
        /// Why the last report is not publishable.
        reason: String,
    },
    #[error("failed to publish the ResourceSlices")]
    Publish(#[source] Box<PublishError>),
    /// The source disconnected during the round.
    #[error("the ResourceSlices were not published: {0}")]
    Withheld(String),
    #[error("failed to withdraw the ResourceSlices")]
    Withdraw(#[source] WithdrawError),
    #[error("failed to complete the cleanup by DaemonSet {name}")]
    NodeCleanup {
        name: String,
        #[source]
        source: RequestError,
    },
    #[error("failed to verify the published ResourceSlices")]
    Check(#[source] CheckError),
    #[error("failed to print the ResourceSlices")]
    Print(#[source] serde_saphyr::ser::Error),
    #[error("failed to write to standard output")]
    Output(#[source] std::io::Error),
}

const USER_AGENT: &str = concat!("gpu-controller/", env!("CARGO_PKG_VERSION"));

/// Timeout of `--once` for the first inventory.
const ONCE_TIMEOUT: Duration = Duration::from_secs(30);

impl Advice for AppError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::ApiServer(source) => source.advice(),
            Self::Stopped => Some("run the command again".into()),
            Self::Tasks(source) => source.advice(),
            Self::Publish(source) => source.advice(),
            Self::Withdraw(source) => source.advice(),
            Self::Check(source) => source.advice(),
            Self::Runtime(_)
            | Self::Signals(_)
            | Self::NoInventory { .. }
            | Self::Withheld(_)
            | Self::NodeCleanup { .. }
            | Self::Print(_)
            | Self::Output(_) => None,
        }
    }
}

/// Runs the controller on one thread, which needs the least memory.
pub fn run(config: Config, api_server: &ApiServer) -> Result<(), AppError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AppError::Runtime)?;
    let client = || api_server.client(USER_AGENT).map_err(AppError::ApiServer);
    runtime.block_on(async {
        let stop = CancellationToken::new();
        stop_on_signals(stop.clone()).map_err(AppError::Signals)?;
        match config {
            Config::Run { identity, source, offer, http_address } => {
                serve(client()?, identity, source, offer, http_address, stop).await
            }
            Config::Stay => {
                stop.cancelled().await;
                Ok(())
            }
            Config::Once { identity, source, offer } => {
                until_stopped(&stop, Box::pin(once(client()?, identity, source, offer))).await
            }
            Config::Print { identity, source, offer } => until_stopped(&stop, print(identity, source, &offer)).await,
            Config::Withdraw { driver, node, work } => {
                until_stopped(&stop, withdraw_slices(client()?, &driver, node.as_ref(), work.as_ref())).await
            }
            Config::Check { driver, pods } => until_stopped(&stop, check_published(client()?, &driver, &pods)).await,
        }
    })
}

/// Runs work until it ends or a signal stops it.
async fn until_stopped(
    stop: &CancellationToken,
    work: impl Future<Output = Result<(), AppError>>,
) -> Result<(), AppError> {
    stop.run_until_cancelled(work).await.unwrap_or(Err(AppError::Stopped))
}

async fn serve(
    client: Client,
    identity: PoolIdentity,
    source: Source,
    offer: Offer,
    http_address: std::net::SocketAddr,
    stop: CancellationToken,
) -> Result<(), AppError> {
    let cluster = Cluster::new(client, &identity.driver, Some(&identity.node));
    let mut tasks = Tasks::new(stop.clone());
    let (metrics, registry) = Metrics::registered();
    let (ready, readiness) = watch::channel(Err("no ResourceSlice was published yet".to_owned()));
    let (event_sender, slice_events) = mpsc::channel(MAX_QUEUED_EVENTS);
    info!(node = %identity.node, driver = %identity.driver, "starting");

    let report = start_node_source(&mut tasks, source, stop.clone());
    let watching = slice_events::follow(cluster.clone(), event_sender, stop.clone());
    tasks.start("watch", async {
        watching.await;
        Ok(())
    });
    let publisher = Publisher::new(cluster, identity, offer, report, Timing::default(), metrics, ready);
    let publishing = publisher.run(slice_events, stop.clone());
    tasks.start("publisher", async {
        publishing.await;
        Ok(())
    });
    tasks.start("http", async move {
        http::serve(http_address, registry, readiness, stop).await.map_err(|error| explain(&error).into())
    });
    tasks.run().await.map_err(AppError::Tasks)
}

fn start_node_source(tasks: &mut Tasks, source: Source, stop: CancellationToken) -> watch::Receiver<NodeReport> {
    let (sender, receiver) = NodeReport::channel();
    tasks.start("node source", async move {
        node_source::follow(source, sender, stop).await;
        Ok(())
    });
    receiver
}

/// The first report that can be published.
async fn first_report(source: Source) -> Result<watch::Receiver<NodeReport>, AppError> {
    let (sender, mut report) = NodeReport::channel();
    let found = tokio::select! {
        () = node_source::follow(source, sender, CancellationToken::new()) => false,
        found = report.wait_for(|report| report.publishable().is_ok()) => found.is_ok(),
        () = tokio::time::sleep(ONCE_TIMEOUT) => false,
    };
    if found {
        return Ok(report);
    }
    let reason = report.borrow().publishable().err().unwrap_or_default();
    Err(AppError::NoInventory { reason })
}

async fn once(client: Client, identity: PoolIdentity, source: Source, offer: Offer) -> Result<(), AppError> {
    let cluster = Cluster::new(client, &identity.driver, Some(&identity.node));
    let report = first_report(source).await?;
    let (metrics, _registry) = Metrics::registered();
    let (ready, _readiness) = watch::channel(Err(String::new()));
    let mut publisher = Publisher::new(cluster, identity, offer, report, Timing::default(), metrics, ready);
    match publisher.round().await.map_err(|error| AppError::Publish(Box::new(error)))? {
        RoundOutcome::UpToDate { writes } => info!(writes, "the ResourceSlices are up to date"),
        RoundOutcome::Withheld(reason) => return Err(AppError::Withheld(reason)),
    }
    Ok(())
}

/// Prints the slices of a first round, without their owner, because its UID would need a request to the API server.
async fn print(identity: PoolIdentity, source: Source, offer: &Offer) -> Result<(), AppError> {
    let report = first_report(source).await?;
    let inventory = report.borrow().publishable().map_err(AppError::Withheld)?;
    let pool = Pool { driver: identity.driver, node: identity.node, node_uid: String::new() };
    let mut text = String::new();
    for write in diff(&pool, &pack(&pool.driver, &inventory, offer), &[]) {
        match write {
            Write::Create(slice) => text.push_str(&yaml(*slice)?),
            Write::Update(_) | Write::Delete { .. } => {}
        }
    }
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes()).map_err(AppError::Output)
}

fn yaml(mut slice: ResourceSlice) -> Result<String, AppError> {
    slice.metadata.owner_references = None;
    Ok(format!("---\n{}", serde_saphyr::to_string(&slice).map_err(AppError::Print)?))
}

async fn withdraw_slices(
    client: Client,
    driver: &DriverName,
    node: Option<&NodeName>,
    work: Option<&NodeCleanup>,
) -> Result<(), AppError> {
    let cluster = Cluster::new(client, driver, node);
    let count = withdraw(&cluster, WithdrawTiming::default()).await.map_err(AppError::Withdraw)?;
    info!(count, "deleted the ResourceSlices");
    let Some(work) = work else { return Ok(()) };
    let finished = node_cleanup::finish(&cluster, work).await;
    finished.map(drop).map_err(|source| AppError::NodeCleanup { name: work.daemon_set.clone(), source })
}

async fn check_published(client: Client, driver: &DriverName, pods: &DriverPods) -> Result<(), AppError> {
    check(&Cluster::new(client, driver, None), driver, pods).await.map_err(AppError::Check)
}
