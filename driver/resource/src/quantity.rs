// SPDX-License-Identifier: Apache-2.0
//! Quantities in the canonical form of the API server.
//!
//! The API server converts quantities to a canonical form (`1024Mi` becomes `1Gi`, `1000` becomes `1k`). Sent quantities must have that
//! form, or a stored slice would differ from the sent one after every write (package `resource`, quantity.go).

use dra_model::Bytes;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// An amount in thousandths, the smallest unit of a quantity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Milli(pub u64);

impl Milli {
    pub const ONE: Self = Self(1000);

    pub fn from_count(count: u32) -> Self {
        Self(u64::from(count) * 1000)
    }

    /// `part` of `whole`, see [`fraction`].
    pub fn fraction(self, part: u32, whole: u32) -> Self {
        Self(fraction(self.0, part, whole))
    }

    /// The saturating sum.
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

/// `part` of `whole` of an amount, rounded down so that the parts never exceed the whole; the amount if `whole` is zero.
pub(crate) fn fraction(amount: u64, part: u32, whole: u32) -> u64 {
    if whole == 0 || part >= whole {
        return amount;
    }
    amount.saturating_mul(u64::from(part)) / u64::from(whole)
}

/// A decimal quantity: `14`, `333m`, `1k`.
pub fn decimal(amount: Milli) -> Quantity {
    canonical(amount.0, 1000, ["m", "", "k", "M", "G", "T", "P"])
}

/// A binary quantity: `81559Mi`. Below 1024 the API server uses the decimal form.
pub fn binary(amount: Bytes) -> Quantity {
    if amount.0 < 1024 {
        decimal(Milli(amount.0 * 1000))
    } else {
        canonical(amount.0, 1024, ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"])
    }
}

/// The largest unit in which the amount is whole.
fn canonical(amount: u64, base: u64, units: [&str; 7]) -> Quantity {
    let mut rest = amount;
    let mut text = "0".to_owned();
    if amount == 0 {
        return Quantity(text);
    }
    for unit in units {
        text = format!("{rest}{unit}");
        if !rest.is_multiple_of(base) {
            break;
        }
        rest /= base;
    }
    Quantity(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_spelled_as_the_api_server_does() {
        for (given, expect) in [
            (0, "0"),
            (1, "1m"),
            (333, "333m"),
            (999, "999m"),
            (1000, "1"),
            (14_000, "14"),
            (1_000_000, "1k"),
            (1_500_000, "1500"),
        ] {
            assert_eq!(decimal(Milli(given)).0, expect);
        }
        for (given, expect) in [
            (0, "0"),
            (1000, "1k"),
            (1024, "1Ki"),
            (1025, "1025"),
            (9728 << 20, "9728Mi"),
            (81920 << 20, "80Gi"),
            (1 << 60, "1Ei"),
        ] {
            assert_eq!(binary(Bytes(given)).0, expect);
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_spelled_is_read_back(amount: u64) {
            proptest::prop_assert_eq!(binary(Bytes(amount)).0.parse::<Bytes>(), Ok(Bytes(amount)));
        }
    }

    #[test]
    fn parts_never_exceed_the_whole() {
        for whole in 1..8 {
            let sum = (0..whole).fold(Milli(0), |sum, _| sum.plus(Milli::ONE.fraction(1, whole)));
            assert!(sum <= Milli::ONE, "{whole}");
        }
        assert_eq!(Milli::ONE.fraction(0, 0), Milli::ONE);
    }
}
