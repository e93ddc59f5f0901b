// SPDX-License-Identifier: Apache-2.0
//! Rounds until a signal, while this process holds the Lease.

use std::borrow::Cow;
use std::time::Duration;

use dra_model::{Advice, explain};
use dra_runtime::api_server::ApiServerError;
use dra_runtime::signals::SignalsError;
use dra_runtime::tasks::{Tasks, TasksError};
use dra_runtime::{http, stop_on_signals};
use kube::Api;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::args::Args;
use crate::election::Election;
use crate::reported::Reported;
use crate::round::Explainer;

/// Between two rounds. Without a pod that is due, a round is one list of the pods that wait.
const INTERVAL: Duration = Duration::from_secs(15);

/// Of the requests that release the Lease.
const LEASE_TIMEOUT: Duration = Duration::from_secs(10);

/// Of a round: shorter than the Lease is valid.
const ROUND_TIMEOUT: Duration = Duration::from_secs(90);

const USER_AGENT: &str = concat!("gpu-explain/", env!("CARGO_PKG_VERSION"));

/// The process failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("failed to start the runtime")]
    Runtime(#[source] std::io::Error),
    #[error("failed to configure the API server client")]
    ApiServer(#[source] ApiServerError),
    #[error("failed to start the process")]
    Signals(#[source] SignalsError),
    #[error("failed to explain pods")]
    Tasks(#[source] TasksError),
}

impl Advice for RunError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::ApiServer(source) => source.advice(),
            Self::Tasks(source) => source.advice(),
            Self::Runtime(_) | Self::Signals(_) => None,
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::Runtime)?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        stop_on_signals(stop.clone()).map_err(RunError::Signals)?;
        let client = args.api_server.client(USER_AGENT).map_err(RunError::ApiServer)?;
        let leases = Api::namespaced(client.clone(), &args.namespace);
        let election = Election::new(leases, args.lease.clone(), args.identity.clone());
        let explainer = Explainer {
            election,
            client,
            driver: args.driver_name.clone(),
            identity: args.identity.clone(),
            after: Duration::from_secs(args.after_seconds),
            reported: Reported::default(),
            read: None,
        };
        info!(driver = %args.driver_name, identity = args.identity, "starting");
        let (address, mut tasks) = (args.http_address, Tasks::new(stop.clone()));
        let (ready, readiness) = watch::channel(Err("no round has ended yet".to_owned()));
        let rounds = rounds(explainer, ready, stop.clone());
        tasks.start("rounds", async {
            rounds.await;
            Ok(())
        });
        tasks.start("http", async move {
            let served = http::serve(address, Registry::default(), readiness, stop).await;
            served.map_err(|error| explain(&error).into())
        });
        tasks.run().await.map_err(RunError::Tasks)
    })
}

async fn rounds(mut explainer: Explainer, ready: watch::Sender<Result<(), String>>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let Some(ended) = stop.run_until_cancelled(one(&mut explainer)).await else { break };
        let is_new = ready.send_if_modified(|before| {
            let is_new = *before != ended;
            before.clone_from(&ended);
            is_new
        });
        if let (true, Err(error)) = (is_new, &ended) {
            warn!(error, "a round failed; will try again");
        }
    }
    if !matches!(timeout(LEASE_TIMEOUT, explainer.election.release()).await, Ok(Ok(()))) {
        warn!("the Lease was not released: another process takes it in some minutes");
    }
}

async fn one(explainer: &mut Explainer) -> Result<(), String> {
    match timeout(ROUND_TIMEOUT, explainer.round()).await {
        Ok(ended) => ended.map_err(|error| explain(&error)),
        Err(_elapsed) => Err(format!("a round did not end within {} s", ROUND_TIMEOUT.as_secs())),
    }
}
