// SPDX-License-Identifier: Apache-2.0
//! The supervisors by id: made when a daemon is first asked for, exited with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dra_hardware::{ClaimUse, Daemon, DaemonError, DaemonSpec};
use dra_model::DaemonId;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::context::Context;
use crate::request::{Deadline, Request};
use crate::supervisor::Supervisor;

/// Orders that may wait for one supervisor; whoever requests more waits too.
const MAX_QUEUED: usize = 16;

/// This process stops, and its daemons with it: nothing is begun any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopping;

/// All supervisors.
#[derive(Debug)]
pub struct DaemonRegistry {
    context: Arc<Context>,
    requests: Mutex<BTreeMap<DaemonId, mpsc::Sender<Request>>>,
}

impl DaemonRegistry {
    /// Nobody yet.
    pub fn new(context: Arc<Context>) -> Self {
        Self { context, requests: Mutex::default() }
    }

    /// Takes on a supervisor of a daemon that was found.
    pub fn insert(&self, id: DaemonId, supervisor: Supervisor) {
        let requests = run(supervisor);
        self.requests.lock().insert(id, requests);
    }

    /// See [`dra_hardware::Daemons::start`]. A daemon that became ready while this process was told to stop ends with it, so
    /// nobody is told of it.
    pub async fn start(&self, spec: DaemonSpec, timeout: Duration) -> Result<Result<Daemon, DaemonError>, Stopping> {
        let (id, deadline) = (spec.id.clone(), Deadline::of(timeout));
        let started = self.request(&id, |reply| Request::Start { spec: spec.clone(), deadline, reply }).await?;
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

    /// See [`dra_hardware::Daemons::share`].
    pub async fn share(&self, id: &DaemonId, claim: &str, change: ClaimUse) -> Result<(), Stopping> {
        self.request(id, |reply| Request::Share { claim: claim.to_owned(), change, reply }).await
    }

    /// Ends the processes of all daemons side by side, and keeps their places for whoever comes next. Called when this process
    /// stops, so that no supervisor is added any more.
    pub async fn shut_down(&self, timeout: Duration) {
        let deadline = Deadline::of(timeout);
        let all: Vec<mpsc::Sender<Request>> = self.requests.lock().values().cloned().collect();
        let mut ends = JoinSet::new();
        for requests in all {
            ends.spawn(async move {
                let (reply, replied) = oneshot::channel();
                // A supervisor that has ended has no daemon.
                if requests.send(Request::Shutdown { deadline, reply }).await.is_ok() {
                    replied.await.ok();
                }
            });
        }
        ends.join_all().await;
    }

    /// A supervisor that ends because its daemon is exited drops the requests it did not insert; then another one gets them.
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

    /// Asks under the lock whether this process stops, so that a hand-over meets every supervisor there is.
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

/// The task ends with its daemon, or with this process.
fn run(supervisor: Supervisor) -> mpsc::Sender<Request> {
    let (sender, receiver) = mpsc::channel(MAX_QUEUED);
    tokio::spawn(supervisor.run(receiver));
    sender
}
