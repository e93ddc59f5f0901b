// SPDX-License-Identifier: Apache-2.0
//! How long a daemon that ended stays away: the first time not at all, longer and longer when it keeps dying.

use std::time::Duration;

/// Before the first, second, … start in a row.
const DELAYS: [Duration; 4] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];

/// A daemon that lived this long does not keep dying.
const STABLE_UPTIME: Duration = Duration::from_mins(1);

/// The deaths and failed starts of one daemon that each came soon after the last.
#[derive(Debug, Default)]
pub struct BackOff {
    attempts: usize,
}

impl BackOff {
    /// How long to wait after a uptime of this length; a start that failed is none.
    pub fn delay_after(&mut self, uptime: Duration) -> Duration {
        if uptime > STABLE_UPTIME {
            self.attempts = 0;
        }
        let delay = DELAYS.iter().take(self.attempts + 1).next_back().copied().unwrap_or_default();
        self.attempts = (self.attempts + 1).min(DELAYS.len());
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_a_daemon_lives() {
        let mut back_off = BackOff::default();
        let is_alive = [0, 1, 59, 0, 0, 61, 0, 3600];
        let delays = is_alive.map(|seconds| back_off.delay_after(Duration::from_secs(seconds)).as_secs());
        assert_eq!(delays, [0, 1, 5, 30, 30, 0, 1, 0]);
    }
}
