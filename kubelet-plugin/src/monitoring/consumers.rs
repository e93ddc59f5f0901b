// SPDX-License-Identifier: Apache-2.0
//! The pods of prepared claims, as they were when a claim was read last: at its prepare, and at every reconciliation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dra_model::{ClaimRef, ClaimUid};
use dra_resource::{Consumer, consumers_of};
use parking_lot::Mutex;

/// A claim that was read is prepared by then, or it is not.
const MIN_AGE: Duration = Duration::from_mins(1);

/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ClaimConsumers(Arc<Mutex<BTreeMap<ClaimUid, Entry>>>);

#[derive(Debug)]
struct Entry {
    read: Instant,
    consumers: Vec<Consumer>,
}

impl ClaimConsumers {
    /// Records the pods of a claim that was read as JSON.
    pub fn record(&self, claim: &ClaimRef, json: &[u8]) {
        let entry = Entry { read: Instant::now(), consumers: consumers_of(json) };
        self.0.lock().insert(claim.uid.clone(), entry);
    }

    pub fn of(&self, claim: &ClaimRef) -> Vec<Consumer> {
        self.0.lock().get(&claim.uid).map(|entry| entry.consumers.clone()).unwrap_or_default()
    }

    /// Forgets all claims but the prepared ones.
    pub fn retain(&self, prepared: &BTreeSet<&ClaimUid>) {
        self.retain_at(prepared, Instant::now());
    }

    fn retain_at(&self, prepared: &BTreeSet<&ClaimUid>, now: Instant) {
        let is_new = |entry: &Entry| now.duration_since(entry.read) < MIN_AGE;
        self.0.lock().retain(|claim, entry| prepared.contains(claim) || is_new(entry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_known_while_their_claim_is_prepared_or_about_to_be() {
        let claim = |name: &str| ClaimRef {
            namespace: "ns".to_owned(),
            name: name.to_owned(),
            uid: format!("uid-{name}").parse().unwrap(),
        };
        let (consumers, now) = (ClaimConsumers::default(), Instant::now());
        let json = br#"{"status": {"reservedFor": [{"resource": "pods", "name": "p", "uid": "u"}]}}"#;
        for name in ["a", "b"] {
            consumers.record(&claim(name), json);
        }
        let (a, none) = (claim("a"), BTreeSet::new());
        consumers.retain_at(&none, now);
        assert_eq!([consumers.of(&a).len(), consumers.of(&claim("b")).len()], [1, 1]);
        consumers.retain_at(&[&a.uid].into(), now + MIN_AGE * 2);
        assert_eq!([consumers.of(&a).len(), consumers.of(&claim("b")).len()], [1, 0]);
    }
}
