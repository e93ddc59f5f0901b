// SPDX-License-Identifier: Apache-2.0
//! Until when a call must have its answer, handed down to everything that waits on its behalf.
//!
//! Each wait has a limit of its own and gets that or what is left of the call, whichever is less, so that limits do not add
//! up beyond what the caller waits. Background work has no deadline and only the limits of each wait.

use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// For background work.
    pub fn none() -> Self {
        Self(None)
    }

    /// Whether somebody waits for an answer at all.
    pub fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// For a call that arrives now.
    pub fn after(limit: Duration) -> Self {
        Self(Instant::now().checked_add(limit))
    }

    /// How long a wait may take whose own limit is `own`; zero once the deadline is over.
    pub fn limit(&self, own: Duration) -> Duration {
        self.0.map_or(own, |at| at.saturating_duration_since(Instant::now()).min(own))
    }

    /// Whether nothing may be waited for any more.
    pub fn is_over(&self) -> bool {
        self.0.is_some_and(|at| at <= Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_gets_its_own_limit_or_what_is_left_whichever_is_less() {
        let (short, long) = (Duration::from_secs(1), Duration::from_secs(100));
        let deadline = Deadline::after(Duration::from_secs(50));
        assert_eq!(deadline.limit(short), short);
        assert!(deadline.limit(long) <= Duration::from_secs(50) && !deadline.is_over());
        let over = Deadline::after(Duration::ZERO);
        assert_eq!((over.limit(short), over.is_over()), (Duration::ZERO, true));
        assert_eq!((Deadline::none().limit(long), Deadline::none().is_over()), (long, false));
    }
}
