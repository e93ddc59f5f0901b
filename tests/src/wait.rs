// SPDX-License-Identifier: Apache-2.0
//! Waiting for conditions, with one limit that only a broken test reaches.

use std::future::Future;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};

/// Generous, because many tests share few cores.
pub const WAIT_TIMEOUT: Duration = Duration::from_mins(1);

/// Waits for something that will happen.
pub async fn within<T>(what: &str, happens: impl Future<Output = T>) -> T {
    let limit = WAIT_TIMEOUT.as_secs();
    timeout(WAIT_TIMEOUT, happens)
        .await
        .unwrap_or_else(|_elapsed| panic!("this did not happen within {limit} s: {what}"))
}

/// Waits until a condition holds that has no notification, such as the presence of a file.
pub async fn until<T>(what: &str, mut holds: impl FnMut() -> Option<T>) -> T {
    let look = async {
        let mut ticks = interval(Duration::from_millis(5));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Some(value) = holds() {
                return value;
            }
        }
    };
    within(what, look).await
}
