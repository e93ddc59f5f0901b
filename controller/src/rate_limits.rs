// SPDX-License-Identifier: Apache-2.0
//! Delays between retries, a limit for the rate of writes, and jitter, so that the controllers of many nodes do not send requests at
//! the same time.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use tokio::time::Instant;

/// Exponential backoff: delays that double up to a maximum, each with a jitter of up to a quarter.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    pub fn next_delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = delay.saturating_mul(2).min(self.max);
        delay + random_between(Duration::ZERO, delay / 4)
    }

    /// Starts again with the first delay, after a success.
    pub fn reset(&mut self) {
        self.next = self.min;
    }
}

/// Allows a burst and then one operation per interval, so that two controllers that overwrite each other do not flood the API server.
#[derive(Debug)]
pub struct RateLimit {
    interval: Duration,
    burst: u32,
    spent_until: Instant,
}

impl RateLimit {
    /// Allows `burst` operations at once and one more per `interval`.
    pub fn new(burst: u32, interval: Duration) -> Self {
        Self { interval, burst, spent_until: Instant::now() }
    }

    /// Reserves one operation and returns the delay before it may start.
    pub fn reserve(&mut self, now: Instant) -> Duration {
        self.spent_until = self.spent_until.max(now) + self.interval;
        let credit = self.interval.saturating_mul(self.burst);
        self.spent_until.saturating_duration_since(now).saturating_sub(credit)
    }
}

pub fn random_between(min: Duration, max: Duration) -> Duration {
    // The keys of a new RandomState are the only source of randomness in the standard library, sufficient for jitter.
    let random = RandomState::new().build_hasher().finish() % 1024;
    let step = max.saturating_sub(min) / 1024;
    min + step.saturating_mul(u32::try_from(random).unwrap_or(0))
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
