// SPDX-License-Identifier: Apache-2.0
//! docs/events.md has a section for each reason of an Event, and no other.

use std::collections::BTreeSet;

use dra_tests::source::events::events;
use dra_tests::source::product::product_files;
use pulldown_cmark::HeadingLevel;

use crate::markdown::document;

/// Reasons of `gpu-explain`, which follow from a verdict and not from a type of their own.
const OF_EXPLAIN: [&str; 2] = ["DevicesImpossible", "DevicesUnavailable"];

#[test]
fn every_reason_of_an_event_has_a_section() {
    let reasons: BTreeSet<String> = events(&product_files()).into_keys().chain(OF_EXPLAIN.map(str::to_owned)).collect();
    let document = document("docs/events.md");
    let sections = document.headings.iter().filter(|heading| heading.level == HeadingLevel::H3);
    let sections: BTreeSet<String> = sections.map(|heading| heading.text.clone()).collect();
    let missing: Vec<_> = reasons.difference(&sections).collect();
    let unknown: Vec<_> = sections.difference(&reasons).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "docs/events.md lacks {missing:?}, and no Event has {unknown:?}");
}

#[test]
fn every_section_has_what_to_do() {
    let text = document("docs/events.md").text;
    for section in text.split("\n### ").skip(1) {
        assert!(section.split("\n## ").next().is_some_and(|own| own.contains("**Do**")), "{section}");
    }
}
