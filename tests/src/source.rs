// SPDX-License-Identifier: Apache-2.0
//! The files of this repository as the checks see them.
//!
//! [`code`] separates code from text without parsing it. [`paths`], [`modules`] and [`graph`] find which file uses an item
//! of which other file. [`product`], [`templates`], [`errors`], [`values`] and [`events`] find the texts that users read.

pub mod code;

pub mod paths;

pub mod modules;

pub mod graph;

pub mod product;

pub mod templates;

pub mod errors;

pub mod values;

pub mod events;

pub mod words;

use std::fs;
use std::path::{Path, PathBuf};

/// A text file of the repository.
#[derive(Debug)]
pub struct SourceFile {
    /// Path below the repository's root.
    pub path: PathBuf,
    pub text: String,
}

/// The root of the repository.
pub fn root_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in a directory of the repository")
}

/// Every text file of the repository, by path; nothing that is built or generated.
pub fn files() -> Vec<SourceFile> {
    let mut paths = Vec::new();
    collect(root_dir(), &mut paths);
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).ok()?;
        let path = path.strip_prefix(root_dir()).ok()?.to_owned();
        Some(SourceFile { path, text })
    };
    paths.into_iter().filter_map(read).collect()
}

fn collect(dir: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("the repository is readable").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type().expect("an entry that was just listed");
        let built =
            matches!(name.as_str(), "target" | "shared" | "generated") || (name.starts_with('.') && name != ".ci");
        if kind.is_dir() && !built {
            collect(&entry.path(), paths);
        } else if kind.is_file() && name != ".git" {
            paths.push(entry.path());
        }
    }
}

impl SourceFile {
    pub fn is_rust(&self) -> bool {
        self.has_extension("rs")
    }

    pub fn has_extension(&self, wanted: &str) -> bool {
        self.path.extension().is_some_and(|extension| extension == wanted)
    }

    /// Whether all of the file is for tests: the harness, and what cargo takes for tests and benchmarks.
    pub fn is_test(&self) -> bool {
        self.path.starts_with("tests/src")
            || self.path.components().rev().skip(1).any(|part| part.as_os_str() == "benches")
            || self
                .path
                .components()
                .skip(1)
                .any(|part| part.as_os_str() == "tests" && !self.path.starts_with("tests/cluster/src"))
    }

    /// The code with strings, characters and comments blanked, line by line as in the file, without inline test modules.
    pub fn product_code(&self) -> String {
        code::without_tests(&code::code_only(&self.text))
    }
}
