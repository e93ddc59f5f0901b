// SPDX-License-Identifier: Apache-2.0
//! How long ago something was, as kubectl writes it.

use k8s_openapi::jiff::Timestamp;

/// The time of the answer.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Timestamp);

impl Clock {
    pub fn now() -> Self {
        Self(Timestamp::now())
    }

    /// Milliseconds since 1970.
    pub fn now_ms() -> i64 {
        Timestamp::now().as_millisecond()
    }

    /// A clock that stands at an RFC 3339 time; nothing for another text.
    pub fn at(time: &str) -> Option<Self> {
        time.parse().ok().map(Self)
    }

    /// The age of an RFC 3339 time in its largest units.
    pub fn age(self, time: &str) -> Option<String> {
        let then: Timestamp = time.parse().ok()?;
        let seconds = self.0.as_second().saturating_sub(then.as_second()).max(0);
        let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
        Some(match seconds {
            0..120 => format!("{seconds}s"),
            120..7200 => format!("{minutes}m"),
            7200..172_800 => format!("{hours}h"),
            _ => format!("{days}d"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_one_unit() {
        let clock = Clock::at("2026-11-30T12:00:00Z").unwrap();
        for (time, expect) in [
            ("2026-11-30T11:59:30Z", Some("30s")),
            ("2026-11-30T11:00:00Z", Some("60m")),
            ("2026-11-30T10:00:00Z", Some("2h")),
            ("2026-11-20T12:00:00Z", Some("10d")),
            ("2026-11-30T13:00:00Z", Some("0s")),
            ("yesterday", None),
        ] {
            assert_eq!(clock.age(time).as_deref(), expect, "{time}");
        }
    }
}
