// SPDX-License-Identifier: Apache-2.0
//! Exact arithmetic with Kubernetes quantities: amounts of capacity and counters.
//!
//! The grammar is that of `resource.Quantity` (apimachinery, `pkg/api/resource`): a number with a suffix of ten or two, or with an
//! exponent. A quantity has no part smaller than a billionth.

use std::fmt;
use std::str::FromStr;

const ONE: i128 = 1_000_000_000;

/// Suffixes of powers of two, largest first.
const BINARY: [(&str, u32); 6] = [("Ei", 60), ("Pi", 50), ("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];

/// Suffixes of powers of ten, with the number of zeros that they add to billionths.
const DECIMAL: [(&str, u32); 10] =
    [("n", 0), ("u", 3), ("m", 6), ("", 9), ("k", 12), ("M", 15), ("G", 18), ("T", 21), ("P", 24), ("E", 27)];

/// An amount in billionths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(i128);

/// The text is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no quantity such as `10Gi` or `100`")]
pub struct AmountError {
    text: String,
}

impl Amount {
    pub const ZERO: Self = Self(0);

    pub fn whole(number: i64) -> Self {
        Self(i128::from(number).saturating_mul(ONE))
    }

    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    pub fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// As often as `count`.
    pub fn times(self, count: i128) -> Self {
        Self(self.0.saturating_mul(count))
    }

    /// How many whole `step` are in the amount, rounded up; nothing if the step is not positive.
    pub fn steps(self, step: Self) -> Option<i128> {
        (step.0 > 0).then(|| self.0.div_euclid(step.0) + i128::from(self.0.rem_euclid(step.0) > 0))
    }

    /// How many whole `part` the amount has; zero if the part is not positive.
    pub fn parts(self, part: Self) -> i128 {
        if part.0 > 0 { self.0.div_euclid(part.0) } else { 0 }
    }

    /// The amount as an integer, if it is one.
    pub fn as_integer(self) -> Option<i64> {
        if self.0 % ONE == 0 { i64::try_from(self.0 / ONE).ok() } else { None }
    }

    /// The nearest floating point number.
    pub fn as_float(self) -> f64 {
        self.to_decimal().parse().unwrap_or(f64::NAN)
    }

    pub fn is_positive(self) -> bool {
        self.0 > 0
    }

    pub fn signum(self) -> i64 {
        i64::try_from(self.0.signum()).unwrap_or_default()
    }

    /// Thousandths of `whole` that the amount is, at most 1000; zero of nothing.
    pub fn per_mille_of(self, whole: Self) -> u32 {
        if whole.0 <= 0 {
            return 0;
        }
        u32::try_from(self.0.max(0).saturating_mul(1000) / whole.0).unwrap_or(1000).min(1000)
    }

    /// A number with a point and without a suffix.
    fn to_decimal(self) -> String {
        let (sign, amount) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        let one = ONE.unsigned_abs();
        format!("{sign}{}.{:09}", amount / one, amount % one)
    }
}

impl FromStr for Amount {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        parse(text).ok_or_else(|| AmountError { text: text.chars().take(80).collect() })
    }
}

fn parse(text: &str) -> Option<Amount> {
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at_checked(end)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let digits: i128 = format!("0{whole}{fraction}").parse().ok()?;
    let decimals = i32::try_from(fraction.len()).ok()?;
    let amount = match BINARY.iter().find(|(known, _)| *known == suffix) {
        Some((_, bits)) => shifted(digits.checked_mul(1_i128.checked_shl(*bits)?)?, 9 - decimals)?,
        None => shifted(digits, zeros(suffix)?.checked_sub(decimals)?)?,
    };
    Some(Amount(sign * amount))
}

/// The zeros that a decimal suffix or an exponent adds to billionths.
fn zeros(suffix: &str) -> Option<i32> {
    if let Some((_, zeros)) = DECIMAL.iter().find(|(known, _)| *known == suffix) {
        return i32::try_from(*zeros).ok();
    }
    suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?.checked_add(9)
}

/// Times ten to the `zeros`, rounded up as the API server does below a billionth.
fn shifted(digits: i128, zeros: i32) -> Option<i128> {
    if digits == 0 {
        return Some(0);
    }
    let power = 10_i128.checked_pow(zeros.unsigned_abs());
    match power {
        Some(power) if zeros >= 0 => digits.checked_mul(power),
        Some(power) => Some(digits / power + i128::from(digits % power > 0)),
        None => (zeros < 0).then_some(1),
    }
}

/// The largest unit in which the amount is whole: binary units from 1Mi on, as memory has them, otherwise decimal ones.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = |unit: i128| self.0.abs() >= (ONE << 20) && self.0 % unit == 0;
        for (suffix, bits) in BINARY {
            let unit = ONE << bits;
            if memory(unit) {
                return write!(f, "{}{suffix}", self.0 / unit);
            }
        }
        let whole = |unit: i128| self.0 != 0 && self.0 % unit == 0;
        let found = DECIMAL.iter().take(4).rev().find(|(_, zeros)| whole(10_i128.pow(*zeros)));
        let (suffix, zeros) = found.copied().unwrap_or(("", 9));
        write!(f, "{}{suffix}", self.0 / 10_i128.pow(zeros))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantities_are_read_exactly() {
        for (given, expect) in [
            ("0", Some(0)),
            ("1n", Some(1)),
            ("1500m", Some(1_500_000_000)),
            ("0.1Ki", Some(102_400_000_000)),
            ("1e3", Some(1000 * ONE)),
            ("2E", Some(2_000_000_000_000_000_000 * ONE)),
            ("-1Gi", Some(-(ONE << 30))),
            ("+.5", Some(ONE / 2)),
            ("0.0000000001", Some(1)),
            ("", None),
            (".", None),
            ("1.2.3", None),
            ("1Zi", None),
            ("ten", None),
        ] {
            assert_eq!(given.parse::<Amount>().ok(), expect.map(Amount), "{given}");
        }
    }

    #[test]
    fn amounts_are_written_as_users_write_them() {
        for (given, expect) in [
            ("81920Mi", "80Gi"),
            ("9984Mi", "9984Mi"),
            ("100", "100"),
            ("1024", "1024"),
            ("333m", "333m"),
            ("0", "0"),
            ("1000000", "1000000"),
        ] {
            assert_eq!(given.parse::<Amount>().unwrap().to_string(), expect);
        }
    }

    #[test]
    fn steps_are_rounded_up() {
        let amount = Amount::whole;
        assert_eq!(amount(7).steps(amount(3)), Some(3));
        assert_eq!(amount(6).steps(amount(3)), Some(2));
        assert_eq!(amount(6).steps(Amount::ZERO), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(amount in -(1_i128 << 90)..1_i128 << 90) {
            prop_assert_eq!(Amount(amount).to_string().parse::<Amount>(), Ok(Amount(amount)));
        }
    }
}
