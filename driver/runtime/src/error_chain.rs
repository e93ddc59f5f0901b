// SPDX-License-Identifier: Apache-2.0
//! One place that prints an error with its causes. The `Display` of our errors never contains its source; that of many
//! libraries does, and what they have said already is not said again.

use std::error::Error;
use std::fmt;

/// Displays an error and its sources, separated by `: `, without those whose text stands there already.
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> Chain<'a> {
    Chain(error)
}

/// See [`chain`].
#[derive(Debug, Clone, Copy)]
pub struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        let mut source = self.0.source();
        while let Some(error) = source {
            let cause = error.to_string();
            if !says(&said, &cause) {
                said.push_str(": ");
                said.push_str(&cause);
            }
            source = error.source();
        }
        f.write_str(&said)
    }
}

/// Whether a text contains a cause, and not only as a part of longer words.
fn says(text: &str, cause: &str) -> bool {
    let part_of_word = |neighbour: Option<char>| neighbour.is_some_and(char::is_alphanumeric);
    cause.is_empty()
        || text.match_indices(cause).any(|(start, _)| {
            let before = text.get(..start).and_then(|before| before.chars().next_back());
            let after = text.get(start + cause.len()..).and_then(|after| after.chars().next());
            !part_of_word(before) && !part_of_word(after)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts from the outermost to the innermost.
    #[derive(Debug)]
    struct Layers(&'static str, Option<Box<Layers>>);

    impl fmt::Display for Layers {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layers {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            let inner = self.1.as_deref()?;
            Some(inner)
        }
    }

    fn layers(texts: &[&'static str]) -> Layers {
        let inner = texts.iter().rev().fold(None, |inner, text| Some(Box::new(Layers(text, inner))));
        *inner.expect("a text")
    }

    #[test]
    fn causes_follow_in_order_and_nothing_is_said_twice() {
        for (given, expect) in [
            (&["failed to write the record", "disk full"][..], "failed to write the record: disk full"),
            (
                &[
                    "no plugin answers",
                    "transport error: refused (os error 111)",
                    "refused (os error 111)",
                    "refused (os error 111)",
                ],
                "no plugin answers: transport error: refused (os error 111)",
            ),
            (&["not prepared: gone (code 5)", "gone", "deleted"], "not prepared: gone (code 5): deleted"),
            (&["failed to read notes", "not"], "failed to read notes: not"),
            (&["gpu 12 failed", "gpu 1"], "gpu 12 failed: gpu 1"),
            (&["empty", ""], "empty"),
        ] {
            assert_eq!(chain(&layers(given)).to_string(), expect);
        }
    }
}
