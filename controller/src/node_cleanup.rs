// SPDX-License-Identifier: Apache-2.0
//! Waits until a DaemonSet has done its work on every node, and deletes it, for when the driver is uninstalled.
//!
//! A pod of it becomes ready when its node is done. A node that is down never gets there, so what takes too long is told
//! with the name of the node and left: the rest of the uninstallation does not depend on it. The pods are gone after that, and
//! their logs with them, so what they said of a failure is told as well.

use std::time::Duration;

use dra_model::chain;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::check::{is_ready, node_of};
use crate::cluster::{Cluster, RequestError};
use crate::repeated_failures::RepeatedFailures;

/// How often to look.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// A DaemonSet that works once on every node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeCleanup {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub daemon_set: String,
    /// Label selector of its pods.
    pub selector: String,
    /// How long to wait for its work, and then for the end of its pods.
    pub timeout: Duration,
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitOutcome {
    /// With what was waited for.
    Done,
    /// With the patience.
    TimedOut,
}

/// How far the work got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The nodes are not counted yet.
    Unobserved,
    /// This many nodes of so many are done.
    Nodes { ready: i32, total: i32 },
    /// There is no such DaemonSet.
    Deleted,
}

/// Waits for the work, deletes the DaemonSet with its pods, and waits for their end; how both waits ended.
pub async fn finish(cluster: &Cluster, work: &NodeCleanup) -> Result<[WaitOutcome; 2], RequestError> {
    let worked = wait(cluster, work, "the work on the nodes", Progress::is_done).await?;
    if worked == WaitOutcome::TimedOut {
        report_incomplete(cluster, work).await;
    }
    cluster.delete_daemon_set(&work.namespace, &work.daemon_set).await?;
    let ended = wait(cluster, work, "the end of its pods", |progress| progress == Progress::Deleted).await?;
    Ok([worked, ended])
}

async fn wait(
    cluster: &Cluster,
    work: &NodeCleanup,
    what: &str,
    is_over: impl Fn(Progress) -> bool,
) -> Result<WaitOutcome, RequestError> {
    let end = Instant::now() + work.timeout;
    let daemon_set = work.daemon_set.as_str();
    let mut failures = RepeatedFailures::default();
    loop {
        let found = cluster.daemon_set(&work.namespace, daemon_set).await;
        let late = Instant::now() >= end;
        match found.map(|found| Progress::of(found.as_ref())) {
            Ok(progress) if is_over(progress) => {
                info!(daemon_set, ?progress, "waited for {what}");
                return Ok(WaitOutcome::Done);
            }
            Ok(progress) if late => {
                warn!(daemon_set, ?progress, "{what} takes too long, going on without");
                return Ok(WaitOutcome::TimedOut);
            }
            Ok(_) => {}
            Err(error) if late || error.is_final() => return Err(error),
            Err(error) => {
                let error = chain(&error).to_string();
                if failures.should_log(&error) {
                    warn!(daemon_set, error, "unable to look (will retry)");
                }
            }
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

async fn report_incomplete(cluster: &Cluster, work: &NodeCleanup) {
    let pods = match cluster.pods(&work.namespace, &work.selector).await {
        Ok(pods) => pods,
        Err(error) => return warn!(error = %chain(&error), "unable to look which nodes are left"),
    };
    for pod in pods.iter().filter(|pod| !is_ready(pod)) {
        let node = node_of(pod).unwrap_or("none");
        let reason = failure_of(pod).unwrap_or_else(|| "it does not answer, or its pod did not start".to_owned());
        warn!(
            node,
            reason,
            "not done on this node: MPS daemons may run on, and GPUs keep the settings of claims; install again to repair it"
        );
    }
}

/// What its containers said when they failed last: warnings and errors, or else everything.
fn failure_of(pod: &Pod) -> Option<String> {
    let statuses = pod.status.as_ref()?.init_container_statuses.as_deref().unwrap_or_default();
    let said = statuses.iter().find_map(termination_message)?;
    let is_bad = |line: &&str| ["WARN", "ERROR"].iter().any(|level| line.contains(level));
    let bad: Vec<_> = said.lines().filter(is_bad).map(str::trim).collect();
    Some(if bad.is_empty() { said.trim().replace('\n', "; ") } else { bad.join("; ") })
}

fn termination_message(status: &ContainerStatus) -> Option<&str> {
    let both = [status.state.as_ref(), status.last_state.as_ref()];
    let ends = both.into_iter().flatten().filter_map(|state| state.terminated.as_ref());
    ends.filter(|end| end.exit_code != 0).find_map(|end| end.message.as_deref())
}

impl Progress {
    /// Numbers of an older generation say nothing, and neither do those that were never written.
    fn of(daemon_set: Option<&DaemonSet>) -> Self {
        let Some(daemon_set) = daemon_set else { return Self::Deleted };
        let generation = daemon_set.metadata.generation;
        match daemon_set
            .status
            .as_ref()
            .filter(|status| generation.is_some() && status.observed_generation == generation)
        {
            Some(status) => Self::Nodes { ready: status.number_ready, total: status.desired_number_scheduled },
            None => Self::Unobserved,
        }
    }

    fn is_done(self) -> bool {
        match self {
            Self::Unobserved => false,
            Self::Nodes { ready, total } => ready == total,
            Self::Deleted => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn warnings_and_errors_of_a_failed_container_are_its_reason() {
        let pod = |status: Value| serde_json::from_value::<Pod>(json!({ "status": status })).unwrap();
        let ended = |code: i32, message: &str| json!({"terminated": {"exitCode": code, "message": message}});
        let restore = |state: Value, last: Value| {
            let status = json!({"name": "restore", "image": "", "imageID": "", "ready": false, "restartCount": 1,
                "state": state, "lastState": last});
            pod(json!({ "initContainerStatuses": [status] }))
        };
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let log = "T  INFO looked\nT  WARN daemon left\nT  INFO restored\nT ERROR GPU left\n";
        for (given, expect) in [
            (restore(waiting.clone(), ended(1, log)), Some("T  WARN daemon left; T ERROR GPU left")),
            (restore(ended(1, "killed\nby hand"), json!({})), Some("killed; by hand")),
            (restore(ended(0, log), json!({})), None),
            (restore(waiting, json!({})), None),
            (pod(json!({})), None),
        ] {
            assert_eq!(failure_of(&given).as_deref(), expect, "{given:?}");
        }
    }

    #[test]
    fn only_status_of_the_newest_generation_counts() {
        let status = |observed: Value, nodes: i32, ready: i32| {
            json!({"observedGeneration": observed, "desiredNumberScheduled": nodes, "numberReady": ready,
                "currentNumberScheduled": 0, "numberMisscheduled": 0})
        };
        for (status, expect, done) in [
            (Value::Null, Progress::Unobserved, false),
            (status(Value::Null, 0, 0), Progress::Unobserved, false),
            (status(json!(1), 3, 3), Progress::Unobserved, false),
            (status(json!(2), 3, 2), Progress::Nodes { ready: 2, total: 3 }, false),
            (status(json!(2), 3, 3), Progress::Nodes { ready: 3, total: 3 }, true),
            (status(json!(2), 0, 0), Progress::Nodes { ready: 0, total: 0 }, true),
        ] {
            let given = json!({"metadata": {"generation": 2}, "status": status});
            let progress = Progress::of(Some(&serde_json::from_value(given.clone()).unwrap()));
            assert_eq!((progress, progress.is_done()), (expect, done), "{given}");
        }
        assert!(Progress::of(None).is_done(), "an earlier try deleted it");
    }
}
