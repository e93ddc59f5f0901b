// SPDX-License-Identifier: Apache-2.0
//! The policy: what each fault does to claims and pods. The defaults are data, and each can be replaced.

use std::collections::BTreeMap;
use std::str::FromStr;

use dra_model::{Cause, Effect, Verdict};
use serde::{Deserialize, Serialize};

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fault {
    /// The driver recommends a reset of the GPU, with or without a drain (field 230 is 1, 4 or 6), or a call returns
    /// `NVML_ERROR_RESET_REQUIRED`.
    NeedsReset,
    /// The driver recommends a reboot of the node (field 230 is 2 or 7).
    NeedsReboot,
    /// The driver recommends to end peer-to-peer traffic (field 230 is 3).
    NeedsDrain,
    /// The IMEX domain of the node is broken (field 230 is 5). The GPU itself works.
    ImexDomain,
    /// An XID with the action reset, of a driver before R570.
    XidReset,
    /// An uncontained memory error (XID 95).
    Uncontained,
    /// A row of the memory has no spare row left (`nvmlDeviceGetRemappedRows`). The flag stays for the life of the GPU.
    RemapFailed,
    /// A row of the memory is replaced at the next reset. NVIDIA: further work is not endangered.
    ResetDue,
    /// The GPU is not registered with its NVLink fabric, so CUDA does not start on it (`nvmlDeviceGetGpuFabricInfo`).
    FabricPending,
    /// The hardware lowers the clocks for a minute or longer, because the GPU is too hot (`nvmlClocksEventReasonHwThermalSlowdown`).
    ThermalSlowdown,
    /// The same, because the power supply of the node asks for it (`nvmlClocksEventReasonHwPowerBrakeSlowdown`).
    PowerBrake,
    /// The GPU fell off the bus (`NVML_ERROR_GPU_IS_LOST`, XID 79).
    Lost,
    /// NVML does not answer for the GPU.
    Silent,
    /// The GPU was cleared too often.
    Unstable,
}

impl Fault {
    pub const fn cause(self) -> Cause {
        match self {
            Self::NeedsReset | Self::NeedsReboot | Self::NeedsDrain | Self::ImexDomain => Cause::Recovery,
            Self::XidReset => Cause::Xid,
            Self::Uncontained | Self::RemapFailed => Cause::Memory,
            Self::ResetDue => Cause::ResetAdvised,
            Self::FabricPending => Cause::Fabric,
            Self::ThermalSlowdown | Self::PowerBrake => Cause::Throttled,
            Self::Lost => Cause::GpuLost,
            Self::Silent => Cause::Unmonitored,
            Self::Unstable => Cause::Unstable,
        }
    }

    pub const fn verdict(self) -> Verdict {
        match self {
            Self::ImexDomain | Self::ResetDue | Self::ThermalSlowdown | Self::PowerBrake => Verdict::Healthy,
            Self::Silent | Self::FabricPending => Verdict::Unknown,
            Self::NeedsReset
            | Self::NeedsReboot
            | Self::NeedsDrain
            | Self::XidReset
            | Self::Uncontained
            | Self::RemapFailed
            | Self::Lost
            | Self::Unstable => Verdict::Unhealthy,
        }
    }

    /// Whether its end counts as a recovery, of which a GPU has three in a day.
    pub(crate) const fn is_of_gpu(self) -> bool {
        !matches!(
            self,
            Self::Silent
                | Self::ImexDomain
                | Self::ResetDue
                | Self::FabricPending
                | Self::ThermalSlowdown
                | Self::PowerBrake
        )
    }

    /// It comes and goes: only a minute of it counts.
    pub(crate) const fn is_momentary(self) -> bool {
        matches!(self, Self::ThermalSlowdown | Self::PowerBrake)
    }

    /// The rule without a replacement.
    pub const fn rule(self) -> Rule {
        match self {
            Self::Lost | Self::Uncontained => Rule { effect: Some(Effect::NoExecute), grace: 0 },
            // The pods of the other GPUs of the node may go on until an administrator reboots it.
            Self::NeedsReboot => Rule { effect: Some(Effect::NoExecute), grace: 300 },
            Self::NeedsReset
            | Self::NeedsDrain
            | Self::XidReset
            | Self::RemapFailed
            | Self::FabricPending
            | Self::Unstable => Rule { effect: Some(Effect::NoSchedule), grace: 0 },
            Self::ImexDomain | Self::Silent | Self::ResetDue | Self::ThermalSlowdown | Self::PowerBrake => {
                Rule { effect: Some(Effect::None), grace: 0 }
            }
        }
    }
}

/// What a fault does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Absent: nothing, not even a taint.
    pub effect: Option<Effect>,
    /// How long pods may go on before they are evicted, in seconds: `NoSchedule` until then.
    pub grace: u64,
}

/// The rules of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    replaced: BTreeMap<Fault, Rule>,
}

/// A rule instead of the default, written `needsReset=NoExecute:600` or `lost=Off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replacement {
    pub fault: Fault,
    pub rule: Rule,
}

/// The names of the faults in settings.
const FAULTS: [(&str, Fault); 14] = [
    ("needsReset", Fault::NeedsReset),
    ("needsReboot", Fault::NeedsReboot),
    ("needsDrain", Fault::NeedsDrain),
    ("imexDomain", Fault::ImexDomain),
    ("xidReset", Fault::XidReset),
    ("uncontained", Fault::Uncontained),
    ("remapFailed", Fault::RemapFailed),
    ("resetDue", Fault::ResetDue),
    ("fabricPending", Fault::FabricPending),
    ("thermalSlowdown", Fault::ThermalSlowdown),
    ("powerBrake", Fault::PowerBrake),
    ("lost", Fault::Lost),
    ("silent", Fault::Silent),
    ("unstable", Fault::Unstable),
];

const EFFECTS: [(&str, Option<Effect>); 4] = [
    ("Off", None),
    ("None", Some(Effect::None)),
    ("NoSchedule", Some(Effect::NoSchedule)),
    ("NoExecute", Some(Effect::NoExecute)),
];

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplacementError {
    #[error("`{text}` is no rule: expected a fault, `=`, an effect, and `:` with seconds if pods have a grace")]
    Form { text: String },
    #[error("fault `{name}` is unknown: expected {}", names(&FAULTS))]
    Fault { name: String },
    #[error("effect `{name}` is unknown: expected {}", names(&EFFECTS))]
    Effect { name: String },
    #[error("grace `{text}` is no number of seconds")]
    Grace { text: String },
}

fn names<T>(all: &[(&str, T)]) -> String {
    all.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

impl FromStr for Replacement {
    type Err = ReplacementError;

    fn from_str(text: &str) -> Result<Self, ReplacementError> {
        let (name, rule) = text.split_once('=').ok_or_else(|| ReplacementError::Form { text: text.to_owned() })?;
        let fault = FAULTS.iter().find(|(known, _)| *known == name).map(|(_, fault)| *fault);
        let fault = fault.ok_or_else(|| ReplacementError::Fault { name: name.to_owned() })?;
        let (name, grace) = rule.split_once(':').unwrap_or((rule, "0"));
        let effect = EFFECTS.iter().find(|(known, _)| *known == name).map(|(_, effect)| *effect);
        let effect = effect.ok_or_else(|| ReplacementError::Effect { name: name.to_owned() })?;
        let grace = grace.parse().map_err(|_not_a_number| ReplacementError::Grace { text: grace.to_owned() })?;
        Ok(Self { fault, rule: Rule { effect, grace } })
    }
}

impl Policy {
    /// The last rule of a fault counts.
    pub fn new(replacements: impl IntoIterator<Item = Replacement>) -> Self {
        Self { replaced: replacements.into_iter().map(|Replacement { fault, rule }| (fault, rule)).collect() }
    }

    pub fn rule(&self, fault: Fault) -> Rule {
        self.replaced.get(&fault).copied().unwrap_or_else(|| fault.rule())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_replaces_the_default_of_its_fault() {
        let parse = |text: &str| text.parse::<Replacement>();
        let policy = Policy::new(["lost=Off", "needsReset=NoExecute:600"].map(|text| parse(text).unwrap()));
        assert_eq!(policy.rule(Fault::Lost), Rule { effect: None, grace: 0 });
        assert_eq!(policy.rule(Fault::NeedsReset), Rule { effect: Some(Effect::NoExecute), grace: 600 });
        assert_eq!(policy.rule(Fault::NeedsReboot), Fault::NeedsReboot.rule());
        for (text, expect) in [
            ("lost", "`lost` is no rule: expected a fault"),
            ("gone=Off", "fault `gone` is unknown: expected needsReset, needsReboot, "),
            ("lost=off", "effect `off` is unknown: expected Off, None, NoSchedule, NoExecute"),
            ("lost=Off:soon", "grace `soon` is no number of seconds"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        }
    }
}
