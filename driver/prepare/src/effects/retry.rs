// SPDX-License-Identifier: Apache-2.0
//! Repeats what fails for a short time only, until the limit or the deadline of the call.

use std::thread;
use std::time::{Duration, Instant};

use dra_hardware::Deadline;

const FIRST_PAUSE: Duration = Duration::from_millis(5);

const MAX_PAUSE: Duration = Duration::from_millis(200);

/// The first success, the first error that may not end by itself, or the last error.
pub(super) fn retry<T, E>(
    limit: Duration,
    deadline: &Deadline,
    may_end: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let began = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let outcome = attempt();
        let left = deadline.limit(limit.saturating_sub(began.elapsed()));
        match &outcome {
            Err(error) if may_end(error) && left > pause => {}
            Ok(_) | Err(_) => return outcome,
        }
        wait(pause);
        pause = pause.saturating_mul(2).min(MAX_PAUSE);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "NVML and procfs send no notice of the end of a process or of a new file"
)]
fn wait(pause: Duration) {
    thread::sleep(pause);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_may_end_is_repeated_until_it_ends_or_the_time_is_over() {
        let run = |limit: Duration, failures: u32| {
            let mut calls = 0;
            let outcome = retry(
                limit,
                &Deadline::none(),
                |error| *error == "busy",
                || {
                    calls += 1;
                    if calls > failures { Ok(calls) } else { Err("busy") }
                },
            );
            (outcome, calls)
        };
        assert_eq!(run(Duration::from_mins(1), 2), (Ok(3), 3));
        assert_eq!(run(Duration::ZERO, 2), (Err("busy"), 1));
        let over = Deadline::after(Duration::ZERO);
        let outcome: Result<(), _> = retry(Duration::from_mins(1), &over, |_| true, || Err("busy"));
        assert_eq!(outcome, Err("busy"));
        let mut calls = 0;
        let outcome: Result<(), _> = retry(
            Duration::from_mins(1),
            &Deadline::none(),
            |error| *error == "busy",
            || {
                calls += 1;
                Err("refused")
            },
        );
        assert_eq!((outcome, calls), (Err("refused"), 1));
    }
}
