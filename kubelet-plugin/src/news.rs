// SPDX-License-Identifier: Apache-2.0
//! What of the MPS daemons their claims have still to hear, when, and how loudly. Pure.
//!
//! In comes how each daemon is, in the order of time; out goes which one is to be told of now. The users of a daemon that
//! serves one user at a time may change places all day: of turns nobody hears more often than once in [`TURN`].

use std::collections::BTreeMap;
use std::time::Duration;

use dra_model::DaemonId;
use dra_resource::status::DaemonHealth;
use tokio::time::Instant;

/// How long those who were told of a turn hear of no other.
pub const TURN: Duration = Duration::from_mins(1);

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
    due: BTreeMap<DaemonId, (Instant, Telling)>,
}

#[derive(Debug)]
struct Told {
    health: DaemonHealth,
    at: Instant,
}

impl News {
    /// A daemon is so.
    pub fn is(&mut self, id: &DaemonId, health: &DaemonHealth, heard: Heard, now: Instant) {
        let due = match self.told.get(id) {
            Some(told) if told.health == *health => {
                self.due.remove(id);
                return;
            }
            Some(told) if is_turn(&told.health) && is_turn(health) => (now.max(told.at + TURN), Telling::Loud),
            Some(_) => (now, Telling::Loud),
            None => match (health, heard) {
                // It was started for a claim, which is told of it with its devices.
                (DaemonHealth::Ready, Heard::AtOnce) => return self.was_told(id, health.clone(), now),
                // What an earlier process told may be no longer so.
                (DaemonHealth::Ready, Heard::InList) => (now, Telling::Quiet),
                (
                    DaemonHealth::UserWaits { .. }
                    | DaemonHealth::Died { .. }
                    | DaemonHealth::Lost
                    | DaemonHealth::HostAway,
                    _,
                ) => (now, Telling::Loud),
            },
        };
        self.due.insert(id.clone(), due);
    }

    /// There is no such daemon any more. Claims that still have one hear of it where its end was missed.
    pub fn is_gone(&mut self, id: &DaemonId, heard: Heard, now: Instant) {
        self.told.remove(id);
        match heard {
            Heard::InList => self.due.insert(id.clone(), (now, Telling::Quiet)),
            Heard::AtOnce => self.due.remove(id),
        };
    }

    /// What is to be told now; each is named once.
    pub fn take_due(&mut self, now: Instant) -> Vec<(DaemonId, Telling)> {
        let due = self.due.extract_if(.., |_, (at, _)| *at <= now);
        due.map(|(id, (_, telling))| (id, telling)).collect()
    }

    /// When something is to be told next.
    pub fn next(&self) -> Option<Instant> {
        self.due.values().map(|(at, _)| *at).min()
    }

    /// Its claims know how it is.
    pub fn was_told(&mut self, id: &DaemonId, health: DaemonHealth, now: Instant) {
        self.told.insert(id.clone(), Told { health, at: now });
    }

    /// Its claims could not be told.
    pub fn was_not_told(&mut self, id: &DaemonId, telling: Telling, now: Instant) {
        self.due.insert(id.clone(), (now + AGAIN, telling));
    }
}

/// Whether clients come and go as they should.
const fn is_turn(health: &DaemonHealth) -> bool {
    match health {
        DaemonHealth::Ready | DaemonHealth::UserWaits { .. } => true,
        DaemonHealth::Died { .. } | DaemonHealth::Lost | DaemonHealth::HostAway => false,
    }
}

#[cfg(test)]
mod tests {
    use super::DaemonHealth::{HostAway, Lost, Ready};
    use super::Heard::{AtOnce, InList};
    use super::Telling::{Loud, Quiet};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn id() -> DaemonId {
        "gpu-00112233445566778899aabbccddeeff".parse().unwrap()
    }

    fn waits() -> DaemonHealth {
        DaemonHealth::UserWaits { waiting: 1001, active: 1000 }
    }

    fn died() -> DaemonHealth {
        DaemonHealth::Died { why: "killed".to_owned() }
    }

    /// What is told at once, each time that the daemon is heard to be so.
    fn told(heard: &[(DaemonHealth, Heard)]) -> Vec<Option<Telling>> {
        let (mut news, now) = (News::default(), Instant::now());
        let tell = |(health, heard): &(DaemonHealth, Heard)| {
            news.is(&id(), health, *heard, now);
            let telling = news.take_due(now).pop().map(|(_, telling)| telling);
            if telling.is_some() {
                news.was_told(&id(), health.clone(), now);
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
            (vec![(HostAway, InList), (Ready, InList)], vec![Some(Loud), Some(Loud)]),
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
                news.was_told(&id, health.clone(), now);
                tellings.push((second, telling, health.clone()));
            }
        }
        assert_eq!(tellings, [(60, Loud, waits()), (121, Loud, Ready)]);
        assert_eq!(news.next(), None, "all is told");
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
