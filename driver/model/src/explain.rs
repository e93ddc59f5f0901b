// SPDX-License-Identifier: Apache-2.0
//! The one place that turns an error into the text that an administrator reads: the error, its causes, and then the advice.
//!
//! The `Display` of our errors contains neither the source nor the advice. The `Display` of many libraries contains the
//! source, so a cause that the text already contains is left out.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

/// An error with a next step for its reader.
pub trait Advice: Error {
    /// The next step of the reader, as a clause that follows `; `: lower case, no full stop. An error without advice of its own
    /// returns the advice of its source.
    fn advice(&self) -> Option<Cow<'static, str>>;
}

/// The error, its causes and its advice: `failed to write F: no space left on device; free space there`.
pub fn explain<E: Advice>(error: &E) -> String {
    match error.advice() {
        Some(advice) => format!("{}; {advice}", chain(error)),
        None => chain(error).to_string(),
    }
}

/// An error and its sources, separated by `: `. A source is left out if the text already contains it.
pub fn chain(error: &dyn Error) -> Chain<'_> {
    Chain(error)
}

/// See [`chain`].
#[derive(Debug, Clone, Copy)]
pub struct Chain<'a>(&'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        let mut source = self.0.source();
        while let Some(error) = source {
            let cause = error.to_string();
            if !contains_cause(&text, &cause) {
                text.push_str(": ");
                text.push_str(&cause);
            }
            source = error.source();
        }
        f.write_str(&text)
    }
}

/// Whether a text contains a cause, and not only as a part of longer words.
fn contains_cause(text: &str, cause: &str) -> bool {
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

    impl Advice for Layers {
        fn advice(&self) -> Option<Cow<'static, str>> {
            match &self.1 {
                Some(source) => source.advice(),
                None => (self.0 == "disk full").then_some(Cow::Borrowed("free space there")),
            }
        }
    }

    #[test]
    fn the_advice_of_the_cause_follows_the_whole_chain_once() {
        let text = explain(&layers(&["failed to prepare", "failed to write the record", "disk full"]));
        assert_eq!(text, "failed to prepare: failed to write the record: disk full; free space there");
        assert_eq!(explain(&layers(&["failed to prepare", "timed out"])), "failed to prepare: timed out");
    }

    #[test]
    fn causes_follow_in_order_and_none_is_repeated() {
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
