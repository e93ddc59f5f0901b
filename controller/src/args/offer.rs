// SPDX-License-Identifier: Apache-2.0
//! The flags for the forms and shares in which GPUs are published.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use clap::ArgAction;
use dra_import::limits::{DEFAULT_SHARES, MAX_TIME_SLICES};
use dra_model::Advice;
use dra_resource::{Features, Form, FormError, Offer, PartitionSettings, ShareSettings, WithoutAmount};

/// What is published, as far as the API server stores it.
#[derive(Debug, clap::Args)]
pub struct OfferArgs {
    /// Forms in which GPUs are published, separated by commas: gpu, mig, mps, timeSlicing.
    #[arg(long, env = "FORMS", default_value = "gpu,mig,mps,timeSlicing")]
    pub forms: String,
    /// Number of default MPS shares of a GPU, 1 to 100.
    #[arg(long, env = "DEFAULT_SHARES", default_value_t = 10)]
    pub default_shares: u32,
    /// Maximum number of time-slicing shares of a GPU, 1 to 1000.
    #[arg(long, env = "TIME_SLICING_MAX_SHARES", default_value_t = 10)]
    pub time_slicing_max_shares: u32,
    /// Allocate shares only to requests that name an amount: activeThreadPercentage or shares in capacity.requests.
    #[arg(long, env = "REQUIRE_SHARE_AMOUNT")]
    pub require_share_amount: bool,
    /// Publish the MIG devices that can be created for a claim, beside those that exist.
    #[arg(long, env = "DYNAMIC_MIG", default_value_t = true, action = ArgAction::Set)]
    pub dynamic_mig: bool,
    /// MIG profiles that are not created for claims, separated by commas, such as 1g.10gb+me,7g.80gb.
    #[arg(long, env = "DYNAMIC_MIG_EXCLUDED_PROFILES", default_value = "")]
    pub dynamic_mig_excluded_profiles: String,
}

/// An invalid flag for what is published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    #[error("--forms is invalid")]
    Form(#[source] FormError),
    #[error("--forms contains `{form}` twice")]
    Repeated { form: Form },
    #[error("{flag} is {given}, expected {} to {}", .expected.start(), .expected.end())]
    OutOfRange { flag: &'static str, given: u32, expected: RangeInclusive<u32> },
}

impl Advice for OfferError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Repeated { .. } => Some(format!("name each of {} at most once", words()).into()),
            Self::Form(_) | Self::OutOfRange { .. } => None,
        }
    }
}

impl OfferArgs {
    /// Validates the flags; the result is for an API server that stores all fields.
    pub fn into_offer(self) -> Result<Offer, OfferError> {
        let Self {
            forms,
            default_shares,
            time_slicing_max_shares,
            require_share_amount,
            dynamic_mig,
            dynamic_mig_excluded_profiles,
        } = self;
        Ok(Offer {
            features: Features::ALL,
            forms: read(&forms)?,
            shares: ShareSettings {
                default_shares: within("--default-shares", default_shares, DEFAULT_SHARES)?,
                max_time_slices: within("--time-slicing-max-shares", time_slicing_max_shares, MAX_TIME_SLICES)?,
                without_amount: if require_share_amount { WithoutAmount::NoShare } else { WithoutAmount::DefaultShare },
            },
            partitions: partitions(dynamic_mig, &dynamic_mig_excluded_profiles),
        })
    }
}

/// A profile that no GPU has excludes nothing.
fn partitions(are_offered: bool, excluded: &str) -> PartitionSettings {
    if !are_offered {
        return PartitionSettings::None;
    }
    let names = excluded.split(',').map(str::trim).filter(|name| !name.is_empty());
    PartitionSettings::AllBut { excluded: names.map(str::to_owned).collect() }
}

fn read(text: &str) -> Result<BTreeSet<Form>, OfferError> {
    let mut forms = BTreeSet::new();
    for word in text.split(',') {
        let form = word.parse().map_err(OfferError::Form)?;
        if !forms.insert(form) {
            return Err(OfferError::Repeated { form });
        }
    }
    Ok(forms)
}

fn within(flag: &'static str, given: u32, expected: RangeInclusive<u32>) -> Result<NonZeroU32, OfferError> {
    let number = NonZeroU32::new(given).filter(|_| expected.contains(&given));
    number.ok_or(OfferError::OutOfRange { flag, given, expected })
}

fn words() -> String {
    Form::ALL.map(|form| form.to_string()).join(", ")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use dra_model::SharedForm;
    use dra_model::explain;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Program {
        #[command(flatten)]
        offer: OfferArgs,
    }

    fn offer(args: &[&str]) -> Result<Offer, String> {
        let program = Program::try_parse_from(["program"].iter().chain(args)).unwrap();
        program.offer.into_offer().map_err(|error| explain(&error))
    }

    #[test]
    fn forms_and_numbers_are_read() {
        let shared = |form| Form::Shared(form);
        for (given, forms, shares, slices) in [
            (vec![], Form::ALL.to_vec(), 10, 10),
            (vec!["--forms=mig"], vec![Form::Mig], 10, 10),
            (
                vec!["--forms=timeSlicing,mps,gpu", "--default-shares=100", "--time-slicing-max-shares=1000"],
                vec![Form::Gpu, shared(SharedForm::Mps), shared(SharedForm::TimeSlicing)],
                100,
                1000,
            ),
            (vec!["--default-shares=1", "--time-slicing-max-shares=1"], Form::ALL.to_vec(), 1, 1),
        ] {
            let offer = offer(&given).unwrap();
            let numbers = [offer.shares.default_shares, offer.shares.max_time_slices].map(NonZeroU32::get);
            assert_eq!((offer.forms, numbers), (forms.into_iter().collect(), [shares, slices]), "{given:?}");
        }
    }

    #[test]
    fn shares_without_an_amount_are_given_unless_the_amount_is_required() {
        for (given, expect) in
            [(&[][..], WithoutAmount::DefaultShare), (&["--require-share-amount"], WithoutAmount::NoShare)]
        {
            assert_eq!(offer(given).unwrap().shares.without_amount, expect, "{given:?}");
        }
    }

    #[test]
    fn partitions_are_offered_unless_they_are_turned_off() {
        let but = |names: &[&str]| PartitionSettings::AllBut {
            excluded: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        for (given, expect) in [
            (&[][..], but(&[])),
            (&["--dynamic-mig=false"], PartitionSettings::None),
            (&["--dynamic-mig-excluded-profiles=1g.10gb+me, 7g.80gb"], but(&["1g.10gb+me", "7g.80gb"])),
        ] {
            assert_eq!(offer(given).unwrap().partitions, expect, "{given:?}");
        }
    }

    #[test]
    fn errors_name_the_expected_values() {
        let expected = "expected `gpu`, `mig`, `mps` or `timeSlicing`";
        for (given, expect) in [
            ("--forms=gpu,MPS", format!("--forms is invalid: `MPS` is not a form of a GPU: {expected}")),
            ("--forms=gpu, mig", format!("--forms is invalid: ` mig` is not a form of a GPU: {expected}")),
            ("--forms=", format!("--forms is invalid: `` is not a form of a GPU: {expected}")),
            (
                "--forms=mps,gpu,mps",
                "--forms contains `mps` twice; name each of gpu, mig, mps, timeSlicing at most once".to_owned(),
            ),
            ("--default-shares=0", "--default-shares is 0, expected 1 to 100".to_owned()),
            ("--default-shares=101", "--default-shares is 101, expected 1 to 100".to_owned()),
            ("--time-slicing-max-shares=0", "--time-slicing-max-shares is 0, expected 1 to 1000".to_owned()),
            ("--time-slicing-max-shares=1001", "--time-slicing-max-shares is 1001, expected 1 to 1000".to_owned()),
        ] {
            assert_eq!(offer(&[given]), Err(expect), "{given}");
        }
    }
}
