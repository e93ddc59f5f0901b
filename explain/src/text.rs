// SPDX-License-Identifier: Apache-2.0
//! Texts that must be short.

/// `text` with at most `width` characters, the last of them `…` if some are missing.
pub fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// `text` with at most `bytes` bytes.
pub fn within(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!([shortened("abcd", 4), shortened("abcde", 4)], ["abcd", "abc…"]);
        assert_eq!([within("aé", 2), within("aé", 3)], ["a", "aé"]);
    }
}
