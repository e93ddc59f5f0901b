// SPDX-License-Identifier: Apache-2.0
//! Keeps a prepare that waited from running after the unprepare that was to end it.
//!
//! The lock of a claim is not fair. A call that the kubelet gave up may still wait for it when the unprepare of the same
//! claim comes by, and must not bring the claim back afterwards (kubernetes-sigs/dra-driver-nvidia-gpu #1162).

use std::collections::BTreeMap;

use dra_model::ClaimUid;
use parking_lot::Mutex;

/// The prepares that wait or run.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    /// Whether each was overtaken.
    overtaken: BTreeMap<(ClaimUid, u64), bool>,
}

/// One prepare, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    key: (ClaimUid, u64),
}

impl Turns {
    /// A prepare begins to wait.
    pub(crate) fn wait_for(&self, uid: &ClaimUid) -> Turn<'_> {
        let mut waiting = self.0.lock();
        let key = (uid.clone(), waiting.next);
        waiting.next += 1;
        waiting.overtaken.insert(key.clone(), false);
        Turn { turns: self, key }
    }

    /// Everything that waits for this claim is in vain.
    pub(crate) fn overtake(&self, uid: &ClaimUid) {
        let range = (uid.clone(), 0)..=(uid.clone(), u64::MAX);
        self.0.lock().overtaken.range_mut(range).for_each(|(_, overtaken)| *overtaken = true);
    }
}

impl Turn<'_> {
    /// Whether the claim was unprepared since.
    pub(crate) fn is_overtaken(&self) -> bool {
        self.turns.0.lock().overtaken.get(&self.key).copied().unwrap_or(false)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.0.lock().overtaken.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_waited_are_overtaken_and_those_that_come_later_are_not() {
        let turns = Turns::default();
        let (a, b): (ClaimUid, ClaimUid) = ("a".parse().unwrap(), "b".parse().unwrap());
        let (first, second, other) = (turns.wait_for(&a), turns.wait_for(&a), turns.wait_for(&b));
        drop(first);
        turns.overtake(&a);
        let later = turns.wait_for(&a);
        assert_eq!([&second, &other, &later].map(Turn::is_overtaken), [true, false, false]);
        drop((second, other, later));
        assert!(turns.0.lock().overtaken.is_empty());
    }
}
