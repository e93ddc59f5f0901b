// SPDX-License-Identifier: Apache-2.0
//! Every text of an error or an Event of the product is in one file, so that a change of one is seen and read as a whole.

use std::fmt::Write as _;
use std::fs;

use dra_tests::source::errors::sections;
use dra_tests::source::events::events;
use dra_tests::source::product::product_files;
use dra_tests::source::root_dir;

const HEADER: &str = "\
# The texts of errors and Events, read from the source by tests/tests/messages.rs.
# UPDATE_GOLDEN=1 cargo test -p dra-tests --test messages writes this file anew.
#
# {x} is a value, <X> the text of the cause X, which follows the text of the error. The advice stands last in a message.
# `of():` is a text that the function `of` adds.
";

#[test]
fn the_texts_of_errors_and_events_are_these() {
    let files = product_files();
    let mut text = HEADER.to_owned();
    text.push_str("\n## Events and conditions: reason, then notes\n");
    for (reason, notes) in events(&files) {
        writeln!(text, "\n{reason}").unwrap_or_default();
        for note in notes {
            writeln!(text, "  {note}").unwrap_or_default();
        }
    }
    text.push_str("\n## Errors\n");
    for section in sections(&files) {
        writeln!(text, "\n{}\n{}", section.name, section.lines.join("\n")).unwrap_or_default();
    }
    let path = root_dir().join("tests/tests/golden/messages.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &text).expect("the golden file is writable");
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (golden, found) = (lines(&golden), lines(&text));
    let gone = golden.iter().filter(|line| !found.contains(line)).map(|line| format!("- {line}\n"));
    let new = found.iter().filter(|line| !golden.contains(line)).map(|line| format!("+ {line}\n"));
    let changes: String = gone.chain(new).collect();
    assert!(
        golden == found,
        "{} differs; read the changes, then run this test with UPDATE_GOLDEN=1:\n{changes}",
        path.display()
    );
}
