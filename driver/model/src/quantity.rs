// SPDX-License-Identifier: Apache-2.0
//! Amounts of memory in the notation of Kubernetes: `10Gi`, `1500M`, `1e9`, `0.5Gi`. Pure.
//!
//! The grammar is that of `resource.Quantity` (apimachinery, `pkg/api/resource`). A part of a byte counts as a whole one,
//! as the `Value()` of a quantity does.

use std::str::FromStr;

use crate::ids::{Bytes, IdError};

impl FromStr for Bytes {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        parse_bytes(text).ok_or_else(|| IdError::new("amount of memory", text, "a quantity such as `10Gi`"))
    }
}

/// Parses a quantity; nothing for another text, a negative amount or one above `u64::MAX`.
pub fn parse_bytes(text: &str) -> Option<Bytes> {
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at_checked(end)?;
    let (digits, decimals) = digits(number)?;
    let Scale { binary, decimal } = scale(suffix)?;
    let exponent = decimal.checked_sub(decimals)?;
    let amount = digits.checked_shl(binary).filter(|amount| amount >> binary == digits)?;
    u64::try_from(times_ten_to_the(amount, exponent)?).ok().map(Bytes)
}

/// The digits as one number, and how many of them follow the point.
fn digits(number: &str) -> Option<(u128, i64)> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    // Without the leading 0 the digits of `.` and `.0` would be an empty text.
    let digits = format!("0{whole}{fraction}").parse().ok()?;
    Some((digits, i64::try_from(fraction.len()).ok()?))
}

/// What a suffix multiplies by: two to the `binary` and ten to the `decimal`.
struct Scale {
    binary: u32,
    decimal: i64,
}

fn scale(suffix: &str) -> Option<Scale> {
    let decimal = |decimal| Some(Scale { binary: 0, decimal });
    let binary = |binary| Some(Scale { binary, decimal: 0 });
    match suffix {
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        exponent => decimal(i64::from(exponent.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?)),
    }
}

/// Rounded up.
fn times_ten_to_the(amount: u128, exponent: i64) -> Option<u128> {
    if amount == 0 {
        return Some(0);
    }
    match (u32::try_from(exponent), u32::try_from(exponent.unsigned_abs())) {
        (Ok(up), _) => 10_u128.checked_pow(up)?.checked_mul(amount),
        (Err(_), Ok(down)) => Some(10_u128.checked_pow(down).map_or(1, |by| amount.div_ceil(by))),
        (Err(_), Err(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (given, expect) in [
            ("0", Some(0)),
            ("1024", Some(1024)),
            ("+1", Some(1)),
            ("10Gi", Some(10 << 30)),
            ("1.5Gi", Some(3 << 29)),
            (".5Ki", Some(512)),
            ("5.", Some(5)),
            ("0.1Ki", Some(103)),
            ("1500m", Some(2)),
            ("1n", Some(1)),
            ("1u", Some(1)),
            ("2k", Some(2000)),
            ("1E", Some(1_000_000_000_000_000_000)),
            ("1e3", Some(1000)),
            ("1E+3", Some(1000)),
            ("2e-1", Some(1)),
            ("1e-999999999", Some(1)),
            ("0e999999999", Some(0)),
            ("00010", Some(10)),
            ("1.00000000000000000000000000000000000000000000", Some(1)),
            ("15Ei", Some(15 << 60)),
            ("16Ei", None),
            ("5Zi", None),
            ("1e999999999", None),
            ("340282366920938463463374607431768211456", None),
            ("-1", None),
            ("", None),
            (".", None),
            ("1.2.3", None),
            ("Gi", None),
            ("1 Gi", None),
            (" 1Gi", None),
            ("1gi", None),
            ("1K", None),
            ("1e", None),
            ("1e1.5", None),
            ("x", None),
        ] {
            assert_eq!(parse_bytes(given).map(|bytes| bytes.0), expect, "{given}");
        }
    }

    proptest! {
        #[test]
        fn whole_numbers_of_a_unit_are_exact(count in 0_u64..1 << 20, power in 0_u32..5) {
            let binary = format!("{count}{}", ["", "Ki", "Mi", "Gi", "Ti"][usize::try_from(power).unwrap()]);
            prop_assert_eq!(parse_bytes(&binary), Some(Bytes(count << (10 * power))));
            let decimal = format!("{count}{}", ["", "k", "M", "G", "T"][usize::try_from(power).unwrap()]);
            prop_assert_eq!(parse_bytes(&decimal), Some(Bytes(count * 1000_u64.pow(power))));
        }

        #[test]
        fn any_text_is_read_without_panic(text: String, number in "[+-]?[0-9.]{0,60}([eE][+-]?[0-9]{0,12}|[numkKMGTPEi]{0,3})") {
            parse_bytes(&text);
            parse_bytes(&number);
        }
    }
}
