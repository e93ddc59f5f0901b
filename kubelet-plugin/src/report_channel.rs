// SPDX-License-Identifier: Apache-2.0
//! The channel of reports: senders never wait for the API server, and the receiver gets what is due next.

use std::sync::Arc;
use std::time::Duration;

use dra_model::ClaimRef;
use dra_prepare::MigChange;
use futures::future::OptionFuture;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::event_text::EventText;
use crate::metrics::Metrics;
use crate::outbox::{Due, Outbox};
use crate::report::{Devices, Report};

/// The most Events about the Node that wait; a reconciliation has one.
const MAX_NODE_EVENTS: usize = 16;

#[derive(Debug, Clone)]
pub struct ReportSender {
    outbox: Arc<Mutex<Outbox>>,
    wake: mpsc::Sender<()>,
    about_node: mpsc::Sender<EventText>,
    calls: watch::Sender<usize>,
    metrics: Metrics,
}

/// A call of the kubelet in flight, until it is dropped.
#[derive(Debug)]
pub struct InFlight(watch::Sender<usize>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.send_modify(|calls| *calls = calls.saturating_sub(1));
    }
}

#[derive(Debug)]
pub struct ReportReceiver {
    outbox: Arc<Mutex<Outbox>>,
    /// Contains a message if a report was sent since the last read.
    wake: mpsc::Receiver<()>,
    /// Events about the Node.
    about_node: mpsc::Receiver<EventText>,
    /// The number of calls of the kubelet in flight.
    pub calls: watch::Receiver<usize>,
}

/// What is due next.
#[derive(Debug)]
pub enum Next {
    Claim(Due),
    /// An Event about the Node.
    Node(EventText),
}

/// `backoff` is the delay after the first failure to write a status.
pub fn report_channel(metrics: Metrics, backoff: Duration) -> (ReportSender, ReportReceiver) {
    let outbox = Arc::new(Mutex::new(Outbox::new(backoff)));
    let (wake, woken) = mpsc::channel(1);
    let (about_node, node_events) = mpsc::channel(MAX_NODE_EVENTS);
    let (sender, calls) = watch::channel(0);
    let receiver = ReportReceiver { outbox: Arc::clone(&outbox), wake: woken, about_node: node_events, calls };
    (ReportSender { outbox, wake, about_node, calls: sender, metrics }, receiver)
}

impl ReportSender {
    /// Delays reports while a call of the kubelet is in flight.
    pub fn start_call(&self) -> InFlight {
        self.calls.send_modify(|calls| *calls = calls.saturating_add(1));
        InFlight(self.calls.clone())
    }

    /// The number of calls of the kubelet in flight.
    pub fn calls(&self) -> watch::Receiver<usize> {
        self.calls.subscribe()
    }

    /// Reports the MIG devices that were created and destroyed.
    pub fn send_mig_changes(&self, changes: Vec<MigChange>) {
        for MigChange { claim, device, kind, took } in changes {
            self.metrics.mig_device(&kind, took);
            let text = EventText::MigDevice { device: device.clone(), change: kind, took };
            self.send(Report::MigDevice { claim, device, text });
        }
    }

    /// Reports an Event about the Node.
    pub fn send_about_node(&self, text: EventText) {
        if self.about_node.try_send(text).is_err() {
            self.metrics.report_dropped();
        }
    }

    pub fn send(&self, report: Report) {
        for _ in 0..self.outbox.lock().add(report, Instant::now()) {
            self.metrics.report_dropped();
        }
        // A full channel wakes the receiver already, and a closed one has no receiver.
        self.wake.try_send(()).ok();
    }
}

impl ReportReceiver {
    /// Waits until something is due. Returns nothing after the last sender was dropped.
    pub async fn next(&mut self) -> Option<Next> {
        loop {
            if let Some(due) = self.take_due() {
                return Some(Next::Claim(due));
            }
            let at: OptionFuture<_> = self.outbox.lock().next_due().map(sleep_until).into();
            tokio::select! {
                woken = self.wake.recv() => woken?,
                Some(text) = self.about_node.recv() => return Some(Next::Node(text)),
                Some(()) = at => {}
            }
        }
    }

    /// What is due now.
    pub fn take_due(&self) -> Option<Due> {
        self.outbox.lock().take_due(Instant::now())
    }

    /// The API server has the status of a claim, or the claim no longer exists.
    pub fn is_written(&self, claim: &ClaimRef) {
        self.outbox.lock().is_written(claim);
    }

    /// Schedules the status of a claim again. Returns the number of failures in a row.
    pub fn is_not_written(&self, claim: &ClaimRef, devices: Devices) -> u32 {
        self.outbox.lock().is_not_written(claim, devices, Instant::now())
    }
}
