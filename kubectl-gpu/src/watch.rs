// SPDX-License-Identifier: Apache-2.0
//! Prints an answer once, or again and again: a terminal is repainted, a pipe gets each answer that differs from the one before.
//!
//! The cluster is read anew each time. At most a tenth of the time is spent on reading, so that a large cluster is asked less often.

use std::time::Duration;

use dra_model::explain;
use tokio::time::Instant;

use crate::args::Form;
use crate::error::AppError;
use crate::output::{self, Written};

/// Time between the end of a reading and the next one.
const INTERVAL: Duration = Duration::from_secs(2);

/// How often an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    Once,
    /// Until the user or the reader of the pipe ends it.
    UntilStopped,
}

impl Repeat {
    pub fn of_flag(is_set: bool) -> Self {
        if is_set { Self::UntilStopped } else { Self::Once }
    }
}

/// Prints what `answer` returns. A failure ends the first reading; later ones are printed, and the reading is repeated.
pub async fn print(
    repeat: Repeat,
    form: Form,
    mut answer: impl AsyncFnMut() -> Result<String, AppError>,
) -> Result<(), AppError> {
    let mut began = Instant::now();
    let mut before = answer().await?;
    if repeat == Repeat::Once {
        return output::print(&before).map_err(AppError::Output);
    }
    let mut written = output::repaint(&before, form).map_err(AppError::Output)?;
    while written == Written::Whole {
        tokio::time::sleep(pause(began.elapsed())).await;
        began = Instant::now();
        let next = match answer().await {
            Ok(next) => next,
            Err(AppError::Output(error)) => return Err(AppError::Output(error)),
            Err(failed) => {
                eprintln!("error: {}", explain(&failed));
                continue;
            }
        };
        if next != before {
            written = output::repaint(&next, form).map_err(AppError::Output)?;
            before = next;
        }
    }
    Ok(())
}

/// By the time that the last reading took.
fn pause(reading: Duration) -> Duration {
    INTERVAL.max(reading.saturating_mul(9))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_cluster_is_asked_less_often() {
        for (took, expect) in [(10, 2000), (200, 2000), (1000, 9000)] {
            assert_eq!(pause(Duration::from_millis(took)), Duration::from_millis(expect));
        }
    }
}
