// SPDX-License-Identifier: Apache-2.0
//! What to say of something that is tried again and again: once that it fails, and once that it works again.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

/// How many causes of one outage are said and remembered; texts of others may differ each time.
const MOST: usize = 16;

/// The failures since the last success.
#[derive(Debug, Default)]
pub struct Outage {
    since: Option<Instant>,
    said: BTreeSet<String>,
}

impl Outage {
    /// Notes a failure; true when people should hear of it.
    ///
    /// One failure is no outage: streams break, and the next try goes well. From the second on, every cause is news
    /// once.
    pub fn is_news(&mut self, cause: &str) -> bool {
        if self.since.is_none() {
            self.since = Some(Instant::now());
            return false;
        }
        self.said.len() < MOST && self.said.insert(cause.to_owned())
    }

    /// Notes a success; the length of the outage when people have heard of it.
    pub fn over(&mut self) -> Option<Duration> {
        let Self { since, said } = std::mem::take(self);
        since.filter(|_| !said.is_empty()).map(|since| since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_said_once_per_cause_and_so_is_its_end() {
        let mut outage = Outage::default();
        assert_eq!(outage.over(), None);
        let heard = ["broken", "refused", "refused", "forbidden", "refused"].map(|cause| outage.is_news(cause));
        assert_eq!(heard, [false, true, false, true, false]);
        let causes = (0..100).filter(|number| outage.is_news(&format!("cause {number}"))).count();
        assert_eq!(causes, MOST - 2, "an outage with a cause of its own each time is not said for ever");
        assert!(outage.over().is_some());
        assert_eq!(outage.over(), None);
        assert!(!outage.is_news("refused"), "a new outage begins with one failure");
        assert_eq!(outage.over(), None, "which nobody heard of");
    }
}
