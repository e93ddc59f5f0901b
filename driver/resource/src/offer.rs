// SPDX-License-Identifier: Apache-2.0
//! Which forms and shares of a node's GPUs are published, and which features the API server supports.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use dra_model::{Device, Partition, SharedForm};

/// A form in which GPUs are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// A GPU for one claim.
    Gpu,
    Mig,
    /// A GPU that many claims share.
    Shared(SharedForm),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a form of a GPU: expected `gpu`, `mig`, `mps` or `timeSlicing`")]
pub struct FormError {
    text: String,
}

impl Form {
    pub const ALL: [Self; 4] =
        [Self::Gpu, Self::Mig, Self::Shared(SharedForm::Mps), Self::Shared(SharedForm::TimeSlicing)];

    pub fn of(device: Device<'_>) -> Self {
        match device {
            Device::Gpu(_) => Self::Gpu,
            Device::Mig(..) | Device::Partition(..) => Self::Mig,
            Device::Shared(_, form) => Self::Shared(form),
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gpu => "gpu",
            Self::Mig => "mig",
            Self::Shared(SharedForm::Mps) => "mps",
            Self::Shared(SharedForm::TimeSlicing) => "timeSlicing",
        })
    }
}

impl FromStr for Form {
    type Err = FormError;

    /// Parses the text of [`fmt::Display`].
    fn from_str(text: &str) -> Result<Self, FormError> {
        let known = Self::ALL.into_iter().find(|form| form.to_string() == text);
        known.ok_or_else(|| FormError { text: text.chars().take(80).collect() })
    }
}

/// The features that the API server supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// Shared counters (gate DRAPartitionableDevices, beta and on since 1.36). Without them only existing hardware is published, which
    /// never overlaps.
    pub partitionable: bool,
    /// Consumable capacity of shared devices (gate DRAConsumableCapacity, beta and on since 1.36). Used only with counters, because the
    /// forms of one GPU overlap.
    pub consumable: bool,
    /// Taints of devices (gate DRADeviceTaints, beta and on since 1.36). Without them a GPU that cannot be read is not published.
    pub taints: bool,
}

impl Features {
    /// A server that supports everything.
    pub const ALL: Self = Self { partitionable: true, consumable: true, taints: true };

    /// Whether shared forms can be published.
    pub const fn shares(self) -> bool {
        self.partitionable && self.consumable
    }
}

/// What a request for a shared form gets if it names no amount: neither `activeThreadPercentage` nor `shares`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutAmount {
    /// A default share. Extended resources need it, because they cannot name an amount.
    DefaultShare,
    /// No share, so that a class that selects this driver and no type gets only whole GPUs and MIG devices.
    NoShare,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareSettings {
    /// Number of default MPS shares of a GPU.
    pub default_shares: NonZeroU32,
    /// Maximum number of time-slicing shares of a GPU.
    pub max_time_slices: NonZeroU32,
    pub without_amount: WithoutAmount,
}

impl Default for ShareSettings {
    /// Ten shares, which gives a round percentage.
    fn default() -> Self {
        const TEN: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);
        Self { default_shares: TEN, max_time_slices: TEN, without_amount: WithoutAmount::DefaultShare }
    }
}

/// Which partitions are published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartitionSettings {
    /// Only the MIG devices of administrators are published.
    None,
    AllBut {
        /// Names of profiles.
        excluded: BTreeSet<String>,
    },
}

impl Default for PartitionSettings {
    fn default() -> Self {
        Self::AllBut { excluded: BTreeSet::new() }
    }
}

impl PartitionSettings {
    fn includes(&self, partition: Partition<'_>) -> bool {
        match self {
            Self::None => false,
            Self::AllBut { excluded } => !excluded.contains(&partition.profile.name),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub features: Features,
    /// The configured forms.
    pub forms: BTreeSet<Form>,
    pub shares: ShareSettings,
    pub partitions: PartitionSettings,
}

impl Offer {
    /// Whole GPUs and MIG devices, no shares.
    pub fn of_hardware(features: Features) -> Self {
        let partitions = PartitionSettings::default();
        Self { features, forms: [Form::Gpu, Form::Mig].into(), shares: ShareSettings::default(), partitions }
    }

    /// Whether a device is published.
    pub fn includes(&self, device: Device<'_>) -> bool {
        let form = Form::of(device);
        let can_be = match device {
            Device::Gpu(_) | Device::Mig(..) => true,
            Device::Partition(_, partition) => self.features.partitionable && self.partitions.includes(partition),
            Device::Shared(..) => self.features.shares(),
        };
        can_be && self.forms.contains(&form)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read_exactly() {
        for form in Form::ALL {
            assert_eq!(form.to_string().parse(), Ok(form));
        }
        let error = "MPS".parse::<Form>().unwrap_err().to_string();
        assert_eq!(error, "`MPS` is not a form of a GPU: expected `gpu`, `mig`, `mps` or `timeSlicing`");
    }
}
