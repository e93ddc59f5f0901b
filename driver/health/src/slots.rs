// SPDX-License-Identifier: Apache-2.0
//! The budget of evictions of a cluster: a fault of all nodes, such as a bad NVIDIA driver, must not end the pods of all of them.
//!
//! There are a few slots, each a Lease that the chart creates, and a node evicts while it holds one. As in the leader election of
//! Kubernetes no clocks of nodes are compared: a slot is free when its Lease was seen unchanged for [`FREE_AFTER`], and its holder
//! stops to rely on it before that.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

/// How long a holder relies on a slot after the request that renewed it.
pub const VALID: Duration = Duration::from_mins(10);
/// How long a Lease must be unchanged until another node takes its slot. A plugin that crashes again and again is started every five
/// minutes, and the taints of its node stay meanwhile.
pub const FREE_AFTER: Duration = Duration::from_mins(15);
const RENEW_AFTER: Duration = Duration::from_mins(1);
/// A node that has not read the Leases for longer has not seen that they are unchanged: the API server may have been away.
const MAX_GAP: Duration = Duration::from_mins(2);

/// A Lease as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotLease {
    pub slot: u32,
    /// The node; empty before the first one.
    pub holder: String,
    /// Changes with every write.
    pub version: String,
}

/// The Lease to write next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The slot that the node has already, or a free one.
    Write(u32),
    /// Other nodes hold all slots.
    Full,
}

/// The slots as one node sees them. Times count from any moment of this process.
#[derive(Debug)]
pub struct Slots {
    node: String,
    seen: BTreeMap<u32, Seen>,
    looked: Option<Duration>,
    renewed: Option<Duration>,
}

#[derive(Debug)]
struct Seen {
    version: String,
    since: Duration,
}

impl Slots {
    pub const fn new(node: String) -> Self {
        Self { node, seen: BTreeMap::new(), looked: None, renewed: None }
    }

    /// Whether the node may evict.
    pub fn is_held(&self, now: Duration) -> bool {
        self.renewed.is_some_and(|renewed| now < renewed + VALID)
    }

    /// Whether the Lease is to be written again, or for the first time.
    pub fn is_due(&self, now: Duration) -> bool {
        self.renewed.is_none_or(|renewed| now >= renewed + RENEW_AFTER)
    }

    /// Chooses the slot for the next write, which must fail if the Lease changed after it was read.
    pub fn choose(&mut self, leases: &[SlotLease], now: Duration) -> Choice {
        self.see(leases, now);
        if let Some(own) = leases.iter().find(|lease| lease.holder == self.node) {
            return Choice::Write(own.slot);
        }
        self.renewed = None;
        let is_free = |lease: &&SlotLease| lease.holder.is_empty() || self.is_abandoned(lease.slot, now);
        let free: Vec<u32> = leases.iter().filter(is_free).map(|lease| lease.slot).collect();
        self.spread(&free).map_or(Choice::Full, Choice::Write)
    }

    /// A write succeeded whose request was sent at a time.
    pub fn renew(&mut self, sent: Duration) {
        self.renewed = Some(sent);
    }

    /// The node evicts no more, and its Lease runs out.
    pub fn end(&mut self) {
        self.renewed = None;
    }

    /// Nodes that fail together do not all write the same Lease.
    fn spread(&self, free: &[u32]) -> Option<u32> {
        let mut hasher = DefaultHasher::new();
        self.node.hash(&mut hasher);
        let count = u64::try_from(free.len()).ok()?;
        let at = usize::try_from(hasher.finish().checked_rem(count)?).ok()?;
        free.get(at).copied()
    }

    fn see(&mut self, leases: &[SlotLease], now: Duration) {
        let is_gap = self.looked.replace(now).is_none_or(|looked| now >= looked + MAX_GAP);
        let mut before = std::mem::take(&mut self.seen);
        for SlotLease { slot, version, .. } in leases {
            let known = before.remove(slot).filter(|seen| !is_gap && seen.version == *version);
            self.seen.insert(*slot, known.unwrap_or_else(|| Seen { version: version.clone(), since: now }));
        }
    }

    fn is_abandoned(&self, slot: u32, now: Duration) -> bool {
        self.seen.get(&slot).is_some_and(|seen| now >= seen.since + FREE_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lease(slot: u32, holder: &str, version: &str) -> SlotLease {
        SlotLease { slot, holder: holder.to_owned(), version: version.to_owned() }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_node_takes_a_free_slot_and_returns_to_its_own() {
        let mut slots = Slots::new("b".to_owned());
        assert!(slots.is_due(at(0)) && !slots.is_held(at(0)));
        assert_eq!(slots.choose(&[], at(0)), Choice::Full);
        assert_eq!(slots.choose(&[lease(0, "a", "1"), lease(1, "", "1")], at(0)), Choice::Write(1));
        assert_eq!(slots.choose(&[lease(0, "a", "3"), lease(1, "c", "1")], at(2)), Choice::Full);
        assert_eq!(slots.choose(&[lease(0, "a", "3"), lease(1, "b", "4")], at(3)), Choice::Write(1));
        slots.renew(at(3));
        assert!(slots.is_held(at(3)) && !slots.is_due(at(3)) && slots.is_due(at(63)) && !slots.is_held(at(603)));
        assert_eq!(slots.choose(&[lease(0, "a", "3")], at(4)), Choice::Full, "there are fewer slots now");
        assert!(!slots.is_held(at(4)));
    }

    #[test]
    fn a_slot_is_free_when_its_holder_renews_it_no_more() {
        let mut slots = Slots::new("b".to_owned());
        let mut choose = |version, seconds| slots.choose(&[lease(0, "a", version)], at(seconds));
        for seconds in (1000..2000).step_by(100) {
            let version = if seconds < 1100 { "1" } else { "2" };
            assert_eq!(choose(version, seconds), Choice::Full);
        }
        assert_eq!(choose("2", 1999), Choice::Full);
        assert_eq!(choose("2", 2000), Choice::Write(0));
        // The holder could write no more than this node could read.
        assert_eq!(choose("2", 2200), Choice::Full, "the API server was away");
    }

    /// One node of the model, with what it read and did not write yet.
    struct Node {
        slots: Slots,
        read: Option<(Choice, BTreeMap<u32, SlotLease>)>,
        started: Duration,
        is_alive: bool,
    }

    impl Node {
        fn time(&self, clock: Duration) -> Duration {
            clock.saturating_sub(self.started)
        }

        fn read(&mut self, server: &BTreeMap<u32, SlotLease>, clock: Duration) {
            let (leases, now) = (server.values().cloned().collect::<Vec<_>>(), self.time(clock));
            self.read = Some((self.slots.choose(&leases, now), server.clone()));
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Read(usize),
        Write(usize),
        /// A node reads every 100 seconds, for 15 minutes, and no other does.
        Wait(usize),
        /// The plugin of a node hangs.
        Hang(usize),
        /// The plugin of a node is killed and starts with another clock.
        Restart(usize),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0_usize..4).prop_map(Step::Read),
            3 => (0_usize..4).prop_map(Step::Write),
            1 => (0_usize..4).prop_map(Step::Wait),
            1 => (0_usize..4).prop_map(Step::Hang),
            1 => (0_usize..4).prop_map(Step::Restart),
            2 => (1_u64..110).prop_map(Step::Pass),
        ]
    }

    proptest! {
        /// In whatever order nodes read and write, fail and come back, no more of them evict at a time than there are slots.
        #[test]
        fn never_more_nodes_evict_than_there_are_slots(steps in prop::collection::vec(step(), 0..400), count in 1_u32..3) {
            let node = |number: usize, started| Node { slots: Slots::new(number.to_string()), read: None, started, is_alive: true };
            let mut nodes: Vec<Node> = (0..4).map(|number| node(number, Duration::ZERO)).collect();
            let mut server: BTreeMap<u32, SlotLease> = (0..count).map(|slot| (slot, lease(slot, "", "0"))).collect();
            let (mut writes, mut clock) = (0, Duration::ZERO);
            for step in steps {
                match step {
                    Step::Pass(seconds) => clock += at(seconds),
                    Step::Wait(number) => {
                        for _ in 0..9 {
                            nodes[number].read(&server, clock);
                            clock += at(100);
                        }
                        nodes[number].read(&server, clock);
                    }
                    Step::Hang(number) => nodes[number].is_alive = false,
                    Step::Restart(number) => nodes[number] = node(number, clock),
                    Step::Read(number) | Step::Write(number) if !nodes[number].is_alive => {}
                    Step::Read(number) => nodes[number].read(&server, clock),
                    Step::Write(number) => {
                        let node = &mut nodes[number];
                        let Some((Choice::Write(slot), read)) = node.read.take() else { continue };
                        if server.get(&slot) == read.get(&slot) {
                            writes += 1;
                            server.insert(slot, lease(slot, &number.to_string(), &writes.to_string()));
                            let now = node.time(clock);
                            node.slots.renew(now);
                        }
                    }
                }
                let evicting = nodes.iter().filter(|node| node.slots.is_held(node.time(clock))).count();
                prop_assert!(evicting <= server.len(), "{} nodes evict", evicting);
            }
        }
    }
}
