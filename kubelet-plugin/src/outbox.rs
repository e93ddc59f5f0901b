// SPDX-License-Identifier: Apache-2.0
//! What the API server does not have yet, claim by claim. Pure.
//!
//! The input is reports, the output is what is due of one claim at a time. Each claim has one entry, in which a newer state
//! replaces an older one, and a back-off of its own. A claim whose status the API server refuses delays no other claim,
//! because a first attempt precedes a retry. An entry without work contains what was reported, until the claim is unprepared.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dra_hardware::Setting;
use dra_model::{ClaimRef, DaemonId, DeviceName, GpuUuid};
use tokio::time::Instant;

use crate::event_text::EventText;
use crate::report::{Devices, Report};

/// The most claims with an entry; a kubelet has fewer on one node.
const MAX_CLAIMS: usize = 1024;

/// The longest back-off, as a multiple of the first.
const MAX_BACKOFF_FACTOR: u32 = 12;

/// An Event that is not recorded yet.
#[derive(Debug, Clone, PartialEq)]
pub enum PendingEvent {
    /// The text contains the product names, which are read when the Event is recorded.
    Prepared(Devices),
    Failed {
        text: EventText,
        /// For a second Event, on the Node.
        on_node: Option<EventText>,
    },
    /// The health of a GPU: on the pods of the claim too.
    Health(EventText),
    Text(EventText),
}

/// The subject of an Event; a newer Event replaces one that is not recorded yet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Topic {
    /// With the reason: a creation does not replace the end of an earlier one.
    MigDevice(DeviceName, &'static str),
    Outcome,
    Config,
    Pod,
    Daemon(DaemonId),
    Setting(GpuUuid, Setting),
    /// With the reason: a recovery does not replace the fault.
    Health(GpuUuid, &'static str),
}

/// What is due of one claim.
#[derive(Debug)]
pub struct Due {
    pub claim: ClaimRef,
    /// The devices for `status.devices`.
    pub status: Option<Devices>,
    /// Events to record after the status is written.
    pub events: Vec<PendingEvent>,
}

#[derive(Debug)]
pub struct Outbox {
    entries: BTreeMap<ClaimRef, Entry>,
    /// The delay after the first failure.
    backoff: Duration,
}

#[derive(Debug)]
struct Entry {
    /// The last reported outcome of a prepare.
    outcome: Option<PendingEvent>,
    /// The last report about the other claims of the pod.
    pod: Option<PendingEvent>,
    /// The devices for `status.devices`, and the time of the next attempt.
    status: Option<(Devices, Instant)>,
    /// Failures to write the status, in a row.
    failures: u32,
    events: BTreeMap<Topic, PendingEvent>,
    /// The time of the last report.
    since: Instant,
}

impl Outbox {
    /// `backoff` is the delay after the first failure to write a status; it doubles with each further failure.
    pub fn new(backoff: Duration) -> Self {
        Self { entries: BTreeMap::new(), backoff }
    }

    /// Adds a report. Returns the number of statuses and Events that were dropped because there are too many claims.
    pub fn add(&mut self, report: Report, now: Instant) -> usize {
        let dropped = if self.entries.contains_key(report.claim()) { 0 } else { self.make_room() };
        match report {
            Report::Prepared { claim, devices, is_new } => {
                let (entry, devices) = (self.entry(claim, now), Devices::from(devices));
                if is_new {
                    entry.pod = None;
                }
                if entry.update_outcome(PendingEvent::Prepared(Arc::clone(&devices)), is_new) {
                    entry.status = Some((devices, now));
                }
            }
            Report::ConfigIgnored { claim, text } => {
                self.entry(claim, now).events.insert(Topic::Config, PendingEvent::Text(text));
            }
            Report::Pod { claim, text } => self.entry(claim, now).update_pod(PendingEvent::Text(text)),
            Report::Failed { claim, error, disposition, unnamed_holder } => {
                let on_node =
                    unnamed_holder.map(|holder| EventText::Blocked { disposition, error: error.clone(), holder });
                let text = EventText::Failed { disposition, error };
                self.entry(claim, now).update_outcome(PendingEvent::Failed { text, on_node }, false);
            }
            Report::Daemon { claim, devices, daemon } => {
                let entry = self.entry(claim, now);
                entry.status = Some((devices.into(), now));
                let topic = Topic::Daemon(daemon.id.clone());
                entry.events.insert(topic, PendingEvent::Text(EventText::Daemon(daemon)));
            }
            Report::Status { claim, devices } => self.entry(claim, now).status = Some((devices.into(), now)),
            Report::MigDevice { claim, device, text } => {
                let topic = Topic::MigDevice(device, text.reason());
                self.entry(claim, now).events.insert(topic, PendingEvent::Text(text));
            }
            Report::Drift { claim, gpu, setting, text } => {
                self.entry(claim, now).events.insert(Topic::Setting(gpu, setting), PendingEvent::Text(text));
            }
            Report::Health { claim, devices, gpu, text } => {
                let entry = self.entry(claim, now);
                entry.status = Some((devices.into(), now));
                entry.events.insert(Topic::Health(gpu, text.reason()), PendingEvent::Health(text));
            }
            Report::Unprepared { claim } => self.forget(&claim),
        }
        dropped
    }

    /// The claim that is due and has waited longest; a first attempt precedes a retry.
    pub fn take_due(&mut self, now: Instant) -> Option<Due> {
        let due = self.entries.iter_mut().filter_map(|(claim, entry)| Some((entry.due()?, claim, entry)));
        let due = due.filter(|((_, at), ..)| *at <= now);
        let (_, claim, entry) = due.min_by_key(|(rank, ..)| *rank)?;
        let status = entry.status.take_if(|(_, at)| *at <= now).map(|(devices, _)| devices);
        let events = std::mem::take(&mut entry.events).into_values().collect();
        let due = Due { claim: claim.clone(), status, events };
        if due.status.is_none() {
            self.tidy(&due.claim);
        }
        Some(due)
    }

    /// The time at which the next claim is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.entries.values().filter_map(Entry::due).map(|(_, at)| at).min()
    }

    /// The API server has the status, or the claim no longer exists.
    pub fn is_written(&mut self, claim: &ClaimRef) {
        if let Some(entry) = self.entries.get_mut(claim) {
            entry.failures = 0;
        }
        self.tidy(claim);
    }

    /// Schedules a status again that was not written, unless the claim was unprepared meanwhile. Returns the number of failures
    /// in a row.
    pub fn is_not_written(&mut self, claim: &ClaimRef, devices: Devices, now: Instant) -> u32 {
        let backoff = self.backoff;
        let Some(entry) = self.entries.get_mut(claim) else { return 0 };
        let pause = backoff * 2_u32.saturating_pow(entry.failures).min(MAX_BACKOFF_FACTOR);
        entry.failures = entry.failures.saturating_add(1);
        // A newer state replaces the one that was not written.
        entry.status.get_or_insert((devices, now + pause));
        entry.failures
    }

    fn entry(&mut self, claim: ClaimRef, now: Instant) -> &mut Entry {
        let new = || Entry { outcome: None, pod: None, status: None, failures: 0, events: BTreeMap::new(), since: now };
        let entry = self.entries.entry(claim).or_insert_with(new);
        entry.since = now;
        entry
    }

    /// Events of an unprepared claim that are not recorded yet are still recorded.
    fn forget(&mut self, claim: &ClaimRef) {
        if let Some(entry) = self.entries.get_mut(claim) {
            (entry.outcome, entry.pod, entry.status, entry.failures) = (None, None, None, 0);
        }
        self.tidy(claim);
    }

    /// Removes an entry without work and without a last report.
    fn tidy(&mut self, claim: &ClaimRef) {
        if self
            .entries
            .get(claim)
            .is_some_and(|entry| entry.is_idle() && entry.outcome.is_none() && entry.pod.is_none())
        {
            self.entries.remove(claim);
        }
    }

    /// Removes the oldest entry without work, or else the entry with the most failures.
    fn make_room(&mut self) -> usize {
        if self.entries.len() < MAX_CLAIMS {
            return 0;
        }
        let rank = |entry: &Entry| (entry.is_idle(), entry.failures, Reverse(entry.since));
        let worst = self.entries.iter().max_by_key(|(_, entry)| rank(entry)).map(|(claim, _)| claim.clone());
        let removed = worst.and_then(|claim| self.entries.remove(&claim));
        removed.map_or(0, |entry| entry.events.len() + usize::from(entry.status.is_some()))
    }
}

impl Entry {
    /// Adds an Event about the outcome of a prepare, unless a repeated prepare has the same outcome.
    fn update_outcome(&mut self, outcome: PendingEvent, is_new: bool) -> bool {
        if !is_new && self.outcome.as_ref() == Some(&outcome) {
            return false;
        }
        self.events.insert(Topic::Outcome, outcome.clone());
        self.outcome = Some(outcome);
        true
    }

    /// Adds an Event about the pod, unless it is the same as the last one.
    fn update_pod(&mut self, event: PendingEvent) {
        if self.pod.as_ref() != Some(&event) {
            self.events.insert(Topic::Pod, event.clone());
            self.pod = Some(event);
        }
    }

    /// Whether the work is a retry, and the time at which it is due.
    fn due(&self) -> Option<(bool, Instant)> {
        if !self.events.is_empty() {
            return Some((false, self.since));
        }
        self.status.as_ref().map(|(_, at)| (self.failures > 0, *at))
    }

    fn is_idle(&self) -> bool {
        self.status.is_none() && self.events.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use dra_model::{Disposition, GpuSettings, LiveIdentity};
    use dra_prepare::{PreparedDevice, PreparedSharing};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn claim(name: &str) -> ClaimRef {
        ClaimRef { namespace: "ns".to_owned(), name: name.to_owned(), uid: format!("uid-{name}").parse().unwrap() }
    }

    fn devices(gpu: u32) -> Vec<PreparedDevice> {
        let uuid = format!("GPU-{gpu:08}-0000-0000-0000-000000000000").parse().unwrap();
        vec![PreparedDevice {
            request: "r".to_owned(),
            pool: "node-1".to_owned(),
            device: format!("gpu-{gpu:08}").parse().unwrap(),
            admin_access: false,
            share_id: None,
            cdi_ids: Vec::new(),
            identity: LiveIdentity::Gpu { uuid },
            sharing: PreparedSharing::Plain,
            settings: GpuSettings::default(),
        }]
    }

    fn prepared(name: &str) -> Report {
        Report::Prepared { claim: claim(name), devices: devices(0), is_new: true }
    }

    fn failed(name: &str, error: &str) -> Report {
        let (claim, error) = (claim(name), error.to_owned());
        Report::Failed { claim, error, disposition: Disposition::Busy, unnamed_holder: None }
    }

    /// The names of the claims that are due, each with the devices of its status and the number of its Events.
    fn take_all(outbox: &mut Outbox, now: Instant) -> Vec<(String, Option<Devices>, usize)> {
        let taken = std::iter::from_fn(|| outbox.take_due(now));
        taken.map(|due| (due.claim.name, due.status, due.events.len())).collect()
    }

    fn names(outbox: &mut Outbox, now: Instant) -> Vec<String> {
        take_all(outbox, now).into_iter().map(|(name, ..)| name).collect()
    }

    #[test]
    fn the_delay_between_retries_of_a_claim_grows_to_a_limit_and_delays_no_other_claim() {
        let (mut outbox, start) = (Outbox::new(SECOND), Instant::now());
        outbox.add(prepared("a"), start);
        let mut at = start;
        let mut pauses = Vec::new();
        for attempt in 1..=7 {
            let due = outbox.take_due(at).unwrap();
            assert_eq!(outbox.is_not_written(&due.claim, due.status.unwrap(), at), attempt);
            outbox.add(prepared(&format!("after-{attempt}")), at);
            assert_eq!(names(&mut outbox, at), [format!("after-{attempt}")], "another claim is not delayed");
            let next = outbox.next_due().unwrap();
            pauses.push((next - at).as_secs());
            at = next;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 12, 12, 12]);
        let due = outbox.take_due(at).unwrap();
        outbox.is_written(&due.claim);
        assert_eq!(outbox.next_due(), None, "a written status is not written again");
    }

    #[test]
    fn a_first_attempt_precedes_retries() {
        let (mut outbox, start) = (Outbox::new(SECOND), Instant::now());
        for name in ["a", "b"] {
            outbox.add(prepared(name), start);
            let due = outbox.take_due(start).unwrap();
            outbox.is_not_written(&due.claim, due.status.unwrap(), start);
        }
        outbox.add(prepared("c"), start + SECOND);
        assert_eq!(names(&mut outbox, start + SECOND), ["c", "a", "b"]);
    }

    #[test]
    fn the_latest_state_of_a_claim_is_written() {
        let (mut outbox, now) = (Outbox::new(SECOND), Instant::now());
        let status = |gpu| Report::Status { claim: claim("a"), devices: devices(gpu) };
        outbox.add(status(0), now);
        outbox.add(status(1), now);
        let due = outbox.take_due(now).unwrap();
        assert_eq!((due.status.as_deref(), due.events.len()), (Some(&devices(1)[..]), 0));
        outbox.add(status(2), now);
        outbox.is_not_written(&due.claim, due.status.unwrap(), now);
        let due = outbox.take_due(now).unwrap();
        assert_eq!(due.status.as_deref(), Some(&devices(2)[..]), "the failed status is older than the new one");
        outbox.is_written(&due.claim);
        assert!(outbox.entries.is_empty(), "no entry remains");
    }

    #[test]
    fn a_repeated_prepare_is_reported_when_its_outcome_differs() {
        let (mut outbox, now) = (Outbox::new(SECOND), Instant::now());
        let repeated = |gpu| Report::Prepared { claim: claim("a"), devices: devices(gpu), is_new: false };
        for (report, expect) in [
            (failed("a", "held"), Some((None, 1))),
            (failed("a", "held"), None),
            (failed("a", "broken"), Some((None, 1))),
            (repeated(0), Some((Some(0), 1))),
            (repeated(0), None),
            (repeated(1), Some((Some(1), 1))),
            (failed("a", "broken"), Some((None, 1))),
            (prepared("a"), Some((Some(0), 1))),
            (prepared("a"), Some((Some(0), 1))),
            (Report::Unprepared { claim: claim("a") }, None),
            (repeated(0), Some((Some(0), 1))),
        ] {
            let case = format!("{report:?}");
            outbox.add(report, now);
            let taken = take_all(&mut outbox, now);
            outbox.is_written(&claim("a"));
            let expect: Vec<_> = expect
                .into_iter()
                .map(|(gpu, events)| ("a".to_owned(), gpu.map(|gpu| Devices::from(devices(gpu))), events))
                .collect();
            assert_eq!(taken, expect, "{case}");
        }
    }

    #[test]
    fn the_status_of_an_unprepared_claim_is_not_written() {
        let (mut outbox, now) = (Outbox::new(SECOND), Instant::now());
        outbox.add(prepared("a"), now);
        let due = outbox.take_due(now).unwrap();
        outbox.add(Report::Unprepared { claim: claim("a") }, now);
        assert_eq!(outbox.is_not_written(&due.claim, due.status.unwrap(), now), 0);
        assert!(outbox.entries.is_empty());
        outbox.add(prepared("b"), now);
        outbox.add(Report::Unprepared { claim: claim("b") }, now);
        assert_eq!(take_all(&mut outbox, now), [("b".to_owned(), None, 1)], "the Event is still recorded");
        assert!(outbox.entries.is_empty());
    }

    #[test]
    fn entries_without_work_are_dropped_before_entries_that_fail() {
        let (mut outbox, now) = (Outbox::new(SECOND), Instant::now());
        outbox.add(prepared("failing"), now);
        let due = outbox.take_due(now).unwrap();
        outbox.is_not_written(&due.claim, due.status.unwrap(), now);
        outbox.add(prepared("written"), now);
        outbox.take_due(now).unwrap();
        outbox.is_written(&claim("written"));
        let dropped: Vec<usize> =
            (2..=MAX_CLAIMS + 1).map(|at| outbox.add(prepared(&format!("new-{at}")), now)).collect();
        assert_eq!(dropped.iter().sum::<usize>(), 1, "the status of the failing claim");
        assert_eq!(outbox.entries.len(), MAX_CLAIMS);
        assert_eq!(names(&mut outbox, now + SECOND).len(), MAX_CLAIMS);
    }
}
