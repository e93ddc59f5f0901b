// SPDX-License-Identifier: Apache-2.0
//! The deadline of a call, passed to everything that waits on behalf of the call.
//!
//! Each wait has a limit of its own and is bounded by that limit and by the remaining time of the call, so that limits do not
//! add up beyond the time that the caller waits. Background work has no deadline.
//!
//! A program of the driver that takes long would never finish if it were killed at each deadline. So it continues beside the
//! call, under the locks of the call, and its time does not count. The caller gets an error, calls again, and finds the work
//! done.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// All clones belong to one call.
#[derive(Debug, Clone, Default)]
pub struct Deadline(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    arrival: Option<Instant>,
    at: Option<Instant>,
    /// The program that runs beside the call.
    beside: Option<String>,
}

impl Deadline {
    /// For background work.
    pub fn none() -> Self {
        Self::default()
    }

    /// Whether this is a call and not background work.
    pub fn is_set(&self) -> bool {
        self.0.lock().at.is_some()
    }

    /// For a call that arrives now.
    pub fn after(limit: Duration) -> Self {
        let now = Instant::now();
        Self(Arc::new(Mutex::new(State { arrival: Some(now), at: now.checked_add(limit), beside: None })))
    }

    /// When the call arrived.
    pub fn arrival(&self) -> Option<Instant> {
        self.0.lock().arrival
    }

    /// Does work that may continue beside the call; `what` describes it for messages.
    pub fn beside<T>(&self, what: impl fmt::Display, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        self.0.lock().beside = Some(what.to_string());
        let done = work();
        let mut state = self.0.lock();
        state.beside = None;
        state.at = state.at.and_then(|at| at.checked_add(began.elapsed()));
        done
    }

    /// The description of the work that runs beside the call now.
    pub fn goes_on(&self) -> Option<String> {
        self.0.lock().beside.clone()
    }

    /// The limit of a wait whose own limit is `own`; zero after the deadline.
    pub fn limit(&self, own: Duration) -> Duration {
        self.0.lock().at.map_or(own, |at| at.saturating_duration_since(Instant::now()).min(own))
    }

    pub fn is_over(&self) -> bool {
        self.0.lock().at.is_some_and(|at| at <= Instant::now())
    }
}

/// Whether both belong to the same call.
impl PartialEq for Deadline {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_what_goes_on_beside_the_call_does_not_count() {
        let deadline = Deadline::after(Duration::from_millis(20));
        let seen = deadline.beside("a program", || {
            while !deadline.is_over() {
                std::thread::yield_now();
            }
            deadline.goes_on()
        });
        assert_eq!((seen.as_deref(), deadline.goes_on()), (Some("a program"), None));
        assert!(!deadline.is_over() && !deadline.limit(Duration::MAX).is_zero(), "what was left is left");
    }

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
