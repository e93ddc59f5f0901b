// SPDX-License-Identifier: Apache-2.0
//! The delay before an exited daemon restarts: none the first time, longer after each further exit.

use std::time::Duration;

/// Delay before the first, second, … restart in a row.
const DELAYS: [Duration; 4] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];

/// Uptime after which the count begins again.
const STABLE_UPTIME: Duration = Duration::from_mins(1);

/// The exits and failed starts in a row of one daemon.
#[derive(Debug, Default)]
pub struct BackOff {
    attempts: usize,
}

impl BackOff {
    /// The delay after an exit with this uptime; a failed start has none.
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
    fn delays_grow_until_a_daemon_is_stable() {
        let mut back_off = BackOff::default();
        let is_alive = [0, 1, 59, 0, 0, 61, 0, 3600];
        let delays = is_alive.map(|seconds| back_off.delay_after(Duration::from_secs(seconds)).as_secs());
        assert_eq!(delays, [0, 1, 5, 30, 30, 0, 1, 0]);
    }
}
