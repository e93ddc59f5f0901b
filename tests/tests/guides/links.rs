// SPDX-License-Identifier: Apache-2.0
//! No document links to a file or heading that is not there, and no guide is without a link to it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use dra_tests::source::root_dir;

use crate::markdown::{Document, documents, parse};

/// The file below the root of the repository that a link means, and the heading.
fn target(document: &Document, link: &str) -> (PathBuf, Option<String>) {
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor.to_owned())));
    let path = if path.is_empty() { document.path.clone() } else { document.path.with_file_name("").join(path) };
    let mut plain = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir {
            plain.pop()
        } else {
            plain.push(part);
            true
        };
    }
    (plain, anchor)
}

fn is_local(link: &str) -> bool {
    !link.contains("://") && !link.starts_with("mailto:")
}

/// The links that lead nowhere.
fn dead(documents: &[Document], exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let anchors: BTreeMap<&Path, BTreeSet<String>> =
        documents.iter().map(|document| (document.path.as_path(), document.anchors())).collect();
    let mut dead = Vec::new();
    for document in documents {
        for link in document.links.iter().filter(|link| is_local(link)) {
            let (path, anchor) = target(document, link);
            let has_heading = |anchor: &String| anchors.get(path.as_path()).is_some_and(|known| known.contains(anchor));
            if !exists(&path) {
                dead.push(format!("{}: {link}: no such file", document.name()));
            } else if anchor.as_ref().is_some_and(|anchor| !has_heading(anchor)) {
                dead.push(format!("{}: {link}: no such heading", document.name()));
            }
        }
    }
    dead
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let dead = dead(&documents(), |path| root_dir().join(path).exists());
    assert!(dead.is_empty(), "\n{}", dead.join("\n"));
}

#[test]
fn a_dead_link_is_found() {
    let text = "[a](#one) [b](two.md#x) [c](../d.md) [d](https://example.com/x) ![e](p.png)\n# Two";
    let document = Document { path: "docs/one.md".into(), ..parse(text) };
    let dead = dead(&[document], |path| path == Path::new("docs/one.md") || path == Path::new("d.md"));
    let expect = ["#one: no such heading", "two.md#x: no such file", "p.png: no such file"];
    assert_eq!(dead, expect.map(|end| format!("docs/one.md: {end}")));
}

#[test]
fn every_guide_is_linked_from_the_readme_of_its_language() {
    let documents = documents();
    for (readme, chinese) in [("README.md", false), ("README.zh-CN.md", true)] {
        let Some(readme) = documents.iter().find(|document| document.path == Path::new(readme)) else { continue };
        let linked: BTreeSet<PathBuf> = readme.links.iter().map(|link| target(readme, link).0).collect();
        let guides = documents.iter().filter(|document| {
            document.path.starts_with("docs")
                && document.is_chinese() == chinese
                && !document.path.ends_with("decisions.md")
        });
        let missing: Vec<String> = guides.filter(|guide| !linked.contains(&guide.path)).map(Document::name).collect();
        assert!(missing.is_empty(), "{} has no link to {missing:?}", readme.name());
    }
}
