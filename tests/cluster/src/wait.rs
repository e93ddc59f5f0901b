// SPDX-License-Identifier: Apache-2.0
//! Waits for conditions of other programs by polling.

use crate::error::{ClusterError, Result};
use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

const STEP: Duration = Duration::from_millis(50);

/// Repeats the probe until it has an answer. An error of the probe counts as "not yet";
/// the last one is part of the error after the limit.
pub fn until<T>(
    what: &str,
    limit: Duration,
    logs_dir: &Path,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    let mut last = String::new();
    loop {
        match probe() {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => {}
            Err(error) => last = error.to_string(),
        }
        if Instant::now() >= deadline {
            return Err(ClusterError::Timeout { what: what.to_owned(), limit, logs: logs_dir.to_owned(), last });
        }
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "other programs send no notification, so the condition is polled")]
fn pause() {
    thread::sleep(STEP);
}
