// SPDX-License-Identifier: Apache-2.0
//! What users are told of claims, and how that waits for the API server without delaying a prepare.

use std::sync::Arc;
use std::time::Duration;

use dra_hardware::Setting;
use dra_model::{ClaimRef, Disposition, GpuUuid};
use dra_prepare::PreparedDevice;
use dra_resource::status::DaemonStatus;
use futures::future::OptionFuture;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::metrics::Metrics;
use crate::outbox::{Devices, Due, Outbox};

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
    /// Configurations of the claim do not count for some of its shares.
    ConfigIgnored {
        /// The claim.
        claim: ClaimRef,
        /// Which, and why.
        text: String,
    },
    /// The claim is the last one of a pod whose claims do not go together in one container.
    Pod {
        /// The claim.
        claim: ClaimRef,
        /// The reason of the Event.
        reason: &'static str,
        /// Which claims, and what to do.
        text: String,
    },
    /// The claim could not be prepared.
    Failed {
        /// The claim.
        claim: ClaimRef,
        /// The sentence the pod's event shows as well.
        text: String,
        /// Gives the Event its reason.
        disposition: Disposition,
        /// The claim of another namespace that is in the way, which the sentence does not name.
        unnamed_holder: Option<String>,
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
        /// Of which GPU.
        gpu: GpuUuid,
        /// Which setting.
        setting: Setting,
        /// What is there and what the claim needs.
        text: String,
    },
    /// The claim was unprepared.
    Unprepared {
        /// The claim.
        claim: ClaimRef,
    },
}

impl Report {
    /// The claim.
    pub fn claim(&self) -> &ClaimRef {
        match self {
            Self::Prepared { claim, .. }
            | Self::ConfigIgnored { claim, .. }
            | Self::Pod { claim, .. }
            | Self::Failed { claim, .. }
            | Self::Daemon { claim, .. }
            | Self::Status { claim, .. }
            | Self::Drift { claim, .. }
            | Self::Unprepared { claim } => claim,
        }
    }
}

/// Where reports are handed in.
#[derive(Debug, Clone)]
pub struct ReportSender {
    outbox: Arc<Mutex<Outbox>>,
    wake: mpsc::Sender<()>,
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

/// What is to be written, and how many calls the kubelet waits for.
#[derive(Debug)]
pub struct Reports {
    outbox: Arc<Mutex<Outbox>>,
    /// Holds something when a report came since the last look.
    wake: mpsc::Receiver<()>,
    /// Calls in flight, and whenever that changes.
    pub calls: watch::Receiver<usize>,
}

/// A place to hand reports in, and where they come out; `backoff` is the first pause of a claim whose status is not taken.
pub fn reports(metrics: Metrics, backoff: Duration) -> (ReportSender, Reports) {
    let outbox = Arc::new(Mutex::new(Outbox::new(backoff)));
    let (sender, wake) = mpsc::channel(1);
    let (working, calls) = watch::channel(0);
    (ReportSender { outbox: Arc::clone(&outbox), wake: sender, working, metrics }, Reports { outbox, wake, calls })
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

    /// Hands a report in.
    pub fn send(&self, report: Report) {
        for _ in 0..self.outbox.lock().add(report, Instant::now()) {
            self.metrics.report_dropped();
        }
        // A full channel wakes the reporter already, and a closed one has none.
        self.wake.try_send(()).ok();
    }
}

impl Reports {
    /// Waits for what is due next; nothing when no report can come any more.
    pub async fn next(&mut self) -> Option<Due> {
        loop {
            if let Some(due) = self.take_due() {
                return Some(due);
            }
            let at: OptionFuture<_> = self.outbox.lock().next_due().map(sleep_until).into();
            tokio::select! {
                woken = self.wake.recv() => woken?,
                Some(()) = at => {}
            }
        }
    }

    /// What is due now.
    pub fn take_due(&self) -> Option<Due> {
        self.outbox.lock().take_due(Instant::now())
    }

    /// The status of a claim was taken, or the claim it was for is no more.
    pub fn is_written(&self, claim: &ClaimRef) {
        self.outbox.lock().is_written(claim);
    }

    /// The status of a claim could not be written, and is due again later; says how often in a row.
    pub fn is_not_written(&self, claim: &ClaimRef, devices: Devices) -> u32 {
        self.outbox.lock().is_not_written(claim, devices, Instant::now())
    }
}
