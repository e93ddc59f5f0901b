// SPDX-License-Identifier: Apache-2.0
//! What the commands print about devices that this driver publishes, compared with committed files.
//!
//! `UPDATE_GOLDEN=1 cargo test -p dra-kubectl-gpu --test cli` writes the files anew.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

mod changes;
mod drain;
mod faults;
mod fit;
mod migrate;
mod moves;
mod node_verbs;
mod server;
mod status;
mod top;
mod watch;
mod why;
mod world;

use std::fs;
use std::path::Path;

/// Compares a text with a file in `tests/golden`.
fn check(found: &str, golden: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(golden);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, found).unwrap();
    }
    let expect = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expect, "{golden} differs; compare after UPDATE_GOLDEN=1:\n{found}");
}
