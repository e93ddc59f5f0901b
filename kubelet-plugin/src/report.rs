// SPDX-License-Identifier: Apache-2.0
//! What users are told of claims, and the short queue in which that waits for the API server without delaying a prepare.

use dra_model::{ClaimRef, Disposition};
use dra_prepare::PreparedDevice;
use dra_resource::status::DaemonStatus;
use tokio::sync::{mpsc, watch};

use crate::metrics::Metrics;

/// How many reports may wait.
const MOST: usize = 256;

/// One thing to tell.
#[derive(Debug, Clone)]
pub enum Report {
    /// The claim can be used.
    Prepared {
        /// The claim.
        claim: ClaimRef,
        /// Its devices and what they are in this incarnation.
        devices: Vec<PreparedDevice>,
        /// Whether it was not prepared before the call. It may have been deallocated since the last report of it, and the API
        /// server drops the statuses of its devices then.
        is_new: bool,
    },
    /// The claim could not be prepared.
    Failed {
        /// The claim.
        claim: ClaimRef,
        /// The sentence the pod's event shows as well.
        text: String,
        /// Gives the Event its reason.
        disposition: Disposition,
    },
    /// The MPS daemon of the claim is not as it was.
    Daemon {
        /// The claim.
        claim: ClaimRef,
        /// Its devices.
        devices: Vec<PreparedDevice>,
        /// How the daemon is now.
        daemon: DaemonStatus,
    },
    /// What the claim's status says of its MPS daemon may be no longer so.
    Status {
        /// The claim.
        claim: ClaimRef,
        /// Its devices.
        devices: Vec<PreparedDevice>,
    },
    /// Somebody changed a setting that the claim relies on.
    Drift {
        /// The claim.
        claim: ClaimRef,
        /// What is there and what the claim needs.
        text: String,
    },
}

/// Where reports are handed in.
#[derive(Debug, Clone)]
pub struct ReportSender {
    queue: mpsc::Sender<Report>,
    working: watch::Sender<usize>,
    metrics: Metrics,
}

/// The kubelet waits for an answer as long as this lives.
#[derive(Debug)]
pub struct Working(watch::Sender<usize>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.send_modify(|calls| *calls = calls.saturating_sub(1));
    }
}

/// Reports that wait, and how many calls the kubelet waits for.
#[derive(Debug)]
pub struct Reports {
    /// In the order they were handed in.
    pub queue: mpsc::Receiver<Report>,
    /// Calls in flight, and whenever that changes.
    pub calls: watch::Receiver<usize>,
}

/// A place to hand reports in, and where they come out.
pub fn reports(metrics: Metrics) -> (ReportSender, Reports) {
    let (sender, queue) = mpsc::channel(MOST);
    let (working, calls) = watch::channel(0);
    (ReportSender { queue: sender, working, metrics }, Reports { queue, calls })
}

impl ReportSender {
    /// Lets reports wait while the API server and this process have pods to start.
    pub fn working(&self) -> Working {
        self.working.send_modify(|calls| *calls = calls.saturating_add(1));
        Working(self.working.clone())
    }

    /// How many calls of the kubelet are in flight, and whenever that changes.
    pub fn calls(&self) -> watch::Receiver<usize> {
        self.working.subscribe()
    }

    /// Hands a report in, or gives it up when too many wait.
    pub fn send(&self, report: Report) {
        if self.queue.try_send(report).is_err() {
            self.metrics.report_dropped();
        }
    }
}
