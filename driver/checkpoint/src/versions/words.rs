// SPDX-License-Identifier: Apache-2.0
//! The words of sharing as they are on disk, in version 2 of claim records and version 1 of GPU ledgers. Frozen with them.

use std::collections::BTreeMap;

use dra_model::{Bytes, DeviceKey, ThreadPercentage};
use serde::{Deserialize, Serialize};

/// A closed set of words that the model has as well; it does not compile when the two differ.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($word:ident = $text:literal),+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Serialize, Deserialize)]
        pub(crate) enum $name {
            $(#[serde(rename = $text)] $word),+
        }

        impl From<dra_model::$name> for $name {
            fn from(word: dra_model::$name) -> Self {
                match word {
                    $(dra_model::$name::$word => Self::$word),+
                }
            }
        }

        impl From<$name> for dra_model::$name {
            fn from(word: $name) -> Self {
                match word {
                    $($name::$word => Self::$word),+
                }
            }
        }
    };
}

words!(ComputeMode { Default = "default", Prohibited = "prohibited", ExclusiveProcess = "exclusiveProcess" });

words!(Interval { Default = "default", Short = "short", Medium = "medium", Long = "long" });

words!(SharedForm { Mps = "mps", TimeSlicing = "timeSlicing" });

/// Settings of a GPU.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Settings {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    compute_mode: Option<ComputeMode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    interval: Option<Interval>,
}

impl From<dra_model::GpuSettings> for Settings {
    fn from(settings: dra_model::GpuSettings) -> Self {
        let dra_model::GpuSettings { compute_mode, interval } = settings;
        Self { compute_mode: compute_mode.map(Into::into), interval: interval.map(Into::into) }
    }
}

impl From<Settings> for dra_model::GpuSettings {
    fn from(settings: Settings) -> Self {
        let Settings { compute_mode, interval } = settings;
        Self { compute_mode: compute_mode.map(Into::into), interval: interval.map(Into::into) }
    }
}

/// What was promised to one share.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Limits {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory: Option<Bytes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    threads: Option<ThreadPercentage>,
}

impl From<dra_model::ShareLimits> for Limits {
    fn from(limits: dra_model::ShareLimits) -> Self {
        let dra_model::ShareLimits { memory, threads } = limits;
        Self { memory, threads }
    }
}

impl From<Limits> for dra_model::ShareLimits {
    fn from(limits: Limits) -> Self {
        let Limits { memory, threads } = limits;
        Self { memory, threads }
    }
}

/// The wishes for an MPS daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Mps {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    threads: Option<ThreadPercentage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory: Option<Bytes>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    per_device: BTreeMap<DeviceKey, Bytes>,
    multi_user: bool,
}

impl From<dra_model::MpsConfig> for Mps {
    fn from(config: dra_model::MpsConfig) -> Self {
        let dra_model::MpsConfig { threads, memory, per_device, multi_user } = config;
        Self { threads, memory, per_device, multi_user }
    }
}

impl From<Mps> for dra_model::MpsConfig {
    fn from(config: Mps) -> Self {
        let Mps { threads, memory, per_device, multi_user } = config;
        Self { threads, memory, per_device, multi_user }
    }
}
