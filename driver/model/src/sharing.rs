// SPDX-License-Identifier: Apache-2.0
//! How claims share a GPU: the strategies, the settings of the GPU that they need, and the limits of one share.
//!
//! * **strategy**: requested by a claim for its own devices ([`Sharing`]), or implied by the published **form** of a GPU
//!   ([`SharedForm`]).
//! * **settings**: compute mode and time-slice interval, which belong to the GPU and not to a claim ([`GpuSettings`]).
//! * **limits**: memory and threads of one share ([`ShareLimits`]), as the scheduler counted them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::{Bytes, GpuUuid, IdError, MigUuid};

/// Who may open a CUDA context on a GPU (`nvmlComputeMode_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ComputeMode {
    /// Every process, 0.
    Default,
    /// No process, 2.
    Prohibited,
    /// One process, 3; with MPS the server is that process.
    ExclusiveProcess,
}

impl ComputeMode {
    /// The value of `nvmlComputeMode_t`.
    pub const fn number(self) -> u32 {
        match self {
            Self::Default => 0,
            Self::Prohibited => 2,
            Self::ExclusiveProcess => 3,
        }
    }

    /// The mode of a value of `nvmlComputeMode_t`. CUDA 8 removed 1, exclusive thread.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Default),
            2 => Some(Self::Prohibited),
            3 => Some(Self::ExclusiveProcess),
            _ => None,
        }
    }
}

impl fmt::Display for ComputeMode {
    /// As `nvidia-smi` prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "Default",
            Self::Prohibited => "Prohibited",
            Self::ExclusiveProcess => "Exclusive_Process",
        })
    }
}

/// How long one process runs on a GPU before the next one (`nvidia-smi compute-policy --set-timeslice`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Interval {
    /// Chosen by the driver.
    Default,
    Short,
    Medium,
    Long,
}

impl Interval {
    /// In the order of [`Self::number`].
    pub const ALL: [Self; 4] = [Self::Default, Self::Short, Self::Medium, Self::Long];

    /// The argument for `nvidia-smi`.
    pub const fn number(self) -> u32 {
        match self {
            Self::Default => 0,
            Self::Short => 1,
            Self::Medium => 2,
            Self::Long => 3,
        }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "Default",
            Self::Short => "Short",
            Self::Medium => "Medium",
            Self::Long => "Long",
        })
    }
}

impl FromStr for Interval {
    type Err = IdError;

    /// The inverse of [`fmt::Display`].
    fn from_str(text: &str) -> Result<Self, IdError> {
        let known = Self::ALL.into_iter().find(|interval| interval.to_string() == text);
        known.ok_or_else(|| IdError::new("time-slice interval", text, "`Default`, `Short`, `Medium` or `Long`"))
    }
}

/// A part of a GPU's threads, 1 to 100 percent; the MPS control program refuses 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct ThreadPercentage(u8);

impl ThreadPercentage {
    /// The number, 1 to 100.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u64> for ThreadPercentage {
    type Error = IdError;

    fn try_from(number: u64) -> Result<Self, IdError> {
        match u8::try_from(number) {
            Ok(percent @ 1..=100) => Ok(Self(percent)),
            _ => Err(IdError::new("thread percentage", &number.to_string(), "a whole number from 1 to 100")),
        }
    }
}

impl FromStr for ThreadPercentage {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let number = text.parse::<u64>().ok().and_then(|number| number.try_into().ok());
        number.ok_or_else(|| IdError::new("thread percentage", text, "a whole number from 1 to 100"))
    }
}

impl From<ThreadPercentage> for u64 {
    fn from(percentage: ThreadPercentage) -> Self {
        percentage.0.into()
    }
}

impl fmt::Display for ThreadPercentage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The sharing that a claim requests for a whole GPU or a MIG device of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Sharing {
    /// None: the device has its original settings.
    Plain,
    /// One process at a time, by the compute mode.
    Exclusive,
    /// Without an interval a share uses the one in force, and a device of the claim's own uses the default.
    TimeSlicing(Option<Interval>),
    /// A separate MPS daemon for this claim.
    Mps(MpsConfig),
}

/// The requested settings of the MPS daemon of one claim, with the names of NVIDIA's `mpsConfig`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MpsConfig {
    /// `defaultActiveThreadPercentage`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<ThreadPercentage>,
    /// `defaultPinnedDeviceMemoryLimit`, for every device of the claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// `defaultPerDevicePinnedMemoryLimit`, for single devices; precedes `memory`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub per_device: BTreeMap<DeviceKey, Bytes>,
    /// `multiUser`: one server for the processes of all users, by the daemon's `-M`.
    #[serde(default)]
    pub multi_user: bool,
}

/// The name of a device in `defaultPerDevicePinnedMemoryLimit`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceKey {
    /// Index, from 0, in the sorted UUIDs of the devices of the daemon.
    Index(u32),
    Gpu(GpuUuid),
    Mig(MigUuid),
}

impl FromStr for DeviceKey {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let index = || (text == "0" || !text.starts_with(['0', '+'])).then(|| text.parse().ok()).flatten();
        let gpu = || text.parse().ok().map(Self::Gpu);
        let mig = || text.parse().ok().map(Self::Mig);
        let key = index().map(Self::Index).or_else(gpu).or_else(mig);
        key.ok_or_else(|| IdError::new("device of an MPS limit", text, "a number from 0, a GPU UUID or a MIG UUID"))
    }
}

impl TryFrom<String> for DeviceKey {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<DeviceKey> for String {
    fn from(key: DeviceKey) -> Self {
        key.to_string()
    }
}

impl fmt::Display for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => index.fmt(f),
            Self::Gpu(uuid) => uuid.fmt(f),
            Self::Mig(uuid) => uuid.fmt(f),
        }
    }
}

/// A form in which one GPU is published to many claims, displayed as the value of the attribute `sharingStrategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SharedForm {
    #[serde(rename = "MPS")]
    Mps,
    TimeSlicing,
}

impl SharedForm {
    /// In the order of publishing.
    pub const ALL: [Self; 2] = [Self::Mps, Self::TimeSlicing];

    /// Follows the name of the GPU in the name of the device.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Mps => "-mps",
            Self::TimeSlicing => "-ts",
        }
    }
}

impl fmt::Display for SharedForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mps => "MPS",
            Self::TimeSlicing => "TimeSlicing",
        })
    }
}

/// The limits of one share: the capacity that the scheduler counted, not the one that the claim requested.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShareLimits {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// MPS shares only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<ThreadPercentage>,
}

/// Settings of a GPU. `None`: not requested, or not supported by the GPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GpuSettings {
    /// Without effect on a GPU in MIG mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_mode: Option<ComputeMode>,
    /// GPUs before Turing have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_nvml_and_nvidia_smi() {
        let modes = [ComputeMode::Default, ComputeMode::Prohibited, ComputeMode::ExclusiveProcess];
        for mode in modes {
            assert_eq!(ComputeMode::from_number(mode.number()), Some(mode));
        }
        assert_eq!(ComputeMode::from_number(1), None);
        assert_eq!(Interval::ALL.map(Interval::number), [0, 1, 2, 3]);
    }

    #[test]
    fn intervals_are_parsed_exactly() {
        for interval in Interval::ALL {
            assert_eq!(interval.to_string().parse(), Ok(interval));
        }
        for (given, expect) in [
            (
                "medium",
                Err("`medium` is not a valid time-slice interval: expected `Default`, `Short`, `Medium` or `Long`"),
            ),
            ("Medium", Ok(Interval::Medium)),
        ] {
            assert_eq!(given.parse::<Interval>().map_err(|error| error.to_string()), expect.map_err(str::to_owned));
        }
    }

    #[test]
    fn thread_percentages_are_from_1_to_100() {
        for (given, expect) in [(0, None), (1, Some(1)), (100, Some(100)), (101, None), (257, None)] {
            assert_eq!(ThreadPercentage::try_from(given).ok().map(ThreadPercentage::get), expect, "{given}");
        }
    }

    #[test]
    fn devices_of_limits_are_indexes_or_uuids() {
        let uuid = "9f7c3f9e-3c7c-4b0e-8a53-0d6a1f4e2b11";
        for (given, known) in [
            ("0", true),
            ("12", true),
            (&format!("GPU-{uuid}"), true),
            (&format!("MIG-{uuid}"), true),
            ("01", false),
            ("+1", false),
            ("-1", false),
            ("", false),
            ("all", false),
        ] {
            let key = given.parse::<DeviceKey>();
            assert_eq!(key.as_ref().ok().map(ToString::to_string).as_deref(), known.then_some(given), "{given}");
        }
    }
}
