// SPDX-License-Identifier: Apache-2.0
//! Waits until a DaemonSet has done its work on every node, and deletes it, for when the driver is uninstalled.
//!
//! A pod of it becomes ready when its node is done. A node that is down never gets there, so what takes too long is told
//! and left: the rest of the uninstallation does not depend on it.

use std::time::Duration;

use dra_runtime::chain;
use k8s_openapi::api::apps::v1::DaemonSet;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::cluster::{Cluster, RequestError};
use crate::outage::Outage;

/// How often to look.
const POLL: Duration = Duration::from_millis(500);

/// A DaemonSet that works once on every node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeWork {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub daemon_set: String,
    /// How long to wait for its work, and then for the end of its pods.
    pub patience: Duration,
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// With what was waited for.
    Done,
    /// With the patience.
    TooLong,
}

/// How far the work got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The nodes are not counted yet.
    New,
    /// This many nodes of so many are done.
    At { ready: i32, nodes: i32 },
    /// There is no such DaemonSet.
    Gone,
}

/// Waits for the work, deletes the DaemonSet with its pods, and waits for their end; how both waits ended.
pub async fn finish(cluster: &Cluster, work: &NodeWork) -> Result<[Waited; 2], RequestError> {
    let worked = wait(cluster, work, "the work on the nodes", Stage::is_done).await?;
    cluster.delete_daemon_set(&work.namespace, &work.daemon_set).await?;
    let ended = wait(cluster, work, "the end of its pods", |stage| stage == Stage::Gone).await?;
    Ok([worked, ended])
}

async fn wait(
    cluster: &Cluster,
    work: &NodeWork,
    what: &str,
    is_over: impl Fn(Stage) -> bool,
) -> Result<Waited, RequestError> {
    let end = Instant::now() + work.patience;
    let daemon_set = work.daemon_set.as_str();
    let mut outage = Outage::default();
    loop {
        let looked = cluster.daemon_set(&work.namespace, daemon_set).await;
        let late = Instant::now() >= end;
        match looked.map(|found| Stage::of(found.as_ref())) {
            Ok(stage) if is_over(stage) => {
                info!(daemon_set, ?stage, "waited for {what}");
                return Ok(Waited::Done);
            }
            Ok(stage) if late => {
                warn!(daemon_set, ?stage, "{what} takes too long, going on without");
                return Ok(Waited::TooLong);
            }
            Ok(_) => {}
            Err(error) if late || error.is_final() => return Err(error),
            Err(error) => {
                let error = chain(&error).to_string();
                if outage.is_news(&error) {
                    warn!(daemon_set, error, "unable to look (will retry)");
                }
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

impl Stage {
    /// Numbers of an older generation say nothing, and neither do those that were never written.
    fn of(daemon_set: Option<&DaemonSet>) -> Self {
        let Some(daemon_set) = daemon_set else { return Self::Gone };
        let generation = daemon_set.metadata.generation;
        match daemon_set
            .status
            .as_ref()
            .filter(|status| generation.is_some() && status.observed_generation == generation)
        {
            Some(status) => Self::At { ready: status.number_ready, nodes: status.desired_number_scheduled },
            None => Self::New,
        }
    }

    fn is_done(self) -> bool {
        match self {
            Self::New => false,
            Self::At { ready, nodes } => ready == nodes,
            Self::Gone => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn only_numbers_of_the_newest_generation_count() {
        let status = |observed: Value, nodes: i32, ready: i32| {
            json!({"observedGeneration": observed, "desiredNumberScheduled": nodes, "numberReady": ready,
                "currentNumberScheduled": 0, "numberMisscheduled": 0})
        };
        for (status, expect, done) in [
            (Value::Null, Stage::New, false),
            (status(Value::Null, 0, 0), Stage::New, false),
            (status(json!(1), 3, 3), Stage::New, false),
            (status(json!(2), 3, 2), Stage::At { ready: 2, nodes: 3 }, false),
            (status(json!(2), 3, 3), Stage::At { ready: 3, nodes: 3 }, true),
            (status(json!(2), 0, 0), Stage::At { ready: 0, nodes: 0 }, true),
        ] {
            let given = json!({"metadata": {"generation": 2}, "status": status});
            let stage = Stage::of(Some(&serde_json::from_value(given.clone()).unwrap()));
            assert_eq!((stage, stage.is_done()), (expect, done), "{given}");
        }
        assert!(Stage::of(None).is_done(), "an earlier try deleted it");
    }
}
