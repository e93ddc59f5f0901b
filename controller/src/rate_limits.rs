// SPDX-License-Identifier: Apache-2.0
//! How fast things may be repeated: growing delays after failures, a budget for writes, and a little chance, so that
//! a thousand nodes do not do the same thing at the same moment.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use tokio::time::Instant;

/// Delays that double up to a maximum, each with up to a quarter of chance added.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Delays from `first` to `longest`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    /// The next delay.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = delay.saturating_mul(2).min(self.max);
        delay + random_between(Duration::ZERO, delay / 4)
    }

    /// Begins anew after a success.
    pub fn reset(&mut self) {
        self.next = self.min;
    }
}

/// Allows a burst and then one thing per interval, so that two writers who disagree do not flood the API server.
#[derive(Debug)]
pub struct RateLimit {
    interval: Duration,
    burst: u32,
    spent_until: Instant,
}

impl RateLimit {
    /// Allows `burst` things at once and one more per `interval`.
    pub fn new(burst: u32, interval: Duration) -> Self {
        Self { interval, burst, spent_until: Instant::now() }
    }

    /// Takes one and tells how long to wait before using it.
    pub fn reserve(&mut self, now: Instant) -> Duration {
        self.spent_until = self.spent_until.max(now) + self.interval;
        let credit = self.interval.saturating_mul(self.burst);
        self.spent_until.saturating_duration_since(now).saturating_sub(credit)
    }
}

/// A random duration in a range.
pub fn random_between(min: Duration, max: Duration) -> Duration {
    // The keys of a new RandomState are the standard library's only source of chance, and enough for this.
    let chance = RandomState::new().build_hasher().finish() % 1024;
    let step = max.saturating_sub(min) / 1024;
    min + step.saturating_mul(u32::try_from(chance).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum_and_start_again() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, second * 5);
        for expect in [1, 2, 4, 5, 5] {
            let delay = backoff.next_delay();
            assert!(delay >= second * expect && delay <= second * expect * 5 / 4, "{delay:?}");
        }
        backoff.reset();
        assert!(backoff.next_delay() < second * 2);
    }

    #[test]
    fn a_rate_limit_allows_a_burst_and_then_a_rate() {
        let mut write_limit = RateLimit::new(2, Duration::from_secs(1));
        let now = Instant::now();
        assert_eq!(write_limit.reserve(now), Duration::ZERO);
        assert!(write_limit.reserve(now) <= Duration::from_millis(1));
        assert!(write_limit.reserve(now) > Duration::from_millis(900));
        assert_eq!(write_limit.reserve(now + Duration::from_secs(10)), Duration::ZERO);
    }
}
