// SPDX-License-Identifier: Apache-2.0
//! The supervisors by id: made when a daemon is first asked for, gone with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dra_hardware::{ClaimUse, Daemon, DaemonError, DaemonSpec};
use dra_model::DaemonId;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::order::{Deadline, Order};
use crate::supervisor::Supervisor;
use crate::tools::Tools;

/// Orders that may wait for one supervisor; whoever orders more waits too.
const MOST_ORDERS: usize = 16;

/// This process stops, and its daemons with it: nothing is begun any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopping;

/// All supervisors.
#[derive(Debug)]
pub struct Roster {
    tools: Arc<Tools>,
    orders: Mutex<BTreeMap<DaemonId, mpsc::Sender<Order>>>,
}

impl Roster {
    /// Nobody yet.
    pub fn new(tools: Arc<Tools>) -> Self {
        Self { tools, orders: Mutex::default() }
    }

    /// Takes on a supervisor of a daemon that was found.
    pub fn take(&self, id: DaemonId, supervisor: Supervisor) {
        let orders = run(supervisor);
        self.orders.lock().insert(id, orders);
    }

    /// See [`dra_hardware::Daemons::start`]. A daemon that became ready while this process was told to stop ends with it, so
    /// nobody is told of it.
    pub async fn start(&self, spec: DaemonSpec, patience: Duration) -> Result<Result<Daemon, DaemonError>, Stopping> {
        let (id, by) = (spec.id.clone(), Deadline::of(patience));
        let started = self.order(&id, |answer| Order::Start { spec: spec.clone(), by, answer }).await?;
        if self.tools.stop.is_cancelled() { Err(Stopping) } else { Ok(started) }
    }

    /// See [`dra_hardware::Daemons::stop`] and [`dra_hardware::Daemons::stop_unused`].
    pub async fn stop(
        &self,
        id: &DaemonId,
        unless_used: bool,
        patience: Duration,
    ) -> Result<Result<(), DaemonError>, Stopping> {
        let by = Deadline::of(patience);
        self.order(id, |answer| Order::Stop { unless_used, by, answer }).await
    }

    /// See [`dra_hardware::Daemons::share`].
    pub async fn share(&self, id: &DaemonId, claim: &str, change: ClaimUse) -> Result<(), Stopping> {
        self.order(id, |answer| Order::Share { claim: claim.to_owned(), change, answer }).await
    }

    /// Ends the processes of all daemons side by side, and keeps their places for whoever comes next. Called when this process
    /// stops, so that no supervisor is added any more.
    pub async fn hand_over(&self, patience: Duration) {
        let by = Deadline::of(patience);
        let all: Vec<mpsc::Sender<Order>> = self.orders.lock().values().cloned().collect();
        let mut ends = JoinSet::new();
        for orders in all {
            ends.spawn(async move {
                let (answer, answered) = oneshot::channel();
                // A supervisor that has ended has no daemon.
                if orders.send(Order::HandOver { by, answer }).await.is_ok() {
                    answered.await.ok();
                }
            });
        }
        ends.join_all().await;
    }

    /// A supervisor that ends because its daemon is gone drops the orders it did not take; then another one gets them.
    async fn order<T>(&self, id: &DaemonId, order: impl Fn(oneshot::Sender<T>) -> Order) -> Result<T, Stopping> {
        loop {
            let (answer, answered) = oneshot::channel();
            let orders = self.orders_of(id)?;
            if orders.send(order(answer)).await.is_ok()
                && let Ok(answer) = answered.await
            {
                self.orders.lock().retain(|_, orders| !orders.is_closed());
                return Ok(answer);
            }
        }
    }

    /// Asks under the lock whether this process stops, so that a hand-over meets every supervisor there is.
    fn orders_of(&self, id: &DaemonId) -> Result<mpsc::Sender<Order>, Stopping> {
        let mut all = self.orders.lock();
        if self.tools.stop.is_cancelled() {
            return Err(Stopping);
        }
        if let Some(orders) = all.get(id).filter(|orders| !orders.is_closed()) {
            return Ok(orders.clone());
        }
        let orders = run(Supervisor::absent(id.clone(), Arc::clone(&self.tools)));
        all.insert(id.clone(), orders.clone());
        Ok(orders)
    }
}

/// The task ends with its daemon, or with this process.
fn run(supervisor: Supervisor) -> mpsc::Sender<Order> {
    let (sender, receiver) = mpsc::channel(MOST_ORDERS);
    tokio::spawn(supervisor.run(receiver));
    sender
}
