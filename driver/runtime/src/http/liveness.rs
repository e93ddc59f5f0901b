// SPDX-License-Identifier: Apache-2.0
//! A check from another thread that the runtime of a process runs its tasks.
//!
//! Concurrent checks share one pending request, so that checks of a blocked runtime need no memory.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// Shorter than the timeout of a liveness probe.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

/// The checking side.
#[derive(Debug)]
pub(super) struct Liveness {
    asked: watch::Sender<u64>,
    answered: watch::Receiver<u64>,
}

/// A check, and the future that the checked runtime must run.
pub(super) fn liveness() -> (Liveness, impl Future<Output = Infallible>) {
    let (asked, mut questions) = watch::channel(0);
    let (answers, answered) = watch::channel(0);
    let responder = async move {
        while questions.changed().await.is_ok() {
            answers.send_replace(*questions.borrow_and_update());
        }
        std::future::pending().await
    };
    (Liveness { asked, answered }, responder)
}

impl Liveness {
    /// False if the runtime does not respond in time.
    pub(super) async fn responds(&self) -> bool {
        let mut question = 0;
        self.asked.send_modify(|asked| {
            *asked += 1;
            question = *asked;
        });
        let mut answered = self.answered.clone();
        let answer = timeout(ANSWER_TIMEOUT, answered.wait_for(|answered| *answered >= question)).await;
        answer.is_ok_and(|answered| answered.is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_runtime_that_runs_answers_and_one_that_hangs_does_not() {
        let (liveness, responder) = liveness();
        assert!(!liveness.responds().await);
        let responding = tokio::spawn(responder);
        assert!(liveness.responds().await && liveness.responds().await);
        responding.abort();
        assert!(!liveness.responds().await);
    }
}
