// SPDX-License-Identifier: Apache-2.0
//! What of the MPS daemons their claims have still to hear, when, and how loudly. Pure.
//!
//! In comes how each daemon is, in the order of time; out goes which one is to be told of now. A sharer can end a daemon
//! whenever it is back, and users of one that serves one user at a time may change places all day. So statuses follow each
//! change, Events of one daemon are rarer and rarer ([`PAUSES`]), and of turns nobody hears more often than once in
//! [`TURN`].

use std::collections::BTreeMap;
use std::time::Duration;

use dra_model::DaemonId;
use dra_resource::status::DaemonHealth;
use tokio::time::Instant;

/// How long those who were told of a turn hear of no other.
pub const TURN: Duration = Duration::from_mins(1);

/// How long after the first, second, … Event of a daemon the next one comes at the earliest: two ends and returns are told
/// at once.
pub const PAUSES: [Duration; 5] =
    [Duration::ZERO, Duration::ZERO, Duration::ZERO, Duration::from_hours(1), Duration::from_hours(6)];

/// After which time without an Event of it the next one of a daemon is its first.
const CALM: Duration = Duration::from_hours(24);

/// How far apart the statuses of a daemon are at least whose Events pause.
const STATUS_INTERVAL: Duration = Duration::from_mins(1);

/// After which time claims that could not be found are looked for again.
const AGAIN: Duration = Duration::from_secs(10);

/// Where it is heard how a daemon is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// From the list of all there are: what happened before was not heard.
    InList,
    /// When it happened.
    AtOnce,
}

/// How claims are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// Their status is put right, if it was wrong.
    Quiet,
    /// With an Event as well.
    Loud,
}

/// See the module.
#[derive(Debug, Default)]
pub struct News {
    told: BTreeMap<DaemonId, Told>,
    due: BTreeMap<DaemonId, Due>,
}

/// What the claims of a daemon know.
#[derive(Debug)]
struct Told {
    /// What their statuses say, and since when.
    status: DaemonHealth,
    status_at: Instant,
    /// What the last Event said, and when.
    event: DaemonHealth,
    event_at: Instant,
    /// Events without a time of calm between them.
    events: usize,
}

/// What the claims of a daemon are to hear. An Event brings the status with it.
#[derive(Debug, Clone, Copy, Default)]
struct Due {
    status: Option<Instant>,
    event: Option<Instant>,
}

impl Due {
    fn next(self) -> Option<Instant> {
        self.status.into_iter().chain(self.event).min()
    }
}

impl Told {
    /// What is to be told of a daemon that is so now.
    fn due(&self, health: &DaemonHealth, now: Instant) -> Due {
        let is_turn = is_turn(&self.event) && is_turn(health);
        let pause = if is_turn { self.pause(now).max(TURN) } else { self.pause(now) };
        let event = (self.event != *health).then(|| now.max(self.event_at + pause));
        // A turn is told as a whole, and late.
        let is_late = event.is_none_or(|event| event > now) && !(is_turn && event.is_some());
        let status = (is_late && self.status != *health).then(|| now.max(self.status_at + self.status_pause(now)));
        Due { status, event }
    }

    /// How long after its last Event the next one of a daemon comes at the earliest.
    fn pause(&self, now: Instant) -> Duration {
        let pauses = PAUSES.iter().take(self.events_at(now)).next_back();
        pauses.copied().unwrap_or_default()
    }

    fn status_pause(&self, now: Instant) -> Duration {
        if self.pause(now).is_zero() { Duration::ZERO } else { STATUS_INTERVAL }
    }

    fn events_at(&self, now: Instant) -> usize {
        if now.saturating_duration_since(self.event_at) < CALM { self.events } else { 0 }
    }
}

impl News {
    /// A daemon is so.
    pub fn is(&mut self, id: &DaemonId, health: &DaemonHealth, heard: Heard, now: Instant) {
        let due = match self.told.get(id) {
            Some(told) => told.due(health, now),
            None => match (health, heard) {
                // It was started for a claim, which is told of it with its devices.
                (DaemonHealth::Ready, Heard::AtOnce) => {
                    return self.was_told(id, health.clone(), Telling::Quiet, now);
                }
                // What an earlier process told may be no longer so.
                (DaemonHealth::Ready, Heard::InList) => Due { status: Some(now), event: None },
                (
                    DaemonHealth::UserWaiting { .. }
                    | DaemonHealth::Exited { .. }
                    | DaemonHealth::Lost
                    | DaemonHealth::HostUnreachable,
                    _,
                ) => Due { status: None, event: Some(now) },
            },
        };
        self.due.insert(id.clone(), due);
    }

    /// There is no such daemon any more. Claims that still have one hear of it where its end was missed.
    pub fn is_gone(&mut self, id: &DaemonId, heard: Heard, now: Instant) {
        self.told.remove(id);
        let status = (heard == Heard::InList).then_some(now);
        self.due.insert(id.clone(), Due { status, event: None });
    }

    /// What is to be told now; each is named once.
    pub fn take_due(&mut self, now: Instant) -> Vec<(DaemonId, Telling)> {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let mut tellings = Vec::new();
        for (id, due) in &mut self.due {
            if is_due(due.event) {
                tellings.push((id.clone(), Telling::Loud));
                *due = Due::default();
            } else if is_due(due.status) {
                tellings.push((id.clone(), Telling::Quiet));
                due.status = None;
            }
        }
        self.due.retain(|_, due| due.next().is_some());
        tellings
    }

    /// When something is to be told next.
    pub fn next(&self) -> Option<Instant> {
        self.due.values().filter_map(|due| due.next()).min()
    }

    /// Its claims know how it is.
    pub fn was_told(&mut self, id: &DaemonId, health: DaemonHealth, telling: Telling, now: Instant) {
        let before = self.told.remove(id);
        let events = before.as_ref().map_or(0, |told| told.events_at(now));
        let (event, event_at, events) = match (telling, before) {
            (Telling::Loud, _) => (health.clone(), now, events + 1),
            (Telling::Quiet, Some(before)) => (before.event, before.event_at, before.events),
            (Telling::Quiet, None) => (health.clone(), now, 0),
        };
        self.told.insert(id.clone(), Told { status: health, status_at: now, event, event_at, events });
    }

    /// Its claims could not be told.
    pub fn was_not_told(&mut self, id: &DaemonId, telling: Telling, now: Instant) {
        let due = self.due.entry(id.clone()).or_default();
        match telling {
            Telling::Quiet => due.status = Some(now + AGAIN),
            Telling::Loud => due.event = Some(now + AGAIN),
        }
    }
}

/// Whether clients come and go as they should.
const fn is_turn(health: &DaemonHealth) -> bool {
    match health {
        DaemonHealth::Ready | DaemonHealth::UserWaiting { .. } => true,
        DaemonHealth::Exited { .. } | DaemonHealth::Lost | DaemonHealth::HostUnreachable => false,
    }
}

#[cfg(test)]
mod tests {
    use super::DaemonHealth::{HostUnreachable, Lost, Ready};
    use super::Heard::{AtOnce, InList};
    use super::Telling::{Loud, Quiet};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn id() -> DaemonId {
        "gpu-00112233445566778899aabbccddeeff".parse().unwrap()
    }

    fn waits() -> DaemonHealth {
        DaemonHealth::UserWaiting { waiting: 1001, active: 1000 }
    }

    fn died() -> DaemonHealth {
        DaemonHealth::Exited { why: "killed".to_owned() }
    }

    /// What is told at once, each time that the daemon is heard to be so.
    fn told(heard: &[(DaemonHealth, Heard)]) -> Vec<Option<Telling>> {
        let (mut news, now) = (News::default(), Instant::now());
        let tell = |(health, heard): &(DaemonHealth, Heard)| {
            news.is(&id(), health, *heard, now);
            let telling = news.take_due(now).pop().map(|(_, telling)| telling);
            if let Some(telling) = telling {
                news.was_told(&id(), health.clone(), telling, now);
            }
            telling
        };
        heard.iter().map(tell).collect()
    }

    #[test]
    fn what_is_not_known_yet_is_told() {
        for (heard, expect) in [
            (vec![(Ready, AtOnce), (Ready, AtOnce)], vec![None, None]),
            (vec![(Ready, InList), (Ready, AtOnce)], vec![Some(Quiet), None]),
            (vec![(Ready, AtOnce), (died(), AtOnce), (Ready, AtOnce)], vec![None, Some(Loud), Some(Loud)]),
            (vec![(Ready, AtOnce), (Lost, InList), (Lost, AtOnce)], vec![None, Some(Loud), None]),
            (vec![(HostUnreachable, InList), (Ready, InList)], vec![Some(Loud), Some(Loud)]),
            (vec![(waits(), InList), (died(), AtOnce)], vec![Some(Loud), Some(Loud)]),
        ] {
            assert_eq!(told(&heard), expect, "{heard:?}");
        }
    }

    #[test]
    fn of_turns_is_told_once_in_a_while_and_how_they_ended() {
        let (mut news, start) = (News::default(), Instant::now());
        news.is(&id(), &Ready, AtOnce, start);
        let mut tellings = Vec::new();
        for second in 0..180 {
            let now = start + SECOND * second;
            let health = if second < 150 && second % 2 == 0 { waits() } else { Ready };
            news.is(&id(), &health, AtOnce, now);
            for (id, telling) in news.take_due(now) {
                news.was_told(&id, health.clone(), telling, now);
                tellings.push((second, telling, health.clone()));
            }
        }
        assert_eq!(tellings, [(60, Loud, waits()), (121, Loud, Ready)]);
        assert_eq!(news.next(), None, "all is told");
    }

    /// What is told of a daemon that ends and is back again and again, by second.
    fn told_of_one_that_keeps_ending(seconds: u64, life: u64) -> Vec<(u64, Telling)> {
        let (mut news, start) = (News::default(), Instant::now());
        news.is(&id(), &Ready, AtOnce, start);
        let mut tellings = Vec::new();
        for second in 0..seconds {
            let now = start + Duration::from_secs(second);
            let health = if second % life == 0 { died() } else { Ready };
            news.is(&id(), &health, AtOnce, now);
            for (id, telling) in news.take_due(now) {
                news.was_told(&id, health.clone(), telling, now);
                tellings.push((second, telling));
            }
        }
        tellings
    }

    #[test]
    fn a_daemon_that_keeps_ending_costs_its_claims_a_handful_of_events_a_day_and_few_statuses() {
        const DAY: u64 = 24 * 60 * 60;
        for life in [2, 31, 61, 600] {
            let tellings = told_of_one_that_keeps_ending(DAY, life);
            let events: Vec<u64> = tellings.iter().filter(|(_, telling)| *telling == Loud).map(|(at, _)| *at).collect();
            assert_eq!(events[..4], [0, 1, life, life + 1], "the first ones are told at once");
            assert!((5..=8).contains(&events.len()), "{life}: {events:?}");
            let statuses = tellings.len() - events.len();
            assert!(statuses <= usize::try_from(DAY / 60).unwrap(), "{life}: {statuses}");
        }
    }

    #[test]
    fn statuses_follow_where_events_pause_and_a_day_of_calm_ends_the_pause() {
        let (mut news, start) = (News::default(), Instant::now());
        let mut told = |health: DaemonHealth, now: Instant| {
            news.is(&id(), &health, AtOnce, now);
            let tellings = news.take_due(now);
            for (id, telling) in &tellings {
                news.was_told(id, health.clone(), *telling, now);
            }
            (tellings.first().map(|(_, telling)| *telling), news.next())
        };
        assert_eq!(told(Ready, start), (None, None));
        for health in [died(), Ready, died(), Ready] {
            assert_eq!(told(health, start), (Some(Loud), None));
        }
        // Its status is a minute old at the earliest when the next one is written.
        let (minute, hour) = (Duration::from_mins(1), Duration::from_hours(1));
        assert_eq!(told(died(), start + minute), (Some(Quiet), Some(start + hour)));
        assert_eq!(told(Ready, start + minute * 2), (Some(Quiet), None));
        assert_eq!(told(died(), start + hour * 24), (Some(Loud), None));
        assert_eq!(told(Ready, start + hour * 24), (Some(Loud), None));
    }

    #[test]
    fn what_could_not_be_told_is_told_later_unless_it_is_over() {
        let (mut news, start) = (News::default(), Instant::now());
        news.is(&id(), &died(), InList, start);
        assert_eq!(news.take_due(start), [(id(), Loud)]);
        news.was_not_told(&id(), Loud, start);
        assert_eq!(news.take_due(start), []);
        assert_eq!(news.next(), Some(start + AGAIN));
        assert_eq!(news.take_due(start + AGAIN), [(id(), Loud)]);
        news.was_not_told(&id(), Loud, start);
        news.is_gone(&id(), AtOnce, start);
        assert_eq!(news.next(), None);
    }

    #[test]
    fn an_end_that_was_missed_is_told_quietly() {
        let (mut news, now) = (News::default(), Instant::now());
        news.is(&id(), &Ready, AtOnce, now);
        news.is_gone(&id(), InList, now);
        assert_eq!(news.take_due(now), [(id(), Quiet)]);
        news.is(&id(), &Ready, AtOnce, now);
        assert_eq!(news.next(), None, "the next one is told with its claim");
    }
}
