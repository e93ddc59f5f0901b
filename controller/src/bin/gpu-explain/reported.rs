// SPDX-License-Identifier: Apache-2.0
//! What was reported about each pod, and when it is checked next. Pure.
//!
//! A check reads all ResourceSlices, so a pod is checked only every [`CHECK_INTERVAL`], and pods that are due share one reading. The same
//! text is reported again before the API server removes its Event, after an hour.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

/// Between two checks of one pod.
const CHECK_INTERVAL: Duration = Duration::from_mins(5);

/// Between two Events with the same text (`--event-ttl` of the API server is an hour).
const REPEAT_INTERVAL: Duration = Duration::from_mins(50);

/// Pods that are explained in one round.
const MAX_AT_ONCE: usize = 20;

/// The pods that wait, by UID.
#[derive(Debug, Default)]
pub(crate) struct Reported(BTreeMap<String, Entry>);

#[derive(Debug)]
struct Entry {
    checked: Instant,
    /// The last text, and the time of its Event.
    recorded: Option<(String, Instant)>,
}

impl Reported {
    /// The pods to check now, those that were never checked first. Pods that wait no more are forgotten.
    pub(crate) fn due<'a>(&mut self, waiting: &BTreeSet<&'a str>, now: Instant) -> Vec<&'a str> {
        self.0.retain(|uid, _| waiting.contains(uid.as_str()));
        let checked = |uid: &str| self.0.get(uid).map(|entry| entry.checked);
        let is_due = |uid: &&&str| checked(uid).is_none_or(|checked| now >= checked + CHECK_INTERVAL);
        let mut due: Vec<&str> = waiting.iter().filter(is_due).copied().collect();
        due.sort_by_key(|uid| checked(uid));
        due.truncate(MAX_AT_ONCE);
        due
    }

    /// A pod was checked, with this answer; whether it is to be reported.
    pub(crate) fn checked(&mut self, uid: &str, text: Option<&str>, now: Instant) -> bool {
        let entry = self.0.entry(uid.to_owned()).or_insert(Entry { checked: now, recorded: None });
        entry.checked = now;
        let Some(text) = text else { return false };
        entry.recorded.as_ref().is_none_or(|(recorded, at)| recorded != text || now >= *at + REPEAT_INTERVAL)
    }

    /// The Events with this text are recorded.
    pub(crate) fn recorded(&mut self, uid: &str, text: &str, now: Instant) {
        if let Some(entry) = self.0.get_mut(uid) {
            entry.recorded = Some((text.to_owned(), now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_checked_every_five_minutes_and_a_text_is_repeated_once_an_hour() {
        let (mut reported, start) = (Reported::default(), Instant::now());
        let mut events = Vec::new();
        for minute in 0..120 {
            let now = start + Duration::from_mins(minute);
            for uid in reported.due(&BTreeSet::from(["a"]), now) {
                let text = if minute < 60 { "one" } else { "two" };
                if reported.checked(uid, Some(text), now) {
                    reported.recorded(uid, text, now);
                    events.push((minute, text));
                }
            }
        }
        assert_eq!(events, [(0, "one"), (50, "one"), (60, "two"), (110, "two")]);
    }

    #[test]
    fn an_event_that_could_not_be_recorded_is_tried_again_at_the_next_check() {
        let (mut reported, start) = (Reported::default(), Instant::now());
        assert!(reported.checked("a", Some("x"), start));
        assert!(reported.checked("a", Some("x"), start + CHECK_INTERVAL), "it was not recorded");
        assert!(!reported.checked("a", None, start + CHECK_INTERVAL * 2), "there is nothing to report");
    }

    #[test]
    fn of_many_pods_each_is_checked_and_new_ones_come_first() {
        let (mut reported, start) = (Reported::default(), Instant::now());
        let names: Vec<String> = (0..45).map(|at| format!("{at:02}")).collect();
        let waiting: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let mut checked = BTreeSet::new();
        for round in 0..3 {
            let now = start + Duration::from_secs(round);
            for uid in reported.due(&waiting, now) {
                reported.checked(uid, None, now);
                assert!(checked.insert(uid), "{uid} twice");
            }
        }
        assert_eq!(checked.len(), 45);
        let with_new = waiting.iter().copied().chain(["new"]).collect();
        assert_eq!(reported.due(&with_new, start + CHECK_INTERVAL).first(), Some(&"new"));
        reported.due(&BTreeSet::new(), start);
        assert!(reported.0.is_empty(), "pods that wait no more are forgotten");
    }
}
