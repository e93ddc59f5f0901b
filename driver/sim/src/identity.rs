// SPDX-License-Identifier: Apache-2.0
//! Stable identities: all of them are computed from a seed, so that the same command creates the same machine.
//!
//! In: text parts. Out: UUIDs and serial numbers. No clock and no random source.

/// A UUID in the usual form, computed from `parts`.
pub fn uuid(parts: &[&str]) -> String {
    let value = hash(parts);
    let part = |shift: u32, digits: usize| {
        let mask = (1_u128 << (digits * 4)) - 1;
        format!("{:0digits$x}", (value >> shift) & mask)
    };
    format!("{}-{}-5{}-a{}-{}", part(96, 8), part(80, 4), part(68, 3), part(52, 3), part(0, 12))
}

/// A decimal number of 13 digits, as boards carry on their label.
pub fn serial(parts: &[&str]) -> String {
    format!("1{:012}", hash(parts) % 1_000_000_000_000)
}

/// FNV-1a over 128 bits (Noll, draft-eastlake-fnv), then a mix so that short inputs differ in all digits.
fn hash(parts: &[&str]) -> u128 {
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013B;
    let mut value: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for byte in parts.iter().flat_map(|part| part.bytes().chain([0])) {
        value = (value ^ u128::from(byte)).wrapping_mul(PRIME);
    }
    for _ in 0..3 {
        value = (value ^ (value >> 59)).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    }
    value ^ (value >> 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_stable_and_distinct() {
        assert_eq!(uuid(&["a", "0"]), uuid(&["a", "0"]));
        assert_ne!(uuid(&["a", "0"]), uuid(&["a", "1"]));
        assert_ne!(uuid(&["a", "0"]), uuid(&["a0"]));
        assert_eq!(uuid(&["a"]).len(), 36);
        assert_eq!(serial(&["a"]).len(), 13);
    }
}
