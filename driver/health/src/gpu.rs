// SPDX-License-Identifier: Apache-2.0
//! The faults of one GPU, from the first sign to the proof that it is well again.

use std::collections::{BTreeMap, BTreeSet};

use dra_model::{Cause, Effect, Finding, Placement, Slowdown};
use serde::de::value::StringDeserializer;
use serde::{Deserialize, Deserializer, Serialize};

use crate::policy::{Fault, Policy};
use crate::xid::{self, XidAction};

/// What is known about the health of one GPU. It survives the process on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GpuHealth {
    #[serde(deserialize_with = "known_faults")]
    faults: BTreeMap<Fault, Active>,
    /// When faults were cleared by proof, in the last day.
    cleared: Vec<u64>,
}

/// A newer version may have stored faults that this one does not know. The others count.
fn known_faults<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<Fault, Active>, D::Error> {
    let stored = BTreeMap::<String, Active>::deserialize(deserializer)?;
    let known = |name: String| Fault::deserialize(StringDeserializer::<D::Error>::new(name)).ok();
    Ok(stored.into_iter().filter_map(|(name, active)| Some((known(name)?, active))).collect())
}

/// A fault that is not over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Active {
    since: u64,
    /// When it showed last, and in which boot.
    last: u64,
    boot_id: String,
    /// The XID that came with it.
    xid: Option<u64>,
    scope: Option<Placement>,
    /// Since when, and how often in a row, the GPU was proven well.
    well: Option<Well>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Well {
    since: u64,
    polls: u32,
}

/// Something that was learned about a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// An XID, with the recovery action that was read after it: absent where the driver has none.
    Xid { xid: u64, scope: Option<Placement>, recovery_action: Option<u32> },
    /// The GPU answers: handle, UUID and memory were read.
    Answers(Answer),
    /// `NVML_ERROR_GPU_IS_LOST`.
    Lost,
    /// `NVML_ERROR_RESET_REQUIRED`.
    ResetRequired,
    /// It has not answered for long.
    Silent,
    /// An administrator declares the GPU well.
    Cleared,
}

/// What a GPU reports when it answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answer {
    /// Absent where the driver has none.
    pub recovery_action: Option<u32>,
    pub is_remap_pending: bool,
    pub has_remap_failed: bool,
    pub is_fabric_pending: bool,
    pub slowdown: Slowdown,
}

impl Answer {
    /// The faults that it shows.
    fn faults(self) -> impl Iterator<Item = Fault> {
        let of_action = self.recovery_action.and_then(fault_of_action);
        let is_reported = |(is_reported, fault): (bool, Fault)| is_reported.then_some(fault);
        let of_flags = [
            (self.has_remap_failed, Fault::RemapFailed),
            (self.is_remap_pending, Fault::ResetDue),
            (self.is_fabric_pending, Fault::FabricPending),
            (self.slowdown.is_thermal, Fault::ThermalSlowdown),
            (self.slowdown.is_power_brake, Fault::PowerBrake),
        ];
        of_action.into_iter().chain(of_flags.into_iter().filter_map(is_reported))
    }
}

/// The value of the finding of an uncontained memory error, after which no process can use the GPU.
pub const UNCONTAINED: &str = "uncontained";
/// Clocks are lowered for moments on many GPUs: only what lasts is a fault, and it is over when it was away as long.
const THROTTLED_SECONDS: u64 = 60;
/// Longer than an error needs to come back.
const PROOF_SECONDS: u64 = 30;
/// A GPU that was cleared this often within a day stays out until an administrator acts.
const MAX_CLEARED: usize = 3;
const DAY_SECONDS: u64 = 24 * 60 * 60;

impl GpuHealth {
    /// Takes a signal at a time (seconds since 1970) in a boot.
    pub fn observe(&mut self, signal: Signal, now: u64, boot_id: &str) {
        match signal {
            Signal::Xid { xid, scope, recovery_action } => {
                // A cure is one of the whole GPU, also where one of its instances is to blame.
                if let Some(fault) = recovery_action.and_then(fault_of_action) {
                    self.begin(fault, now, boot_id, Some(xid), None);
                }
                match fault_of_xid(xid, recovery_action) {
                    Some(Fault::Lost) => self.begin(Fault::Lost, now, boot_id, Some(xid), None),
                    Some(fault) => self.begin(fault, now, boot_id, Some(xid), scope),
                    None => {}
                }
            }
            Signal::Answers(answer) => {
                let reported: BTreeSet<Fault> = answer.faults().collect();
                for fault in &reported {
                    self.begin(*fault, now, boot_id, None, None);
                }
                self.prove(&reported, now, boot_id);
            }
            Signal::Lost => self.begin(Fault::Lost, now, boot_id, None, None),
            Signal::ResetRequired => self.begin(Fault::NeedsReset, now, boot_id, None, None),
            Signal::Silent => self.begin(Fault::Silent, now, boot_id, None, None),
            Signal::Cleared => *self = Self::default(),
        }
    }

    /// A fault begins, or shows again: then its proof starts anew, and it keeps its age.
    fn begin(&mut self, fault: Fault, now: u64, boot_id: &str, xid: Option<u64>, scope: Option<Placement>) {
        let new = || Active { since: now, last: now, boot_id: boot_id.to_owned(), xid, scope, well: None };
        let active = self.faults.entry(fault).or_insert_with(new);
        (active.last, active.well) = (now, None);
        active.boot_id.replace_range(.., boot_id);
        active.xid = active.xid.or(xid);
        // A second one elsewhere is about the whole GPU.
        active.scope = active.scope.filter(|known| Some(*known) == scope);
    }

    /// Counts an answer of the GPU that shows some faults as a proof against each other one that it disproves.
    fn prove(&mut self, reported: &BTreeSet<Fault>, now: u64, boot_id: &str) {
        let (mut is_cleared, mut reset_at) = (false, None);
        self.faults.retain(|fault, active| {
            // The reset that the driver recommended was made after it showed: the order of the faults has that one first.
            let is_reset = reset_at.is_some_and(|at| active.last < at);
            if is_reset && matches!(fault, Fault::XidReset | Fault::Uncontained) {
                return false;
            }
            let is_gone = !reported.contains(fault) && fault.can_end(boot_id != active.boot_id);
            if !is_gone {
                active.well = None;
                return true;
            }
            let well = active.well.map_or(Well { since: now, polls: 1 }, |well| Well { polls: well.polls + 1, ..well });
            active.well = Some(well);
            let (polls, seconds) = if active.is_found(*fault) { fault.proof() } else { (1, 0) };
            let is_over = well.polls >= polls && now.saturating_sub(well.since) >= seconds;
            is_cleared |= is_over && fault.is_of_gpu();
            if is_over && *fault == Fault::NeedsReset {
                reset_at = Some(well.since);
            }
            !is_over
        });
        if is_cleared && !self.faults.keys().any(|fault| fault.is_of_gpu()) {
            self.cleared.retain(|at| at.saturating_add(DAY_SECONDS) > now);
            self.cleared.push(now);
            if self.cleared.len() >= MAX_CLEARED {
                self.begin(Fault::Unstable, now, boot_id, None, None);
            }
        }
    }

    /// What a restart must not forget. Clocks are read again soon, and change it at every poll.
    pub fn lasting(&self) -> Self {
        let mut lasting = self.clone();
        lasting.faults.retain(|fault, _| !fault.is_momentary());
        lasting
    }

    /// Whether there is nothing to remember.
    pub fn is_blank(&self) -> bool {
        *self == Self::default()
    }

    /// The findings by a policy, in the order of their causes. The strongest of one cause counts.
    pub fn findings(&self, now: u64, policy: &Policy) -> Vec<Finding> {
        let mut by_cause: BTreeMap<Cause, Finding> = BTreeMap::new();
        for (fault, active) in &self.faults {
            let Some(finding) = finding(*fault, active, now, policy) else { continue };
            match by_cause.get(&finding.cause) {
                Some(other) if other.effect >= finding.effect => {}
                Some(_) | None => drop(by_cause.insert(finding.cause, finding)),
            }
        }
        by_cause.into_values().collect()
    }
}

impl Active {
    /// Whether it is there long enough to be a finding.
    fn is_found(&self, fault: Fault) -> bool {
        !fault.is_momentary() || self.last >= self.since.saturating_add(THROTTLED_SECONDS)
    }
}

impl Fault {
    /// Whether an answer of the GPU can disprove the fault, `rebooted` since it began.
    fn can_end(self, rebooted: bool) -> bool {
        match self {
            Self::NeedsReset
            | Self::NeedsDrain
            | Self::ImexDomain
            | Self::RemapFailed
            | Self::ResetDue
            | Self::FabricPending
            | Self::ThermalSlowdown
            | Self::PowerBrake
            | Self::Lost
            | Self::Silent => true,
            // The cure is a reset, which an old driver does not report: only a reboot proves it.
            Self::NeedsReboot | Self::XidReset | Self::Uncontained => rebooted,
            Self::Unstable => false,
        }
    }

    /// The polls in a row that prove the GPU well, and the least seconds between the first and the last.
    const fn proof(self) -> (u32, u64) {
        match self {
            Self::Silent | Self::ResetDue | Self::FabricPending => (1, 0),
            // Two answers to one event are not two polls.
            Self::Lost | Self::NeedsDrain | Self::ImexDomain => (2, 1),
            Self::NeedsReset
            | Self::NeedsReboot
            | Self::XidReset
            | Self::Uncontained
            | Self::RemapFailed
            | Self::Unstable => (2, PROOF_SECONDS),
            Self::ThermalSlowdown | Self::PowerBrake => (2, THROTTLED_SECONDS),
        }
    }
}

/// The fault behind a recovery action (field 230).
fn fault_of_action(action: u32) -> Option<Fault> {
    match action {
        0 => None,
        2 | 7 => Some(Fault::NeedsReboot),
        3 => Some(Fault::NeedsDrain),
        5 => Some(Fault::ImexDomain),
        // Those that are not known yet are at least as grave.
        _ => Some(Fault::NeedsReset),
    }
}

/// The fault behind an XID. Where the driver recommends an action, that counts for all but the gravest.
fn fault_of_xid(xid: u64, recovery_action: Option<u32>) -> Option<Fault> {
    match xid::action(xid) {
        XidAction::Lost => Some(Fault::Lost),
        XidAction::Uncontained => Some(Fault::Uncontained),
        XidAction::Reset => recovery_action.is_none().then_some(Fault::XidReset),
        XidAction::Application | XidAction::Unlisted => None,
    }
}

fn finding(fault: Fault, active: &Active, now: u64, policy: &Policy) -> Option<Finding> {
    let rule = policy.rule(fault);
    if !active.is_found(fault) {
        return None;
    }
    let is_in_grace = now < active.since.saturating_add(rule.grace);
    let effect = if is_in_grace { rule.effect?.min(Effect::NoSchedule) } else { rule.effect? };
    Some(Finding {
        cause: fault.cause(),
        value: value(fault, active),
        effect,
        verdict: fault.verdict(),
        scope: active.scope,
        message: message(fault, active.xid),
        since: active.since,
    })
}

fn value(fault: Fault, active: &Active) -> String {
    let text = match fault {
        Fault::NeedsReset => "gpu-reset",
        Fault::NeedsReboot => "node-reboot",
        Fault::NeedsDrain => "drain-p2p",
        Fault::ImexDomain => "imex-domain",
        Fault::XidReset => return active.xid.map(|xid| xid.to_string()).unwrap_or_default(),
        Fault::Uncontained => UNCONTAINED,
        Fault::RemapFailed => "remap-failed",
        Fault::ResetDue => "row-remap",
        Fault::FabricPending => "pending",
        Fault::ThermalSlowdown => "thermal",
        Fault::PowerBrake => "power-brake",
        Fault::Lost => "lost",
        Fault::Silent => "silent",
        Fault::Unstable => "unstable",
    };
    text.to_owned()
}

fn message(fault: Fault, xid: Option<u64>) -> String {
    let text = match fault {
        Fault::NeedsReset => "the GPU needs a reset",
        Fault::NeedsReboot => "the GPU needs a reboot of the node",
        Fault::NeedsDrain => "the GPU needs its peer-to-peer traffic drained",
        Fault::ImexDomain => "the IMEX domain of the node is broken, the GPU itself works",
        Fault::XidReset => "the GPU needs a reset, and a reboot of the node or an administrator clears it",
        Fault::Uncontained => "the GPU had an uncontained memory error",
        Fault::RemapFailed => "a damaged row of the memory of the GPU could not be replaced",
        Fault::ResetDue => "a reset of the GPU when it is idle replaces a damaged row of its memory",
        Fault::FabricPending => {
            "the GPU is not registered with its NVLink fabric, look at the fabric manager of the node"
        }
        Fault::ThermalSlowdown => "the GPU is too hot and runs slower, look at the cooling of the node",
        Fault::PowerBrake => "the power supply of the node makes the GPU run slower, look at it and its cables",
        Fault::Lost => "the GPU fell off the bus",
        Fault::Silent => "the NVIDIA driver does not answer for the GPU",
        Fault::Unstable => "the GPU failed and came back 3 times in a day, an administrator must clear it",
    };
    xid.map_or_else(|| text.to_owned(), |xid| format!("{text} (XID {xid})"))
}

#[cfg(test)]
mod tests {
    use dra_model::Verdict;
    use proptest::prelude::*;

    use super::*;

    const BOOT: &str = "boot-1";

    fn answers(action: u32) -> Signal {
        Signal::Answers(Answer { recovery_action: Some(action), ..Answer::default() })
    }

    fn xid(xid: u64, action: Option<u32>) -> Signal {
        Signal::Xid { xid, scope: None, recovery_action: action }
    }

    /// Cause, value and effect after signals at times of one boot.
    fn after(signals: &[(u64, Signal)], now: u64) -> Vec<(&'static str, String, Effect)> {
        let mut health = GpuHealth::default();
        for (at, signal) in signals {
            health.observe(*signal, *at, BOOT);
        }
        listed(&health, now)
    }

    fn listed(health: &GpuHealth, now: u64) -> Vec<(&'static str, String, Effect)> {
        let findings = health.findings(now, &Policy::default());
        findings.into_iter().map(|one| (one.cause.key(), one.value, one.effect)).collect()
    }

    fn one(key: &'static str, value: &str, effect: Effect) -> Vec<(&'static str, String, Effect)> {
        vec![(key, value.to_owned(), effect)]
    }

    #[test]
    fn faults_of_applications_take_nothing_away() {
        for number in [13, 31, 43, 45, 94, 999] {
            for action in [None, Some(0)] {
                assert_eq!(after(&[(0, xid(number, action))], 0), [], "{number}");
            }
        }
    }

    #[test]
    fn damaged_memory_and_a_missing_fabric_are_faults_while_they_are_reported() {
        let answer = |flags: [bool; 3]| {
            let [is_remap_pending, has_remap_failed, is_fabric_pending] = flags;
            Signal::Answers(Answer { is_remap_pending, has_remap_failed, is_fabric_pending, ..Answer::default() })
        };
        let none = answer([false; 3]);
        let pending = (0, answer([true, false, false]));
        assert_eq!(after(&[pending], 0), one("reset-advised", "row-remap", Effect::None));
        assert_eq!(after(&[pending, (10, none)], 10), []);
        let failed = (0, answer([false, true, false]));
        assert_eq!(after(&[failed, (10, none)], 10), one("memory", "remap-failed", Effect::NoSchedule));
        assert_eq!(after(&[failed, (10, none), (41, none)], 41), []);
        let fabric = (0, answer([false, false, true]));
        assert_eq!(after(&[fabric], 0), one("fabric", "pending", Effect::NoSchedule));
        let often: Vec<_> = (0..10).flat_map(|round| [(round * 20, fabric.1), (round * 20 + 10, none)]).collect();
        assert_eq!(after(&often, 190), [], "the fabric is not the GPU");
    }

    #[test]
    fn two_answers_to_one_event_do_not_prove_a_lost_gpu_well() {
        let back = (5, answers(0));
        assert_eq!(after(&[(0, Signal::Lost), back, back], 5), one("gpu-lost", "lost", Effect::NoExecute));
        assert_eq!(after(&[(0, Signal::Lost), back, (6, answers(0))], 6), []);
    }

    #[test]
    fn the_driver_is_believed_before_the_catalogue() {
        assert_eq!(after(&[(0, xid(119, Some(0)))], 0), [], "the driver recommends nothing");
        assert_eq!(after(&[(0, xid(119, Some(1)))], 0), one("recovery", "gpu-reset", Effect::NoSchedule));
        assert_eq!(after(&[(0, xid(31, Some(4)))], 0), one("recovery", "gpu-reset", Effect::NoSchedule));
        assert_eq!(after(&[(0, xid(119, None))], 0), one("xid", "119", Effect::NoSchedule));
        assert_eq!(after(&[(0, xid(79, None))], 0), one("gpu-lost", "lost", Effect::NoExecute));
        assert_eq!(after(&[(0, answers(3))], 0), one("recovery", "drain-p2p", Effect::NoSchedule));
        assert_eq!(after(&[(0, answers(5))], 0), one("recovery", "imex-domain", Effect::None));
        assert_eq!(after(&[(0, answers(99))], 0), one("recovery", "gpu-reset", Effect::NoSchedule));
        assert_eq!(after(&[(0, Signal::ResetRequired)], 0), one("recovery", "gpu-reset", Effect::NoSchedule));
        let mut health = GpuHealth::default();
        health.observe(xid(119, Some(1)), 0, BOOT);
        let found = health.findings(0, &Policy::default());
        assert_eq!(
            (found[0].message.as_str(), found[0].verdict),
            ("the GPU needs a reset (XID 119)", Verdict::Unhealthy)
        );
    }

    #[test]
    fn pods_have_a_grace_before_they_are_evicted_for_a_reboot() {
        let reboot = [(100, answers(2))];
        assert_eq!(after(&reboot, 399), one("recovery", "node-reboot", Effect::NoSchedule));
        assert_eq!(after(&reboot, 400), one("recovery", "node-reboot", Effect::NoExecute));
    }

    #[test]
    fn a_reset_is_proven_by_two_answers_that_are_apart() {
        let reset = (0, answers(1));
        let needed = one("recovery", "gpu-reset", Effect::NoSchedule);
        assert_eq!(after(&[reset, (10, answers(0)), (20, answers(0))], 20), needed, "too soon");
        assert_eq!(after(&[reset, (10, answers(0)), (20, answers(1)), (45, answers(0))], 45), needed, "it came back");
        assert_eq!(after(&[reset, (10, answers(0)), (40, answers(0))], 40), []);
        let both = [(0, xid(95, Some(1))), (10, answers(0)), (40, answers(0))];
        assert_eq!(after(&both[..1], 0).len(), 2);
        assert_eq!(after(&both, 40), [], "the reset cured both");
        assert_eq!(
            after(&[(0, xid(95, Some(0))), (10, answers(0)), (40, answers(0))], 40).len(),
            1,
            "nothing was reset"
        );
        let later = [(0, answers(1)), (10, answers(0)), (35, xid(95, Some(0))), (40, answers(0)), (80, answers(0))];
        assert_eq!(after(&later, 80), one("memory", "uncontained", Effect::NoExecute), "it showed after the reset");
    }

    #[test]
    fn a_gpu_that_fell_off_the_bus_is_back_when_it_answers_twice() {
        let lost = [(0, xid(79, None)), (1, Signal::Lost), (50, answers(0))];
        assert_eq!(after(&lost, 50), one("gpu-lost", "lost", Effect::NoExecute));
        assert_eq!(after(&[lost[0], lost[1], lost[2], (60, answers(0))], 60), []);
        assert_eq!(after(&[lost[0], lost[2], (55, Signal::Lost), (60, answers(0))], 60).len(), 1);
    }

    #[test]
    fn an_old_driver_proves_a_reset_by_a_reboot_only() {
        let mut health = GpuHealth::default();
        health.observe(xid(119, None), 0, BOOT);
        for at in [10, 50, 5000] {
            health.observe(Signal::Answers(Answer::default()), at, BOOT);
        }
        assert_eq!(listed(&health, 5000).len(), 1);
        // A fault that comes back in the new boot needs another one.
        health.observe(xid(119, None), 5500, "boot-2");
        for at in [5600, 5700] {
            health.observe(Signal::Answers(Answer::default()), at, "boot-2");
        }
        assert_eq!(listed(&health, 5700).len(), 1);
        for at in [6000, 6040] {
            health.observe(Signal::Answers(Answer::default()), at, "boot-3");
        }
        assert!(listed(&health, 6040).is_empty());
    }

    #[test]
    fn a_gpu_that_comes_back_three_times_in_a_day_waits_for_an_administrator() {
        let mut health = GpuHealth::default();
        for start in [0, 1000, 2000] {
            assert_eq!(listed(&health, start), []);
            health.observe(Signal::Lost, start, BOOT);
            health.observe(answers(0), start + 10, BOOT);
            health.observe(answers(0), start + 20, BOOT);
        }
        assert_eq!(listed(&health, 2020), one("unstable", "unstable", Effect::NoSchedule));
        health.observe(answers(0), 999_999, "boot-2");
        health.observe(answers(0), 1_000_999, "boot-3");
        assert_eq!(listed(&health, 0).len(), 1);
        health.observe(Signal::Cleared, 1_000_999, BOOT);
        assert!(health.is_blank());
    }

    #[test]
    fn a_fault_of_a_newer_version_hides_no_other() {
        let mut health = GpuHealth::default();
        health.observe(Signal::Lost, 0, BOOT);
        let mut stored = serde_json::to_value(&health).unwrap();
        stored["faults"]["meltsDown"] = stored["faults"]["lost"].clone();
        assert_eq!(serde_json::from_value::<GpuHealth>(stored).unwrap(), health);
    }

    #[test]
    fn clocks_that_are_low_for_a_minute_are_reported_and_moments_are_not() {
        let slowdown = |is_power_brake| Slowdown { is_power_brake, is_thermal: false };
        let answer = |low| Signal::Answers(Answer { slowdown: slowdown(low), ..Answer::default() });
        let mut health = GpuHealth::default();
        let brake = || one("throttled", "power-brake", Effect::None);
        for (at, low, expect) in [
            (0, true, vec![]),
            (50, true, vec![]),
            (55, false, vec![]),
            (100, true, vec![]),
            (150, true, vec![]),
            (160, true, brake()),
            (170, false, brake()),
            (200, true, brake()),
            (210, false, brake()),
            (269, false, brake()),
            (270, false, vec![]),
        ] {
            health.observe(answer(low), at, BOOT);
            assert_eq!(listed(&health, at), expect, "{at}");
        }
        health.observe(answer(true), 300, BOOT);
        assert_eq!(listed(&health, 900), vec![], "one answer is a moment, whatever comes after it");
        assert!(health.lasting().is_blank());
    }

    #[test]
    fn an_instance_is_blamed_alone_until_another_one_fails() {
        let place = |start| Some(Placement { start, size: 1 });
        let of = |scope| Signal::Xid { xid: 119, scope, recovery_action: None };
        let mut health = GpuHealth::default();
        let scope = |health: &GpuHealth| health.findings(0, &Policy::default())[0].scope;
        health.observe(of(place(3)), 0, BOOT);
        health.observe(of(place(3)), 1, BOOT);
        assert_eq!(scope(&health), place(3));
        health.observe(of(place(4)), 2, BOOT);
        assert_eq!(scope(&health), None);
        let mut cured = GpuHealth::default();
        cured.observe(Signal::Xid { xid: 119, scope: place(3), recovery_action: Some(1) }, 0, BOOT);
        assert_eq!(scope(&cured), None, "a reset is one of the whole GPU");
    }

    fn signal() -> impl Strategy<Value = Signal> {
        let action = prop_oneof![Just(None), (0_u32..8).prop_map(Some)];
        let number = prop_oneof![Just(13_u64), Just(79), Just(95), Just(119), Just(999), 0_u64..200];
        prop_oneof![
            3 => (number, action.clone()).prop_map(|(number, action)| xid(number, action)),
            4 => (action, any::<[bool; 5]>()).prop_map(|(recovery_action, flags)| {
                let [is_remap_pending, has_remap_failed, is_fabric_pending, is_thermal, is_power_brake] = flags;
                Signal::Answers(Answer {
                    recovery_action,
                    is_remap_pending,
                    has_remap_failed,
                    is_fabric_pending,
                    slowdown: Slowdown { is_thermal, is_power_brake },
                })
            }),
            1 => Just(Signal::Lost),
            1 => Just(Signal::ResetRequired),
            1 => Just(Signal::Silent),
        ]
    }

    proptest! {
        /// Whatever happens, a restart forgets nothing, silence cures nothing, and a well GPU in a new boot is well in the end.
        #[test]
        fn faults_end_by_proof_only(signals in prop::collection::vec((1_u64..60, signal()), 1..30)) {
            let (mut health, mut now) = (GpuHealth::default(), 0);
            for (pause, signal) in signals {
                now += pause;
                let before = health.clone();
                health.observe(signal, now, BOOT);
                let stored: GpuHealth = serde_json::from_str(&serde_json::to_string(&health).unwrap()).unwrap();
                prop_assert_eq!(&stored, &health);
                if !matches!(signal, Signal::Answers(_)) {
                    let all = before.faults.keys().all(|fault| health.faults.contains_key(fault));
                    prop_assert!(all, "{:?} cured {:?}", signal, before);
                }
                if let Signal::Answers(answer) = signal {
                    let all = listed(&health, now);
                    let is_listed = |reported: bool, wanted: &str| !reported || all.iter().any(|(key, ..)| *key == wanted);
                    prop_assert!(is_listed(answer.recovery_action.is_some_and(|action| action != 0), "recovery"));
                    prop_assert!(is_listed(answer.has_remap_failed, "memory"));
                    prop_assert!(is_listed(answer.is_remap_pending, "reset-advised"));
                    prop_assert!(is_listed(answer.is_fabric_pending, "fabric"));
                }
            }
            let unstable = health.faults.contains_key(&Fault::Unstable);
            for at in [now + 10, now + 80] {
                health.observe(answers(0), at, "boot-2");
            }
            let left = listed(&health, now + 80);
            prop_assert!(left.is_empty() || left.iter().all(|(key, ..)| *key == "unstable"), "{:?}", left);
            prop_assert!(!unstable || !left.is_empty());
        }
    }
}
