// SPDX-License-Identifier: Apache-2.0
//! Supersedes prepares that wait for the lock of a claim when the claim is unprepared.
//!
//! A call that the kubelet cancelled may still wait for the lock when the unprepare of the same claim arrives. It must not prepare
//! the claim afterwards (kubernetes-sigs/dra-driver-nvidia-gpu #1162), and the unprepare must not wait for its work.

use std::collections::BTreeMap;

use dra_model::ClaimUid;
use parking_lot::Mutex;

/// The prepares that wait or run in this process.
#[derive(Debug, Default)]
pub(crate) struct PrepareOrder(Mutex<Tickets>);

#[derive(Debug, Default)]
struct Tickets {
    next: u64,
    superseded: BTreeMap<(ClaimUid, u64), bool>,
}

/// One prepare, until it is dropped.
#[derive(Debug)]
pub(crate) struct Ticket<'a> {
    order: &'a PrepareOrder,
    key: (ClaimUid, u64),
}

impl PrepareOrder {
    /// A prepare begins to wait.
    pub(crate) fn enter(&self, uid: &ClaimUid) -> Ticket<'_> {
        let mut tickets = self.0.lock();
        let key = (uid.clone(), tickets.next);
        tickets.next += 1;
        tickets.superseded.insert(key.clone(), false);
        Ticket { order: self, key }
    }

    /// Supersedes every prepare of this claim that entered before.
    pub(crate) fn supersede(&self, uid: &ClaimUid) {
        let range = (uid.clone(), 0)..=(uid.clone(), u64::MAX);
        self.0.lock().superseded.range_mut(range).for_each(|(_, superseded)| *superseded = true);
    }
}

impl Ticket<'_> {
    /// Whether the claim was unprepared since.
    pub(crate) fn is_superseded(&self) -> bool {
        self.order.0.lock().superseded.get(&self.key).copied().unwrap_or(false)
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.order.0.lock().superseded.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prepares_that_entered_earlier_are_superseded_and_later_ones_are_not() {
        let order = PrepareOrder::default();
        let (a, b): (ClaimUid, ClaimUid) = ("a".parse().unwrap(), "b".parse().unwrap());
        let (first, second, other) = (order.enter(&a), order.enter(&a), order.enter(&b));
        drop(first);
        order.supersede(&a);
        let later = order.enter(&a);
        assert_eq!([&second, &other, &later].map(Ticket::is_superseded), [true, false, false]);
        drop((second, other, later));
        assert!(order.0.lock().superseded.is_empty());
    }
}
