// SPDX-License-Identifier: Apache-2.0
//! The readiness of this process, for `/readyz`: registered with the kubelet, and reconciliations are completed. A GPU that failed does
//! not make the process unready: it is in the details, and the other GPUs are served.

use std::time::Duration;

use dra_runtime::tasks::TaskError;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::node_service::NodeState;
use crate::reconcile::RECONCILIATION_INTERVAL;

/// The longest time without a completed reconciliation.
const MAX_RECONCILIATION_AGE: Duration = RECONCILIATION_INTERVAL.saturating_mul(3);

#[derive(Debug)]
pub struct Readiness {
    /// Has the number of registrations.
    pub state: watch::Receiver<NodeState>,
    /// The time of the last completed reconciliation, at first the start of the process.
    pub reconciled: watch::Receiver<Instant>,
    /// The answer of `/readyz`.
    pub ready: watch::Sender<Result<(), String>>,
}

impl Readiness {
    /// Runs until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), TaskError> {
        // The reconciler may end before this task.
        let mut is_reconciler_over = false;
        loop {
            let is_registered = self.state.borrow_and_update().registration.count > 0;
            let due = *self.reconciled.borrow_and_update() + MAX_RECONCILIATION_AGE;
            let is_overdue = Instant::now() >= due;
            let now = readiness(is_registered, is_overdue);
            self.ready.send_if_modified(|ready| {
                let is_changed = *ready != now;
                *ready = now;
                is_changed
            });
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                changed = self.state.changed() => changed?,
                completed = self.reconciled.changed(), if !is_reconciler_over => is_reconciler_over = completed.is_err(),
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
        let minutes = MAX_RECONCILIATION_AGE.as_secs() / 60;
        return Err(format!(
            "no reconciliation of claim records, CDI specs and GPUs was completed for {minutes} minutes; see the log of this container"
        ));
    }
    Ok(())
}

/// The lines of `/readyz` below the first: how many GPUs there are, and each fault.
pub fn details(state: &NodeState) -> String {
    let Some(inventory) = &state.inventory else { return "the GPUs are not read yet\n".to_owned() };
    let unreadable = inventory.gpus.iter().filter_map(|entry| Some((entry, entry.failure()?)));
    let unreadable = unreadable.map(|(entry, failure)| {
        let id = entry.uuid().map(ToString::to_string).or_else(|| entry.pci().map(|pci| pci.to_string()));
        format!("{}: {}", id.unwrap_or_else(|| "GPU without UUID".to_owned()), failure.reason)
    });
    let findings = state.findings.iter().flat_map(|(gpu, all)| all.iter().map(move |finding| (gpu, finding)));
    let faults = findings.map(|(gpu, finding)| {
        format!("{gpu}: {} (taint {}, {})", finding.message, finding.cause.key(), finding.effect)
    });
    let lines: Vec<String> = unreadable.chain(faults).map(|line| line + "\n").collect();
    let with_faults = if lines.is_empty() { "no faults" } else { "faults:" };
    format!("GPUs: {}, {with_faults}\n{}", inventory.gpus.len(), lines.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registration::Registration;

    #[tokio::test(start_paused = true)]
    async fn a_process_is_ready_while_it_is_registered_and_completes_reconciliations() {
        let (state, node_state) = watch::channel(NodeState::default());
        let (completed, reconciled) = watch::channel(Instant::now());
        let (ready, mut answers) = watch::channel(Ok(()));
        let stop = CancellationToken::new();
        let readiness = Readiness { state: node_state, reconciled, ready };
        let task = tokio::spawn(readiness.run(stop.clone()));
        let mut next = async || {
            answers.changed().await.unwrap();
            answers.borrow_and_update().clone()
        };
        assert!(next().await.unwrap_err().contains("not registered"));
        state.send_modify(|state| state.registration = Registration { accepted: true, count: 1 });
        assert_eq!(next().await, Ok(()));
        let started = Instant::now();
        assert!(next().await.unwrap_err().contains("was completed for 15 minutes"));
        assert!(started.elapsed() >= MAX_RECONCILIATION_AGE);
        completed.send_replace(Instant::now());
        assert_eq!(next().await, Ok(()));
        drop(completed);
        assert!(next().await.unwrap_err().contains("no reconciliation"), "no reconciliation follows");
        stop.cancel();
        task.await.unwrap().unwrap();
    }
}
