// SPDX-License-Identifier: Apache-2.0
//! When the claims of an MPS daemon get a new status, and when they get an Event. Pure.
//!
//! The input is the health of each daemon in the order of time; the output is the daemons that are due. A client can stop a
//! daemon each time that it is restarted, and users of a daemon that serves one user at a time may alternate all day. So a
//! status follows each change, the Events of one daemon become rarer ([`EVENT_INTERVALS`]), and alternating users are
//! reported at most once in [`USER_CHANGE_INTERVAL`].

use std::collections::BTreeMap;
use std::time::Duration;

use dra_model::DaemonId;
use dra_resource::status::DaemonHealth;
use tokio::time::Instant;

/// The shortest time between two reports of alternating users.
pub const USER_CHANGE_INTERVAL: Duration = Duration::from_mins(1);

/// The shortest time from the first, second, … Event of a daemon to the next one. The first two failures and restarts are
/// reported at once.
pub const EVENT_INTERVALS: [Duration; 5] =
    [Duration::ZERO, Duration::ZERO, Duration::ZERO, Duration::from_hours(1), Duration::from_hours(6)];

/// The time without an Event after which the next Event of a daemon counts as its first.
const EVENT_COUNT_RESET: Duration = Duration::from_hours(24);

/// The shortest time between two statuses of a daemon whose Events are delayed.
const STATUS_INTERVAL: Duration = Duration::from_mins(1);

/// The time after which the claims of a daemon are searched again, if the search failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// Where the health of a daemon was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// In the list of all daemons. Earlier changes are unknown.
    List,
    /// In the stream of changes, when it changed.
    Stream,
}

/// What a report writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportKind {
    /// Only `status.devices`.
    Status,
    /// `status.devices` and an Event.
    Event,
}

/// The reports of all daemons.
#[derive(Debug, Default)]
pub struct ReportSchedule {
    reported: BTreeMap<DaemonId, Reported>,
    due: BTreeMap<DaemonId, Due>,
}

/// What was reported of a daemon.
#[derive(Debug)]
struct Reported {
    status: DaemonHealth,
    status_at: Instant,
    event: DaemonHealth,
    event_at: Instant,
    /// Number of Events, each within [`EVENT_COUNT_RESET`] of the one before.
    events: usize,
}

/// When reports of a daemon are due. An Event includes the status.
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

impl Reported {
    /// The reports that are due for the present health of a daemon.
    fn due(&self, health: &DaemonHealth, now: Instant) -> Due {
        let is_user_change = is_running(&self.event) && is_running(health);
        let interval = self.event_interval(now);
        let interval = if is_user_change { interval.max(USER_CHANGE_INTERVAL) } else { interval };
        let event = (self.event != *health).then(|| now.max(self.event_at + interval));
        // A change of users has no status of its own before its Event.
        let is_late = event.is_none_or(|event| event > now) && !(is_user_change && event.is_some());
        let status = (is_late && self.status != *health).then(|| now.max(self.status_at + self.status_interval(now)));
        Due { status, event }
    }

    fn event_interval(&self, now: Instant) -> Duration {
        let intervals = EVENT_INTERVALS.iter().take(self.events_at(now)).next_back();
        intervals.copied().unwrap_or_default()
    }

    fn status_interval(&self, now: Instant) -> Duration {
        if self.event_interval(now).is_zero() { Duration::ZERO } else { STATUS_INTERVAL }
    }

    fn events_at(&self, now: Instant) -> usize {
        if now.saturating_duration_since(self.event_at) < EVENT_COUNT_RESET { self.events } else { 0 }
    }
}

impl ReportSchedule {
    /// Schedules reports for the present health of a daemon.
    pub fn update(&mut self, id: &DaemonId, health: &DaemonHealth, source: Source, now: Instant) {
        let due = match self.reported.get(id) {
            Some(reported) => reported.due(health, now),
            None => match (health, source) {
                // It was started for a claim, whose status names it when the claim is prepared.
                (DaemonHealth::Ready, Source::Stream) => {
                    return self.was_reported(id, health.clone(), ReportKind::Status, now);
                }
                // The status that an earlier process wrote may be outdated.
                (DaemonHealth::Ready, Source::List) => Due { status: Some(now), event: None },
                (
                    DaemonHealth::UserWaiting { .. }
                    | DaemonHealth::Exited { .. }
                    | DaemonHealth::Lost
                    | DaemonHealth::GpuFailed { .. }
                    | DaemonHealth::HostUnreachable,
                    _,
                ) => Due { status: None, event: Some(now) },
            },
        };
        self.due.insert(id.clone(), due);
    }

    /// Forgets a daemon that was stopped. If its stop was not in the stream, claims that still use it get a status.
    pub fn remove(&mut self, id: &DaemonId, source: Source, now: Instant) {
        self.reported.remove(id);
        let status = (source == Source::List).then_some(now);
        self.due.insert(id.clone(), Due { status, event: None });
    }

    /// The reports that are due now, at most one for each daemon.
    pub fn take_due(&mut self, now: Instant) -> Vec<(DaemonId, ReportKind)> {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let mut reports = Vec::new();
        for (id, due) in &mut self.due {
            if is_due(due.event) {
                reports.push((id.clone(), ReportKind::Event));
                *due = Due::default();
            } else if is_due(due.status) {
                reports.push((id.clone(), ReportKind::Status));
                due.status = None;
            }
        }
        self.due.retain(|_, due| due.next().is_some());
        reports
    }

    /// The time of the next report.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.values().filter_map(|due| due.next()).min()
    }

    /// Records a report to all claims of a daemon.
    pub fn was_reported(&mut self, id: &DaemonId, health: DaemonHealth, kind: ReportKind, now: Instant) {
        let before = self.reported.remove(id);
        let events = before.as_ref().map_or(0, |before| before.events_at(now));
        let (event, event_at, events) = match (kind, before) {
            (ReportKind::Event, _) => (health.clone(), now, events + 1),
            (ReportKind::Status, Some(before)) => (before.event, before.event_at, before.events),
            (ReportKind::Status, None) => (health.clone(), now, 0),
        };
        self.reported.insert(id.clone(), Reported { status: health, status_at: now, event, event_at, events });
    }

    /// Schedules a report again, because the claims of the daemon are unknown.
    pub fn retry(&mut self, id: &DaemonId, kind: ReportKind, now: Instant) {
        let due = self.due.entry(id.clone()).or_default();
        match kind {
            ReportKind::Status => due.status = Some(now + RETRY_INTERVAL),
            ReportKind::Event => due.event = Some(now + RETRY_INTERVAL),
        }
    }
}

/// Whether the daemon serves clients of at least one user.
const fn is_running(health: &DaemonHealth) -> bool {
    match health {
        DaemonHealth::Ready | DaemonHealth::UserWaiting { .. } => true,
        DaemonHealth::Exited { .. }
        | DaemonHealth::Lost
        | DaemonHealth::GpuFailed { .. }
        | DaemonHealth::HostUnreachable => false,
    }
}

#[cfg(test)]
mod tests {
    use super::DaemonHealth::{HostUnreachable, Lost, Ready};
    use super::ReportKind::{Event, Status};
    use super::Source::{List, Stream};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn id() -> DaemonId {
        "gpu-00112233445566778899aabbccddeeff".parse().unwrap()
    }

    fn waiting() -> DaemonHealth {
        DaemonHealth::UserWaiting { waiting: 1001, active: 1000 }
    }

    fn exited() -> DaemonHealth {
        DaemonHealth::Exited { why: "killed".to_owned() }
    }

    /// The report that is due at once after each observation.
    fn reports(observed: &[(DaemonHealth, Source)]) -> Vec<Option<ReportKind>> {
        let (mut schedule, now) = (ReportSchedule::default(), Instant::now());
        let report = |(health, source): &(DaemonHealth, Source)| {
            schedule.update(&id(), health, *source, now);
            let kind = schedule.take_due(now).pop().map(|(_, kind)| kind);
            if let Some(kind) = kind {
                schedule.was_reported(&id(), health.clone(), kind, now);
            }
            kind
        };
        observed.iter().map(report).collect()
    }

    #[test]
    fn each_new_health_is_reported_once() {
        for (observed, expect) in [
            (vec![(Ready, Stream), (Ready, Stream)], vec![None, None]),
            (vec![(Ready, List), (Ready, Stream)], vec![Some(Status), None]),
            (vec![(Ready, Stream), (exited(), Stream), (Ready, Stream)], vec![None, Some(Event), Some(Event)]),
            (vec![(Ready, Stream), (Lost, List), (Lost, Stream)], vec![None, Some(Event), None]),
            (vec![(HostUnreachable, List), (Ready, List)], vec![Some(Event), Some(Event)]),
            (vec![(waiting(), List), (exited(), Stream)], vec![Some(Event), Some(Event)]),
        ] {
            assert_eq!(reports(&observed), expect, "{observed:?}");
        }
    }

    #[test]
    fn alternating_users_are_reported_once_a_minute_and_at_the_end() {
        let (mut schedule, start) = (ReportSchedule::default(), Instant::now());
        schedule.update(&id(), &Ready, Stream, start);
        let mut reports = Vec::new();
        for second in 0..180 {
            let now = start + SECOND * second;
            let health = if second < 150 && second % 2 == 0 { waiting() } else { Ready };
            schedule.update(&id(), &health, Stream, now);
            for (id, kind) in schedule.take_due(now) {
                schedule.was_reported(&id, health.clone(), kind, now);
                reports.push((second, kind, health.clone()));
            }
        }
        assert_eq!(reports, [(60, Event, waiting()), (121, Event, Ready)]);
        assert_eq!(schedule.next_due(), None, "everything is reported");
    }

    /// The reports of a daemon that exits and is restarted each `period` seconds, by second.
    fn reports_of_an_unstable_daemon(seconds: u64, period: u64) -> Vec<(u64, ReportKind)> {
        let (mut schedule, start) = (ReportSchedule::default(), Instant::now());
        schedule.update(&id(), &Ready, Stream, start);
        let mut reports = Vec::new();
        for second in 0..seconds {
            let now = start + Duration::from_secs(second);
            let health = if second % period == 0 { exited() } else { Ready };
            schedule.update(&id(), &health, Stream, now);
            for (id, kind) in schedule.take_due(now) {
                schedule.was_reported(&id, health.clone(), kind, now);
                reports.push((second, kind));
            }
        }
        reports
    }

    #[test]
    fn a_daemon_that_exits_repeatedly_causes_at_most_eight_events_a_day_and_one_status_a_minute() {
        const DAY: u64 = 24 * 60 * 60;
        for period in [2, 31, 61, 600] {
            let reports = reports_of_an_unstable_daemon(DAY, period);
            let events: Vec<u64> = reports.iter().filter(|(_, kind)| *kind == Event).map(|(at, _)| *at).collect();
            assert_eq!(events[..4], [0, 1, period, period + 1], "the first Events are due at once");
            assert!((5..=8).contains(&events.len()), "{period}: {events:?}");
            let statuses = reports.len() - events.len();
            assert!(statuses <= usize::try_from(DAY / 60).unwrap(), "{period}: {statuses}");
        }
    }

    #[test]
    fn statuses_continue_while_events_are_delayed_and_a_day_without_events_ends_the_delay() {
        let (mut schedule, start) = (ReportSchedule::default(), Instant::now());
        let mut report = |health: DaemonHealth, now: Instant| {
            schedule.update(&id(), &health, Stream, now);
            let reports = schedule.take_due(now);
            for (id, kind) in &reports {
                schedule.was_reported(id, health.clone(), *kind, now);
            }
            (reports.first().map(|(_, kind)| *kind), schedule.next_due())
        };
        assert_eq!(report(Ready, start), (None, None));
        for health in [exited(), Ready, exited(), Ready] {
            assert_eq!(report(health, start), (Some(Event), None));
        }
        // Two statuses are at least a minute apart.
        let (minute, hour) = (Duration::from_mins(1), Duration::from_hours(1));
        assert_eq!(report(exited(), start + minute), (Some(Status), Some(start + hour)));
        assert_eq!(report(Ready, start + minute * 2), (Some(Status), None));
        assert_eq!(report(exited(), start + hour * 24), (Some(Event), None));
        assert_eq!(report(Ready, start + hour * 24), (Some(Event), None));
    }

    #[test]
    fn a_failed_report_is_retried_until_the_daemon_is_removed() {
        let (mut schedule, start) = (ReportSchedule::default(), Instant::now());
        schedule.update(&id(), &exited(), List, start);
        assert_eq!(schedule.take_due(start), [(id(), Event)]);
        schedule.retry(&id(), Event, start);
        assert_eq!(schedule.take_due(start), []);
        assert_eq!(schedule.next_due(), Some(start + RETRY_INTERVAL));
        assert_eq!(schedule.take_due(start + RETRY_INTERVAL), [(id(), Event)]);
        schedule.retry(&id(), Event, start);
        schedule.remove(&id(), Stream, start);
        assert_eq!(schedule.next_due(), None);
    }

    #[test]
    fn a_stop_that_was_not_in_the_stream_updates_the_status_without_an_event() {
        let (mut schedule, now) = (ReportSchedule::default(), Instant::now());
        schedule.update(&id(), &Ready, Stream, now);
        schedule.remove(&id(), List, now);
        assert_eq!(schedule.take_due(now), [(id(), Status)]);
        schedule.update(&id(), &Ready, Stream, now);
        assert_eq!(schedule.next_due(), None, "the status of its claim names the next daemon");
    }
}
