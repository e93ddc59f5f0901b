// SPDX-License-Identifier: Apache-2.0
//! Claims that are ready here and that the API server does not know any more, or not as allocated to this node.
//!
//! That alone does not say that their containers have ended: a pod that is deleted by force leaves the API server, and lets
//! go of its claim, before the kubelet has ended its containers. The kubelet unprepares the claim when they have ended, and
//! at the latest with its own reconciliation, once a minute. So such a claim is left to the kubelet for a grace period,
//! from the first look that misses it, and only one that is missing at a later look as well is undone here: no call of the
//! kubelet will come for it, as after a loss of the kubelet's state.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dra_model::ClaimUid;
use parking_lot::Mutex;

/// The missing claims, each with the time of the first look that missed it.
#[derive(Debug, Default)]
pub(crate) struct Missing(Mutex<BTreeMap<ClaimUid, Instant>>);

impl Missing {
    /// A look misses a claim at `now`; says for how long earlier looks have, if there was one.
    pub(crate) fn miss(&self, uid: &ClaimUid, now: Instant) -> Option<Duration> {
        let mut missing = self.0.lock();
        if let Some(since) = missing.get(uid) {
            return Some(now.saturating_duration_since(*since));
        }
        missing.insert(uid.clone(), now);
        None
    }

    /// A claim is not missing, or nothing of it is left here.
    pub(crate) fn forget(&self, uid: &ClaimUid) {
        self.0.lock().remove(uid);
    }

    /// Forgets the claims of which nothing is left here.
    pub(crate) fn keep_only(&self, has_record: impl Fn(&ClaimUid) -> bool) {
        self.0.lock().retain(|uid, _| has_record(uid));
    }
}
