// SPDX-License-Identifier: Apache-2.0
//! Claims that are ready here but unknown to the API server, or not allocated to this node.
//!
//! Their containers may still run: a pod that is deleted by force leaves the API server and releases its claim before the
//! kubelet has ended its containers. The kubelet unprepares the claim when they have ended, at the latest with its own
//! reconciliation, once a minute. So the driver leaves such a claim to the kubelet for a grace period, from the first check
//! that misses the claim, and unprepares it itself only if a later check misses it too: then no call of the kubelet will come,
//! as after a loss of the kubelet's state.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dra_model::ClaimUid;
use parking_lot::Mutex;

/// The missing claims, each with the time of the first check that missed it.
#[derive(Debug, Default)]
pub(crate) struct Missing(Mutex<BTreeMap<ClaimUid, Instant>>);

impl Missing {
    /// Records that a check misses a claim at `now`, and returns how long earlier checks have missed it.
    pub(crate) fn miss(&self, uid: &ClaimUid, now: Instant) -> Option<Duration> {
        let mut missing = self.0.lock();
        if let Some(since) = missing.get(uid) {
            return Some(now.saturating_duration_since(*since));
        }
        missing.insert(uid.clone(), now);
        None
    }

    pub(crate) fn forget(&self, uid: &ClaimUid) {
        self.0.lock().remove(uid);
    }

    pub(crate) fn retain(&self, is_missing: impl Fn(&ClaimUid) -> bool) {
        self.0.lock().retain(|uid, _| is_missing(uid));
    }
}
