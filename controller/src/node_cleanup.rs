// SPDX-License-Identifier: Apache-2.0
//! Waits until the cleanup DaemonSet of an uninstallation is complete on every node, and deletes it.
//!
//! A pod of the DaemonSet is ready when the cleanup of its node is complete. A node that is down never gets ready, so after the
//! timeout its name is logged and the uninstallation continues. The logs of the pods are deleted with the pods, so the reasons of
//! failures are logged here as well.

use std::time::Duration;

use dra_model::chain;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::cluster::{Cluster, RequestError};
use crate::repeated_failures::RepeatedFailures;
use crate::workload::{ContainerStatus, DaemonSet, Pod, is_ready, node_of};

const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The DaemonSet that cleans up every node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeCleanup {
    pub namespace: String,
    pub daemon_set: String,
    /// Label selector of the pods.
    pub selector: String,
    /// Limits the wait for ready pods and then the wait for deleted pods.
    pub timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitOutcome {
    Done,
    TimedOut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The status of the DaemonSet is not up to date.
    Unobserved,
    Nodes {
        ready: i32,
        total: i32,
    },
    Deleted,
}

/// Waits for the cleanup, deletes the DaemonSet with its pods, and waits until the pods are deleted; the outcomes of both waits.
pub async fn finish(cluster: &Cluster, work: &NodeCleanup) -> Result<[WaitOutcome; 2], RequestError> {
    let worked = wait(cluster, work, "the cleanup of the nodes", Progress::is_done).await?;
    if worked == WaitOutcome::TimedOut {
        report_incomplete(cluster, work).await;
    }
    cluster.delete_daemon_set(&work.namespace, &work.daemon_set).await?;
    let ended = wait(cluster, work, "the deletion of the pods", |progress| progress == Progress::Deleted).await?;
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
                info!(daemon_set, ?progress, "{what} is complete");
                return Ok(WaitOutcome::Done);
            }
            Ok(progress) if late => {
                warn!(daemon_set, ?progress, "timed out waiting for {what}; continuing");
                return Ok(WaitOutcome::TimedOut);
            }
            Ok(_) => {}
            Err(error) if late || error.is_final() => return Err(error),
            Err(error) => {
                let error = chain(&error).to_string();
                if failures.should_log(&error) {
                    warn!(daemon_set, error, "failed to read the DaemonSet; retrying");
                }
            }
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

async fn report_incomplete(cluster: &Cluster, work: &NodeCleanup) {
    let pods = match cluster.pods(&work.namespace, &work.selector).await {
        Ok(pods) => pods,
        Err(error) => return warn!(error = %chain(&error), "failed to list the pods of the cleanup"),
    };
    for pod in pods.iter().filter(|pod| !is_ready(pod)) {
        let node = node_of(pod).unwrap_or("none");
        let reason =
            failure_of(pod).unwrap_or_else(|| "the node does not respond, or the pod did not start".to_owned());
        warn!(
            node,
            reason,
            "cleanup of this node is incomplete: MPS daemons may still run, GPUs keep the settings of claims; reinstall the chart to repair"
        );
    }
}

/// The termination message of the init container that failed last: its warnings and errors, or the whole text if it has none.
fn failure_of(pod: &Pod) -> Option<String> {
    let message = pod.status.as_ref()?.init_container_statuses.iter().find_map(termination_message)?;
    let is_bad = |line: &&str| ["WARN", "ERROR"].iter().any(|level| line.contains(level));
    let bad: Vec<_> = message.lines().filter(is_bad).map(str::trim).collect();
    Some(if bad.is_empty() { message.trim().replace('\n', "; ") } else { bad.join("; ") })
}

fn termination_message(status: &ContainerStatus) -> Option<&str> {
    let ends = [&status.state, &status.last_state].into_iter().filter_map(|state| state.terminated.as_ref());
    ends.filter(|end| end.exit_code != 0).find_map(|end| end.message.as_deref())
}

impl Progress {
    /// Status of an older generation, or without a generation, is not up to date.
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
        let pod = |status: Value| {
            serde_json::from_value::<Pod>(json!({ "metadata": {}, "spec": {}, "status": status })).unwrap()
        };
        let ended = |code: i32, message: &str| json!({"terminated": {"exitCode": code, "message": message}});
        let restore = |state: Value, last: Value| {
            let status = json!({"name": "restore", "image": "", "imageID": "", "ready": false, "restartCount": 1,
                "state": state, "lastState": last});
            pod(json!({ "initContainerStatuses": [status] }))
        };
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let log = "T  INFO checked\nT  WARN daemon left\nT  INFO restored\nT ERROR GPU left\n";
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
            let given = json!({"metadata": {"generation": 2}, "spec": {}, "status": status});
            let progress = Progress::of(Some(&serde_json::from_value(given.clone()).unwrap()));
            assert_eq!((progress, progress.is_done()), (expect, done), "{given}");
        }
        assert!(Progress::of(None).is_done(), "an earlier attempt deleted it");
    }
}
