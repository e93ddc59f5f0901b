// SPDX-License-Identifier: Apache-2.0
//! Whether this process does its work, for `/readyz`: it was registered with the kubelet, and the node is looked after.

use std::time::Duration;

use dra_runtime::tasks::TaskError;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::node_service::NodeState;
use crate::reconcile::PERIOD;

/// How long no round of the reconciliation may be completed.
const OVERDUE: Duration = PERIOD.saturating_mul(3);

/// Runs until it is stopped.
#[derive(Debug)]
pub struct Readiness {
    /// How often the kubelet accepted this process.
    pub state: watch::Receiver<NodeState>,
    /// When the last round of the reconciliation was completed, or the process began.
    pub last_round: watch::Receiver<Instant>,
    /// What `/readyz` says.
    pub ready: watch::Sender<Result<(), String>>,
}

impl Readiness {
    /// Says so whenever it changes.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), TaskError> {
        // Whoever completes rounds may end; then there are no more.
        let mut are_rounds_over = false;
        loop {
            let is_registered = self.state.borrow_and_update().registration.count > 0;
            let due = *self.last_round.borrow_and_update() + OVERDUE;
            let is_overdue = Instant::now() >= due;
            let now = readiness(is_registered, is_overdue);
            self.ready.send_if_modified(|ready| {
                let is_news = *ready != now;
                *ready = now;
                is_news
            });
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                changed = self.state.changed() => changed?,
                completed = self.last_round.changed(), if !are_rounds_over => are_rounds_over = completed.is_err(),
                () = sleep_until(due), if !is_overdue => {}
            }
        }
    }
}

fn readiness(is_registered: bool, is_overdue: bool) -> Result<(), String> {
    if !is_registered {
        return Err("not registered with the kubelet yet".to_owned());
    }
    if is_overdue {
        let minutes = OVERDUE.as_secs() / 60;
        return Err(format!(
            "records, CDI specs and GPUs were not looked after for {minutes} minutes: the log of this container says why"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registration::Registration;

    #[tokio::test(start_paused = true)]
    async fn a_process_is_ready_while_it_is_registered_and_rounds_are_completed() {
        let (state, node_state) = watch::channel(NodeState::default());
        let (completed, last_round) = watch::channel(Instant::now());
        let (ready, mut said) = watch::channel(Ok(()));
        let stop = CancellationToken::new();
        let readiness = Readiness { state: node_state, last_round, ready };
        let task = tokio::spawn(readiness.run(stop.clone()));
        let mut next = async || {
            said.changed().await.unwrap();
            said.borrow_and_update().clone()
        };
        assert!(next().await.unwrap_err().contains("not registered"));
        state.send_modify(|state| state.registration = Registration { accepted: true, count: 1 });
        assert_eq!(next().await, Ok(()));
        let began = Instant::now();
        assert!(next().await.unwrap_err().contains("not looked after for 15 minutes"));
        assert!(began.elapsed() >= OVERDUE);
        completed.send_replace(Instant::now());
        assert_eq!(next().await, Ok(()));
        drop(completed);
        assert!(next().await.unwrap_err().contains("not looked after"), "no round will come any more");
        stop.cancel();
        task.await.unwrap().unwrap();
    }
}
