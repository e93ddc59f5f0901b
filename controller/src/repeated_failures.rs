// SPDX-License-Identifier: Apache-2.0
//! Log messages of an operation that is retried: each cause of failure is logged once, and the recovery once.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

/// Limit of logged causes per series of failures, because the text of a cause may differ in each attempt.
const MAX_LOGGED_CAUSES: usize = 16;

/// The failures since the last success.
#[derive(Debug, Default)]
pub struct RepeatedFailures {
    since: Option<Instant>,
    logged: BTreeSet<String>,
}

impl RepeatedFailures {
    /// Records a failure; true if it must be logged.
    ///
    /// The first failure is not logged, because the next attempt usually succeeds. From the second on, each cause is logged once.
    pub fn should_log(&mut self, cause: &str) -> bool {
        if self.since.is_none() {
            self.since = Some(Instant::now());
            return false;
        }
        self.logged.len() < MAX_LOGGED_CAUSES && self.logged.insert(cause.to_owned())
    }

    /// Records a success; the time since the first failure, if a failure was logged.
    pub fn recovered(&mut self) -> Option<Duration> {
        let Self { since, logged } = std::mem::take(self);
        since.filter(|_| !logged.is_empty()).map(|since| since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_logged_once_per_cause_and_recovery_once() {
        let mut failures = RepeatedFailures::default();
        assert_eq!(failures.recovered(), None);
        let logged = ["broken", "refused", "refused", "forbidden", "refused"].map(|cause| failures.should_log(cause));
        assert_eq!(logged, [false, true, false, true, false]);
        let causes = (0..100).filter(|number| failures.should_log(&format!("cause {number}"))).count();
        assert_eq!(causes, MAX_LOGGED_CAUSES - 2, "the number of logged causes is limited");
        assert!(failures.recovered().is_some());
        assert_eq!(failures.recovered(), None);
        assert!(!failures.should_log("refused"), "the first failure of a new series is not logged");
        assert_eq!(failures.recovered(), None, "no failure was logged");
    }
}
