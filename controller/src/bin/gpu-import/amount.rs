// SPDX-License-Identifier: Apache-2.0
//! Amounts of memory as Kubernetes writes them: `81559Mi`, `80G`, `1.5Gi` (package `resource`, quantity.go).
//!
//! Without exponents: the API server never answers with them for memory, and people do not type them.

use dra_model::Bytes;

const UNITS: [(&str, u64); 13] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("Ei", 1 << 60),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000),
    ("", 1),
];

/// The amount, rounded down to bytes; nothing when the text is none, is negative or does not fit.
pub(crate) fn parse(text: &str) -> Option<Bytes> {
    let (number, unit) = UNITS.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if !is_digits(whole) || !is_digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let parts = whole.parse::<u64>().ok().map(u128::from)? * scale + fraction.parse::<u128>().ok()?;
    u64::try_from(parts.checked_mul(u128::from(unit))? / scale).ok().map(Bytes)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_kubernetes_reads_them() {
        for (given, expect) in [
            ("81559Mi", Some(81_559 << 20)),
            ("1.5Gi", Some(3 << 29)),
            ("80G", Some(80_000_000_000)),
            ("1024", Some(1024)),
            ("0", Some(0)),
            ("17E", Some(17_000_000_000_000_000_000)),
            ("19E", None),
            ("16Ei", None),
            ("18446744073709551616", None),
            ("-1Gi", None),
            ("1.Gi", None),
            (".5Gi", None),
            ("Gi", None),
            ("5Zi", None),
            ("5 Gi", None),
            ("5gi", None),
            ("", None),
        ] {
            assert_eq!(parse(given), expect.map(Bytes), "{given:?}");
        }
    }
}
