// SPDX-License-Identifier: Apache-2.0
//! What was said about each pod, and when it is looked at again. Pure.
//!
//! A look at the cluster reads all ResourceSlices, so a pod is looked at again only after [`LOOK_AGAIN`], and pods that wait for each
//! other's looks share one. A text that is the same is said again before the API server forgets its Event, after an hour.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

/// Between two looks at one pod.
const LOOK_AGAIN: Duration = Duration::from_mins(5);

/// Between two Events with the same text (`--event-ttl` of the API server is an hour).
const SAY_AGAIN: Duration = Duration::from_mins(50);

/// Pods that are explained in one round.
const MAX_AT_ONCE: usize = 20;

/// The pods that wait, by UID.
#[derive(Debug, Default)]
pub(crate) struct Reported(BTreeMap<String, Entry>);

#[derive(Debug)]
struct Entry {
    looked: Instant,
    /// The last text, and the time of its Event.
    said: Option<(String, Instant)>,
}

impl Reported {
    /// The pods to look at now, those that were never looked at first. Pods that wait no more are forgotten.
    pub(crate) fn due<'a>(&mut self, waiting: &BTreeSet<&'a str>, now: Instant) -> Vec<&'a str> {
        self.0.retain(|uid, _| waiting.contains(uid.as_str()));
        let looked = |uid: &str| self.0.get(uid).map(|entry| entry.looked);
        let is_due = |uid: &&&str| looked(uid).is_none_or(|looked| now >= looked + LOOK_AGAIN);
        let mut due: Vec<&str> = waiting.iter().filter(is_due).copied().collect();
        due.sort_by_key(|uid| looked(uid));
        due.truncate(MAX_AT_ONCE);
        due
    }

    /// A pod was looked at, with this answer; whether it is to be said.
    pub(crate) fn looked(&mut self, uid: &str, text: Option<&str>, now: Instant) -> bool {
        let entry = self.0.entry(uid.to_owned()).or_insert(Entry { looked: now, said: None });
        entry.looked = now;
        let Some(text) = text else { return false };
        entry.said.as_ref().is_none_or(|(said, at)| said != text || now >= *at + SAY_AGAIN)
    }

    /// The Events with this text are recorded.
    pub(crate) fn said(&mut self, uid: &str, text: &str, now: Instant) {
        if let Some(entry) = self.0.get_mut(uid) {
            entry.said = Some((text.to_owned(), now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_looked_at_every_five_minutes_and_a_text_is_said_once_an_hour() {
        let (mut reported, start) = (Reported::default(), Instant::now());
        let mut said = Vec::new();
        for minute in 0..120 {
            let now = start + Duration::from_mins(minute);
            for uid in reported.due(&BTreeSet::from(["a"]), now) {
                let text = if minute < 60 { "one" } else { "two" };
                if reported.looked(uid, Some(text), now) {
                    reported.said(uid, text, now);
                    said.push((minute, text));
                }
            }
        }
        assert_eq!(said, [(0, "one"), (50, "one"), (60, "two"), (110, "two")]);
    }

    #[test]
    fn an_event_that_could_not_be_recorded_is_tried_again_at_the_next_look() {
        let (mut reported, start) = (Reported::default(), Instant::now());
        assert!(reported.looked("a", Some("x"), start));
        assert!(reported.looked("a", Some("x"), start + LOOK_AGAIN), "it was not said");
        assert!(!reported.looked("a", None, start + LOOK_AGAIN * 2), "there is nothing to say");
    }

    #[test]
    fn many_pods_take_turns_and_new_ones_come_first() {
        let (mut reported, start) = (Reported::default(), Instant::now());
        let names: Vec<String> = (0..45).map(|at| format!("{at:02}")).collect();
        let waiting: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let mut looked = BTreeSet::new();
        for round in 0..3 {
            let now = start + Duration::from_secs(round);
            for uid in reported.due(&waiting, now) {
                reported.looked(uid, None, now);
                assert!(looked.insert(uid), "{uid} twice");
            }
        }
        assert_eq!(looked.len(), 45);
        let with_new = waiting.iter().copied().chain(["new"]).collect();
        assert_eq!(reported.due(&with_new, start + LOOK_AGAIN).first(), Some(&"new"));
        reported.due(&BTreeSet::new(), start);
        assert!(reported.0.is_empty(), "pods that wait no more are forgotten");
    }
}
