// SPDX-License-Identifier: Apache-2.0
//! The `sharing` stanza: the strategy and its details. Pure.

use serde_json::Value;

use super::error::ConfigError;
use super::fields::Fields;
use super::kind::ConfigKind;
use super::mps;
use crate::sharing::{Interval, Sharing};

const STRATEGY: &str = "strategy";

const TIME_SLICING: &str = "timeSlicingConfig";

const MPS: &str = "mpsConfig";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Strategy {
    Exclusive,
    TimeSlicing,
    Mps,
}

impl Strategy {
    const ALL: [Self; 3] = [Self::Exclusive, Self::TimeSlicing, Self::Mps];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Exclusive => "Exclusive",
            Self::TimeSlicing => "TimeSlicing",
            Self::Mps => "MPS",
        }
    }

    fn of(value: &Value) -> Option<Self> {
        let text = value.as_str()?;
        Self::ALL.into_iter().find(|strategy| strategy.as_str() == text)
    }
}

/// Reads the stanza of a configuration of this kind.
pub(super) fn parse(sharing: &Fields<'_>, kind: ConfigKind) -> Result<Sharing, ConfigError> {
    sharing.only(kind, &[STRATEGY, TIME_SLICING, MPS])?;
    let strategy = sharing.required(STRATEGY, "`Exclusive`, `TimeSlicing` or `MPS`", Strategy::of)?;
    let details = |name: &str, of: Strategy| match sharing.object(name)? {
        Some(_) if of != strategy => Err(ConfigError::OtherStrategy {
            path: sharing.path(name),
            strategy_path: sharing.path(STRATEGY),
            strategy: strategy.as_str().to_owned(),
        }),
        found => Ok(found),
    };
    let time_slicing = details(TIME_SLICING, Strategy::TimeSlicing)?;
    let mps = details(MPS, Strategy::Mps)?;
    match strategy {
        Strategy::Exclusive => exclusive(sharing, kind),
        Strategy::TimeSlicing => {
            let interval = time_slicing.map(|details| interval(&details, kind)).transpose()?;
            Ok(Sharing::TimeSlicing(interval.flatten()))
        }
        Strategy::Mps => {
            let config = mps.map(|details| mps::parse(&details, kind)).transpose()?;
            Ok(Sharing::Mps(config.unwrap_or_default()))
        }
    }
}

fn exclusive(sharing: &Fields<'_>, kind: ConfigKind) -> Result<Sharing, ConfigError> {
    match kind {
        ConfigKind::Gpu => Ok(Sharing::Exclusive),
        // NVML returns NOT_SUPPORTED for a compute mode while MIG is on.
        ConfigKind::Mig => Err(ConfigError::NotOnMig {
            path: sharing.path(STRATEGY),
            found: Strategy::Exclusive.as_str().to_owned(),
            why: "it has no compute mode, and its claim has it for itself in any case",
            advice: None,
        }),
    }
}

fn interval(details: &Fields<'_>, kind: ConfigKind) -> Result<Option<Interval>, ConfigError> {
    let name = "interval";
    details.only(kind, &[name])?;
    let expected = "`Default`, `Short`, `Medium` or `Long`";
    let interval = details.optional(name, expected, |value| value.as_str()?.parse().ok())?;
    match (kind, interval) {
        (ConfigKind::Mig, Some(found @ (Interval::Short | Interval::Medium | Interval::Long))) => {
            Err(ConfigError::NotOnMig {
                path: details.path(name),
                found: found.to_string(),
                why: "the time-slice belongs to the whole GPU",
                advice: Some("use Default"),
            })
        }
        (ConfigKind::Gpu, _) | (ConfigKind::Mig, None | Some(Interval::Default)) => Ok(interval),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{API_VERSION, DeviceConfig, tests::outcome};
    use super::*;
    use crate::sharing::MpsConfig;

    fn of(kind: ConfigKind, sharing: &Value) -> Result<Sharing, String> {
        let given = json!({"apiVersion": API_VERSION, "kind": kind.to_string(), "sharing": sharing});
        outcome(&given).map(|DeviceConfig { sharing, .. }| sharing)
    }

    /// From the examples that NVIDIA publishes. One has an empty `timeSlicingConfig`, which crashed their driver before
    /// September 2026.
    #[test]
    fn published_stanzas_are_accepted_as_written() {
        let half = MpsConfig {
            threads: Some(50.try_into().unwrap()),
            memory: Some(crate::Bytes(10 << 30)),
            ..MpsConfig::default()
        };
        let only_first =
            MpsConfig { per_device: [("0".parse().unwrap(), crate::Bytes(5 << 30))].into(), ..half.clone() };
        for (kinds, given, expect) in [
            (
                &[ConfigKind::Gpu][..],
                json!({"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": "Long"}}),
                Sharing::TimeSlicing(Some(Interval::Long)),
            ),
            (
                &[ConfigKind::Gpu, ConfigKind::Mig],
                json!({"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": "Default"}}),
                Sharing::TimeSlicing(Some(Interval::Default)),
            ),
            (
                &[ConfigKind::Gpu, ConfigKind::Mig],
                json!({"strategy": "TimeSlicing", "timeSlicingConfig": {}}),
                Sharing::TimeSlicing(None),
            ),
            (&[ConfigKind::Gpu, ConfigKind::Mig], json!({"strategy": "TimeSlicing"}), Sharing::TimeSlicing(None)),
            (&[ConfigKind::Gpu, ConfigKind::Mig], json!({"strategy": "MPS"}), Sharing::Mps(MpsConfig::default())),
            (
                &[ConfigKind::Gpu, ConfigKind::Mig],
                json!({"strategy": "MPS", "mpsConfig": {
                    "defaultActiveThreadPercentage": 50, "defaultPinnedDeviceMemoryLimit": "10Gi",
                }}),
                Sharing::Mps(half),
            ),
            (
                &[ConfigKind::Gpu, ConfigKind::Mig],
                json!({"strategy": "MPS", "mpsConfig": {
                    "defaultActiveThreadPercentage": 50, "defaultPinnedDeviceMemoryLimit": "10Gi",
                    "defaultPerDevicePinnedMemoryLimit": {"0": "5Gi"},
                }}),
                Sharing::Mps(only_first),
            ),
            (
                &[ConfigKind::Gpu],
                json!({"strategy": "MPS", "mpsConfig": {"multiUser": true}}),
                Sharing::Mps(MpsConfig { multi_user: true, ..MpsConfig::default() }),
            ),
            (&[ConfigKind::Gpu], json!({"strategy": "Exclusive", "mpsConfig": null}), Sharing::Exclusive),
        ] {
            for kind in kinds {
                assert_eq!(of(*kind, &given), Ok(expect.clone()), "{kind} {given}");
            }
        }
    }

    #[test]
    fn invalid_values_are_refused_with_the_path_and_the_reason() {
        let gpu = ConfigKind::Gpu;
        for (kind, given, expect) in [
            (gpu, json!({}), "sharing.strategy is missing: expected `Exclusive`, `TimeSlicing` or `MPS`"),
            (
                gpu,
                json!({"strategy": "Shared"}),
                "sharing.strategy is \"Shared\": expected `Exclusive`, `TimeSlicing` or `MPS`",
            ),
            (
                gpu,
                json!({"strategy": "MPS", "replicas": 4}),
                "sharing.replicas is an unknown field of GpuConfig; remove it or correct its name",
            ),
            (
                gpu,
                json!({"strategy": "MPS", "timeSlicingConfig": {"interval": "Long"}}),
                "sharing.timeSlicingConfig is not for the strategy MPS; remove it, or correct sharing.strategy",
            ),
            (
                gpu,
                json!({"strategy": "Exclusive", "mpsConfig": {}}),
                "sharing.mpsConfig is not for the strategy Exclusive; remove it, or correct sharing.strategy",
            ),
            (
                gpu,
                json!({"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": "long"}}),
                "sharing.timeSlicingConfig.interval is \"long\": expected `Default`, `Short`, `Medium` or `Long`",
            ),
            (
                ConfigKind::Mig,
                json!({"strategy": "TimeSlicing", "timeSlicingConfig": {"slice": 1}}),
                "sharing.timeSlicingConfig.slice is an unknown field of MigDeviceConfig; remove it or correct its name",
            ),
            (
                ConfigKind::Mig,
                json!({"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": "Short"}}),
                "sharing.timeSlicingConfig.interval cannot be Short on a MIG device: the time-slice belongs to the whole GPU; use Default",
            ),
            (
                ConfigKind::Mig,
                json!({"strategy": "Exclusive"}),
                "sharing.strategy cannot be Exclusive on a MIG device: it has no compute mode, and its claim has it for itself in any case",
            ),
        ] {
            assert_eq!(of(kind, &given), Err(expect.to_owned()), "{given}");
        }
    }
}
