// SPDX-License-Identifier: Apache-2.0
//! How long a daemon that ended stays away: the first time not at all, longer and longer when it keeps dying.

use std::time::Duration;

/// Before the first, second, … start in a row.
const PAUSES: [Duration; 4] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];

/// A daemon that lived this long does not keep dying.
const LONG_LIFE: Duration = Duration::from_mins(1);

/// The deaths and failed starts of one daemon that each came soon after the last.
#[derive(Debug, Default)]
pub struct BackOff {
    in_a_row: usize,
}

impl BackOff {
    /// How long to wait after a life of this length; a start that failed is none.
    pub fn pause_after(&mut self, life: Duration) -> Duration {
        if life > LONG_LIFE {
            self.in_a_row = 0;
        }
        let pause = PAUSES.iter().take(self.in_a_row + 1).next_back().copied().unwrap_or_default();
        self.in_a_row = (self.in_a_row + 1).min(PAUSES.len());
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_a_daemon_lives() {
        let mut back_off = BackOff::default();
        let lives = [0, 1, 59, 0, 0, 61, 0, 3600];
        let pauses = lives.map(|seconds| back_off.pause_after(Duration::from_secs(seconds)).as_secs());
        assert_eq!(pauses, [0, 1, 5, 30, 30, 0, 1, 0]);
    }
}
