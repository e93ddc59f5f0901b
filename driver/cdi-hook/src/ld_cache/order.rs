// SPDX-License-Identifier: Apache-2.0
//! The order of SONAMEs in a cache. The loader searches by bisection, so an entry at another place is not found.
//!
//! Source: `_dl_cache_libcmp` in `elf/dl-cache.c` of glibc 2.36: digits compare as numbers, other characters by their value,
//! and a digit is greater than any other character. `ldconfig` writes the greatest SONAME first.

use std::cmp::Ordering;
use std::ffi::c_char;

pub fn compare(left: &[u8], right: &[u8]) -> Ordering {
    let (mut left, mut right) = (left, right);
    loop {
        let Some((first, left_rest)) = left.split_first() else {
            return 0.cmp(&right.first().map_or(0, |byte| character(*byte)));
        };
        let second = right.first().copied().unwrap_or_default();
        match (first.is_ascii_digit(), second.is_ascii_digit()) {
            (true, true) => {
                let (left_number, left_after) = number(left);
                let (right_number, right_after) = number(right);
                if left_number != right_number {
                    return left_number.cmp(&right_number);
                }
                (left, right) = (left_after, right_after);
            }
            (true, false) => return Ordering::Greater,
            (false, true) => return Ordering::Less,
            (false, false) if *first != second => return character(*first).cmp(&character(second)),
            // The right side cannot be at its end, because its NUL would differ.
            (false, false) => (left, right) = (left_rest, right.get(1..).unwrap_or_default()),
        }
    }
}

/// Signed or not as on the machine, because the loader compares them as `char`.
fn character(byte: u8) -> i32 {
    i32::from(c_char::from_ne_bytes([byte]))
}

/// The number at the start of `text` and what follows. It wraps around as that of the loader does.
fn number(text: &[u8]) -> (i32, &[u8]) {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at_checked(digits).unwrap_or((text, &[]));
    let append = |number: i32, digit: &u8| number.wrapping_mul(10).wrapping_add(i32::from(digit.wrapping_sub(b'0')));
    (digits.iter().fold(0, append), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_compare_by_value_and_are_greater_than_letters() {
        for (left, right, expected) in [
            ("libc.so.6", "libc.so.6", Ordering::Equal),
            ("libc.so.10", "libc.so.6", Ordering::Greater),
            ("libc.so.06", "libc.so.6", Ordering::Equal),
            ("lib1.so", "libz.so", Ordering::Greater),
            ("libz.so", "lib1.so", Ordering::Less),
            ("libcuda.so", "libcuda.so.1", Ordering::Less),
            ("libcuda.so.1", "libcuda.so", Ordering::Greater),
            ("libcudadebugger.so.1", "libcuda.so.1", Ordering::Greater),
            ("", "a", Ordering::Less),
            ("", "", Ordering::Equal),
            ("1", "", Ordering::Greater),
            ("", "1", Ordering::Less),
            ("lib99999999999999999999.so", "lib1.so", Ordering::Greater),
        ] {
            assert_eq!(compare(left.as_bytes(), right.as_bytes()), expected, "{left} {right}");
        }
    }
}
