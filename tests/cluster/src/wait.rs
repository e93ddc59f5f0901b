// SPDX-License-Identifier: Apache-2.0
//! Waits for conditions of outside programs, which can only be asked again.

use crate::error::{ClusterError, Result};
use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

const STEP: Duration = Duration::from_millis(50);

/// Asks until the probe has an answer. An error of the probe is an answer of
/// "not yet"; the last one is part of the error when the limit is over.
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

#[expect(
    clippy::disallowed_methods,
    reason = "programs outside tell nothing: the condition is asked again, never assumed"
)]
fn pause() {
    thread::sleep(STEP);
}
