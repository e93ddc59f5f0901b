// SPDX-License-Identifier: Apache-2.0
//! What of a node's GPUs is offered: which forms, in what shares, and what the API server can keep of it.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use dra_model::{Device, SharedForm};

/// A form in which GPUs are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// A whole GPU for one claim.
    Gpu,
    /// A MIG device for one claim.
    Mig,
    /// A whole GPU for many claims.
    Shared(SharedForm),
}

/// A word that is no form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a form of a GPU: expected `gpu`, `mig`, `mps` or `timeSlicing`")]
pub struct FormError {
    text: String,
}

impl Form {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Gpu, Self::Mig, Self::Shared(SharedForm::Mps), Self::Shared(SharedForm::TimeSlicing)];

    /// The form of a device.
    pub fn of(device: Device<'_>) -> Self {
        match device {
            Device::Gpu(_) => Self::Gpu,
            Device::Mig(..) => Self::Mig,
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

    /// Reads exactly what [`fmt::Display`] writes.
    fn from_str(text: &str) -> Result<Self, FormError> {
        let known = Self::ALL.into_iter().find(|form| form.to_string() == text);
        known.ok_or_else(|| FormError { text: text.chars().take(80).collect() })
    }
}

/// What the API server keeps of what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// Counters (gate DRAPartitionableDevices, beta and on since 1.36). Without them only the hardware that exists at
    /// this moment is published, which never overlaps.
    pub partitionable: bool,
    /// Many claims on one device, and what each takes of its capacities (gate DRAConsumableCapacity, beta and on since
    /// 1.36). Only with counters: forms of one GPU overlap.
    pub consumable: bool,
}

impl Features {
    /// Whether forms for many claims can be published.
    pub const fn shares(self) -> bool {
        self.partitionable && self.consumable
    }
}

/// What a request gets of a shared form when it names no amount: neither `activeThreadPercentage` nor `shares`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutAmount {
    /// A default share. Extended resources need it, since they cannot name an amount.
    DefaultShare,
    /// Nothing, so that a class that selects this driver and no type gets whole GPUs and MIG devices only.
    NoShare,
}

/// How shared forms are cut into shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareSettings {
    /// How many default shares fit on a GPU by MPS.
    pub default_shares: NonZeroU32,
    /// How many claims fit on a GPU by time-slicing, whatever they ask for.
    pub max_time_slices: NonZeroU32,
    /// Who gets a default share.
    pub without_amount: WithoutAmount,
}

impl Default for ShareSettings {
    /// Ten, which gives round percentages.
    fn default() -> Self {
        const TEN: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);
        Self { default_shares: TEN, max_time_slices: TEN, without_amount: WithoutAmount::DefaultShare }
    }
}

/// What is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// What the API server keeps.
    pub features: Features,
    /// Which forms the administrator wants.
    pub forms: BTreeSet<Form>,
    /// How they are cut into shares.
    pub shares: ShareSettings,
}

impl Offer {
    /// The hardware as it is: whole GPUs and MIG devices.
    pub fn of_hardware(features: Features) -> Self {
        Self { features, forms: [Form::Gpu, Form::Mig].into(), shares: ShareSettings::default() }
    }

    /// Whether a device is offered.
    pub fn includes(&self, device: Device<'_>) -> bool {
        let form = Form::of(device);
        let can_be = match form {
            Form::Gpu | Form::Mig => true,
            Form::Shared(_) => self.features.shares(),
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
