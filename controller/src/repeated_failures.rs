// SPDX-License-Identifier: Apache-2.0
//! What to say of something that is tried again and again: once that it fails, and once that it works again.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

/// How many causes of one failures are said and remembered; texts of others may differ each time.
const MAX_LOGGED_CAUSES: usize = 16;

/// The failures since the last success.
#[derive(Debug, Default)]
pub struct RepeatedFailures {
    since: Option<Instant>,
    logged: BTreeSet<String>,
}

impl RepeatedFailures {
    /// Notes a failure; true when people should hear of it.
    ///
    /// One failure is no failures: streams break, and the next try goes well. From the second on, every cause is news
    /// once.
    pub fn should_log(&mut self, cause: &str) -> bool {
        if self.since.is_none() {
            self.since = Some(Instant::now());
            return false;
        }
        self.logged.len() < MAX_LOGGED_CAUSES && self.logged.insert(cause.to_owned())
    }

    /// Notes a success; the length of the failures when people have logged of it.
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
        assert_eq!(causes, MAX_LOGGED_CAUSES - 2, "an failures with a cause of its own each time is not said for ever");
        assert!(failures.recovered().is_some());
        assert_eq!(failures.recovered(), None);
        assert!(!failures.should_log("refused"), "a new failures begins with one failure");
        assert_eq!(failures.recovered(), None, "which nobody logged of");
    }
}
