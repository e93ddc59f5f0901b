// SPDX-License-Identifier: Apache-2.0
//! The supervisors by daemon id: made at the first request for a daemon, removed with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dra_hardware::{Daemon, DaemonError, DaemonSpec};
use dra_model::DaemonId;
use dra_mps_api::FailedDaemons;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::context::Context;
use crate::request::{Deadline, Request};
use crate::supervisor::Supervisor;

/// Requests in the queue of one supervisor; further callers wait.
const MAX_QUEUED: usize = 16;

/// This process stops: no request is served any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopping;

/// The supervisors of all daemons.
#[derive(Debug)]
pub struct DaemonRegistry {
    context: Arc<Context>,
    requests: Mutex<BTreeMap<DaemonId, mpsc::Sender<Request>>>,
}

impl DaemonRegistry {
    pub fn new(context: Arc<Context>) -> Self {
        Self { context, requests: Mutex::default() }
    }

    /// Adds the supervisor of an adopted daemon.
    pub fn insert(&self, id: DaemonId, supervisor: Supervisor) {
        let requests = run(supervisor);
        self.requests.lock().insert(id, requests);
    }

    /// See [`dra_hardware::Daemons::start`]. A daemon that becomes ready while this process stops is terminated with it and
    /// is not returned.
    pub async fn start(
        &self,
        spec: DaemonSpec,
        sharer: Option<String>,
        timeout: Duration,
    ) -> Result<Result<Daemon, DaemonError>, Stopping> {
        let (id, deadline) = (spec.id.clone(), Deadline::of(timeout));
        let start = |reply| Request::Start { spec: spec.clone(), sharer: sharer.clone(), deadline, reply };
        let started = self.request(&id, start).await?;
        if self.context.stop.is_cancelled() { Err(Stopping) } else { Ok(started) }
    }

    /// See [`dra_hardware::Daemons::stop`] and [`dra_hardware::Daemons::stop_unused`].
    pub async fn stop(
        &self,
        id: &DaemonId,
        unless_used: bool,
        timeout: Duration,
    ) -> Result<Result<(), DaemonError>, Stopping> {
        let deadline = Deadline::of(timeout);
        self.request(id, |reply| Request::Stop { unless_used, deadline, reply }).await
    }

    /// See [`dra_hardware::Daemons::leave`].
    pub async fn leave(&self, id: &DaemonId, claim: &str) -> Result<(), Stopping> {
        self.request(id, |reply| Request::Leave { claim: claim.to_owned(), reply }).await
    }

    /// Replaces the daemons that must not run because their GPU failed. Their supervisors end them after this call.
    pub fn set_failed(&self, failed: FailedDaemons) -> Result<(), Stopping> {
        if self.context.stop.is_cancelled() {
            return Err(Stopping);
        }
        self.context.gpu_faults.set(failed);
        Ok(())
    }

    /// Terminates the processes of all daemons in parallel, and keeps their directories for the next process. Runs while this
    /// process stops, so that no supervisor is added any more.
    pub async fn shut_down(&self, timeout: Duration) {
        let deadline = Deadline::of(timeout);
        let all: Vec<mpsc::Sender<Request>> = self.requests.lock().values().cloned().collect();
        let mut shutdowns = JoinSet::new();
        for requests in all {
            shutdowns.spawn(async move {
                let (reply, replied) = oneshot::channel();
                // A closed queue belongs to a removed daemon.
                if requests.send(Request::Shutdown { deadline, reply }).await.is_ok() {
                    replied.await.ok();
                }
            });
        }
        shutdowns.join_all().await;
    }

    /// The supervisor of a removed daemon drops the requests in its queue; they go to a new supervisor.
    async fn request<T>(&self, id: &DaemonId, request: impl Fn(oneshot::Sender<T>) -> Request) -> Result<T, Stopping> {
        loop {
            let (reply, replied) = oneshot::channel();
            let requests = self.requests_to(id)?;
            if requests.send(request(reply)).await.is_ok()
                && let Ok(reply) = replied.await
            {
                self.requests.lock().retain(|_, requests| !requests.is_closed());
                return Ok(reply);
            }
        }
    }

    /// Checks under the lock whether this process stops, so that a shutdown reaches every supervisor.
    fn requests_to(&self, id: &DaemonId) -> Result<mpsc::Sender<Request>, Stopping> {
        let mut all = self.requests.lock();
        if self.context.stop.is_cancelled() {
            return Err(Stopping);
        }
        if let Some(requests) = all.get(id).filter(|requests| !requests.is_closed()) {
            return Ok(requests.clone());
        }
        let requests = run(Supervisor::absent(id.clone(), Arc::clone(&self.context)));
        all.insert(id.clone(), requests.clone());
        Ok(requests)
    }
}

/// Runs a supervisor as a task until its daemon is removed or this process ends.
fn run(supervisor: Supervisor) -> mpsc::Sender<Request> {
    let (sender, receiver) = mpsc::channel(MAX_QUEUED);
    tokio::spawn(supervisor.run(receiver));
    sender
}
