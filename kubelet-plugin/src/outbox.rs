// SPDX-License-Identifier: Apache-2.0
//! What is still to be written to the API server, claim by claim. Pure.
//!
//! In come reports, out goes what is due of one claim at a time. Each claim has one entry, in which a newer state replaces an
//! older one, and a back-off of its own. So a claim whose status the API server refuses delays no other and takes no place
//! from it: a first attempt goes before a repetition. An entry without work remembers what was reported, until the claim is
//! unprepared.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dra_hardware::Setting;
use dra_model::{ClaimRef, DaemonId, Disposition, GpuUuid};
use dra_prepare::PreparedDevice;
use dra_resource::status::DaemonStatus;
use tokio::time::Instant;

use crate::report::Report;

/// How many claims have an entry; a kubelet has fewer on one node.
const MAX_CLAIMS: usize = 1024;

/// How many times the first back-off the longest one is.
const MAX_BACKOFF_FACTOR: u32 = 12;

/// The devices of a claim, for its status and its Event.
pub type Devices = Arc<[PreparedDevice]>;

/// An Event to record.
#[derive(Debug, Clone, PartialEq)]
pub enum Note {
    /// The claim can be used.
    Prepared(Devices),
    /// Configurations of the claim do not count for some of its shares.
    ConfigIgnored(String),
    /// The claims of the pod do not go together in one container.
    Pod {
        /// The reason of the Event.
        reason: &'static str,
        /// Which claims, and what to do.
        text: String,
    },
    /// The claim could not be prepared.
    Failed {
        /// The sentence the pod's event shows as well.
        text: String,
        /// Gives the Event its reason.
        disposition: Disposition,
        /// The claim of another namespace that is in the way, for an Event on the Node.
        unnamed_holder: Option<String>,
    },
    /// The MPS daemon of the claim is not as it was.
    Daemon(DaemonStatus),
    /// A setting was changed that the claim relies on.
    Drift(String),
}

/// What an Event is about; a newer one replaces one that is not recorded yet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Topic {
    Outcome,
    Config,
    Pod,
    Daemon(DaemonId),
    Setting(GpuUuid, Setting),
}

/// What is to be written of one claim now.
#[derive(Debug)]
pub struct Due {
    /// Which claim.
    pub claim: ClaimRef,
    /// The devices for `status.devices`, where it is to be written.
    pub status: Option<Devices>,
    /// Events to record after that.
    pub notes: Vec<Note>,
}

/// See the module.
#[derive(Debug)]
pub struct Outbox {
    entries: BTreeMap<ClaimRef, Entry>,
    /// The first back-off.
    backoff: Duration,
}

#[derive(Debug)]
struct Entry {
    /// How the last prepare ended.
    outcome: Option<Note>,
    /// What was reported of the other claims of its pod.
    pod: Option<Note>,
    /// The devices for `status.devices`, and when the next attempt is due.
    status: Option<(Devices, Instant)>,
    /// How often writing the status failed in a row.
    failures: u32,
    notes: BTreeMap<Topic, Note>,
    /// When the last report came.
    since: Instant,
}

impl Outbox {
    /// Nothing to write. `backoff` is the pause after the first failure of a status; it doubles with each further one.
    pub fn new(backoff: Duration) -> Self {
        Self { entries: BTreeMap::new(), backoff }
    }

    /// Takes a report in. Returns how many statuses and Events were dropped because there are too many claims.
    pub fn add(&mut self, report: Report, now: Instant) -> usize {
        let dropped = if self.entries.contains_key(report.claim()) { 0 } else { self.make_room() };
        match report {
            Report::Prepared { claim, devices, is_new } => {
                let (entry, devices) = (self.entry(claim, now), Devices::from(devices));
                if is_new {
                    entry.pod = None;
                }
                if entry.update_outcome(Note::Prepared(Arc::clone(&devices)), is_new) {
                    entry.status = Some((devices, now));
                }
            }
            Report::ConfigIgnored { claim, text } => {
                self.entry(claim, now).notes.insert(Topic::Config, Note::ConfigIgnored(text));
            }
            Report::Pod { claim, reason, text } => self.entry(claim, now).update_pod(Note::Pod { reason, text }),
            Report::Failed { claim, text, disposition, unnamed_holder } => {
                self.entry(claim, now).update_outcome(Note::Failed { text, disposition, unnamed_holder }, false);
            }
            Report::Daemon { claim, devices, daemon } => {
                let entry = self.entry(claim, now);
                entry.status = Some((devices.into(), now));
                entry.notes.insert(Topic::Daemon(daemon.id.clone()), Note::Daemon(daemon));
            }
            Report::Status { claim, devices } => self.entry(claim, now).status = Some((devices.into(), now)),
            Report::Drift { claim, gpu, setting, text } => {
                self.entry(claim, now).notes.insert(Topic::Setting(gpu, setting), Note::Drift(text));
            }
            Report::Unprepared { claim } => self.forget(&claim),
        }
        dropped
    }

    /// What should be written next, if anything is due.
    pub fn take_due(&mut self, now: Instant) -> Option<Due> {
        let due = self.entries.iter_mut().filter_map(|(claim, entry)| Some((entry.due()?, claim, entry)));
        let due = due.filter(|((_, at), ..)| *at <= now);
        let (_, claim, entry) = due.min_by_key(|(rank, ..)| *rank)?;
        let status = entry.status.take_if(|(_, at)| *at <= now).map(|(devices, _)| devices);
        let notes = std::mem::take(&mut entry.notes).into_values().collect();
        let due = Due { claim: claim.clone(), status, notes };
        if due.status.is_none() {
            self.tidy(&due.claim);
        }
        Some(due)
    }

    /// When something is due next.
    pub fn next_due(&self) -> Option<Instant> {
        self.entries.values().filter_map(Entry::due).map(|(_, at)| at).min()
    }

    /// The status was taken, or the claim it was for is no more.
    pub fn is_written(&mut self, claim: &ClaimRef) {
        if let Some(entry) = self.entries.get_mut(claim) {
            entry.failures = 0;
        }
        self.tidy(claim);
    }

    /// The status could not be written. Returns how often in a row; a claim that was unprepared meanwhile needs none.
    pub fn is_not_written(&mut self, claim: &ClaimRef, devices: Devices, now: Instant) -> u32 {
        let backoff = self.backoff;
        let Some(entry) = self.entries.get_mut(claim) else { return 0 };
        let pause = backoff * 2_u32.saturating_pow(entry.failures).min(MAX_BACKOFF_FACTOR);
        entry.failures = entry.failures.saturating_add(1);
        // A newer state that came meanwhile goes before.
        entry.status.get_or_insert((devices, now + pause));
        entry.failures
    }

    fn entry(&mut self, claim: ClaimRef, now: Instant) -> &mut Entry {
        let new = || Entry { outcome: None, pod: None, status: None, failures: 0, notes: BTreeMap::new(), since: now };
        let entry = self.entries.entry(claim).or_insert_with(new);
        entry.since = now;
        entry
    }

    /// An unprepared claim keeps its Events that are not recorded yet, and nothing else.
    fn forget(&mut self, claim: &ClaimRef) {
        if let Some(entry) = self.entries.get_mut(claim) {
            (entry.outcome, entry.pod, entry.status, entry.failures) = (None, None, None, 0);
        }
        self.tidy(claim);
    }

    /// Removes an entry that has no work and remembers nothing.
    fn tidy(&mut self, claim: &ClaimRef) {
        if self
            .entries
            .get(claim)
            .is_some_and(|entry| entry.is_idle() && entry.outcome.is_none() && entry.pod.is_none())
        {
            self.entries.remove(claim);
        }
    }

    /// Removes the oldest entry without work, else the one that failed most often.
    fn make_room(&mut self) -> usize {
        if self.entries.len() < MAX_CLAIMS {
            return 0;
        }
        let rank = |entry: &Entry| (entry.is_idle(), entry.failures, Reverse(entry.since));
        let worst = self.entries.iter().max_by_key(|(_, entry)| rank(entry)).map(|(claim, _)| claim.clone());
        let removed = worst.and_then(|claim| self.entries.remove(&claim));
        removed.map_or(0, |entry| entry.notes.len() + usize::from(entry.status.is_some()))
    }
}

impl Entry {
    /// Remembers how a prepare ended and has it recorded, unless a repetition ended the same way.
    fn update_outcome(&mut self, outcome: Note, is_new: bool) -> bool {
        if !is_new && self.outcome.as_ref() == Some(&outcome) {
            return false;
        }
        self.notes.insert(Topic::Outcome, outcome.clone());
        self.outcome = Some(outcome);
        true
    }

    /// Has a note about its pod recorded, unless a repeated call says the same.
    fn update_pod(&mut self, note: Note) {
        if self.pod.as_ref() != Some(&note) {
            self.notes.insert(Topic::Pod, note.clone());
            self.pod = Some(note);
        }
    }

    /// When something is due, behind whether that is a repetition.
    fn due(&self) -> Option<(bool, Instant)> {
        if !self.notes.is_empty() {
            return Some((false, self.since));
        }
        self.status.as_ref().map(|(_, at)| (self.failures > 0, *at))
    }

    fn is_idle(&self) -> bool {
        self.status.is_none() && self.notes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use dra_model::{GpuSettings, LiveIdentity};
    use dra_prepare::PreparedSharing;

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

    fn failed(name: &str, text: &str) -> Report {
        let (claim, text) = (claim(name), text.to_owned());
        Report::Failed { claim, text, disposition: Disposition::Busy, unnamed_holder: None }
    }

    /// The names of the claims that are due, each with the devices of its status and the number of its Events.
    fn take_all(outbox: &mut Outbox, now: Instant) -> Vec<(String, Option<Devices>, usize)> {
        let taken = std::iter::from_fn(|| outbox.take_due(now));
        taken.map(|due| (due.claim.name, due.status, due.notes.len())).collect()
    }

    fn names(outbox: &mut Outbox, now: Instant) -> Vec<String> {
        take_all(outbox, now).into_iter().map(|(name, ..)| name).collect()
    }

    #[test]
    fn each_claim_is_tried_again_after_a_pause_of_its_own_that_grows_to_a_limit() {
        let (mut outbox, start) = (Outbox::new(SECOND), Instant::now());
        outbox.add(prepared("a"), start);
        let mut at = start;
        let mut pauses = Vec::new();
        for attempt in 1..=7 {
            let due = outbox.take_due(at).unwrap();
            assert_eq!(outbox.is_not_written(&due.claim, due.status.unwrap(), at), attempt);
            outbox.add(prepared(&format!("after-{attempt}")), at);
            assert_eq!(names(&mut outbox, at), [format!("after-{attempt}")], "another claim waits for nothing");
            let next = outbox.next_due().unwrap();
            pauses.push((next - at).as_secs());
            at = next;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 12, 12, 12]);
        let due = outbox.take_due(at).unwrap();
        outbox.is_written(&due.claim);
        assert_eq!(outbox.next_due(), None, "what is written is not written again");
    }

    #[test]
    fn a_first_attempt_goes_before_repetitions() {
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
        assert_eq!((due.status.as_deref(), due.notes.len()), (Some(&devices(1)[..]), 0));
        outbox.add(status(2), now);
        outbox.is_not_written(&due.claim, due.status.unwrap(), now);
        let due = outbox.take_due(now).unwrap();
        assert_eq!(due.status.as_deref(), Some(&devices(2)[..]), "what failed is older than what came meanwhile");
        outbox.is_written(&due.claim);
        assert!(outbox.entries.is_empty(), "nothing is to be remembered");
    }

    #[test]
    fn a_repetition_is_reported_when_it_ends_in_another_way() {
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
                .map(|(gpu, notes)| ("a".to_owned(), gpu.map(|gpu| Devices::from(devices(gpu))), notes))
                .collect();
            assert_eq!(taken, expect, "{case}");
        }
    }

    #[test]
    fn an_unprepared_claim_needs_no_status_any_more() {
        let (mut outbox, now) = (Outbox::new(SECOND), Instant::now());
        outbox.add(prepared("a"), now);
        let due = outbox.take_due(now).unwrap();
        outbox.add(Report::Unprepared { claim: claim("a") }, now);
        assert_eq!(outbox.is_not_written(&due.claim, due.status.unwrap(), now), 0);
        assert!(outbox.entries.is_empty());
        outbox.add(prepared("b"), now);
        outbox.add(Report::Unprepared { claim: claim("b") }, now);
        assert_eq!(take_all(&mut outbox, now), [("b".to_owned(), None, 1)], "its Event is still recorded");
        assert!(outbox.entries.is_empty());
    }

    #[test]
    fn too_many_claims_cost_first_what_is_written_and_then_what_fails() {
        let (mut outbox, now) = (Outbox::new(SECOND), Instant::now());
        outbox.add(prepared("failing"), now);
        let due = outbox.take_due(now).unwrap();
        outbox.is_not_written(&due.claim, due.status.unwrap(), now);
        outbox.add(prepared("written"), now);
        outbox.take_due(now).unwrap();
        outbox.is_written(&claim("written"));
        let dropped: Vec<usize> =
            (2..=MAX_CLAIMS + 1).map(|at| outbox.add(prepared(&format!("new-{at}")), now)).collect();
        assert_eq!(dropped.iter().sum::<usize>(), 1, "the status of the claim that fails");
        assert_eq!(outbox.entries.len(), MAX_CLAIMS);
        assert_eq!(names(&mut outbox, now + SECOND).len(), MAX_CLAIMS);
    }
}
