// SPDX-License-Identifier: Apache-2.0
//! A Chinese document has the headings and code blocks of its English source, and names the version of it that was translated.
//!
//! The version is the name that git gives to the content of the file: it is known before a commit, needs no history to be checked,
//! and `git diff NAME -- FILE` shows what changed since.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dra_tests::source::root_dir;
use pulldown_cmark::HeadingLevel;

use crate::markdown::{Document, documents};

/// The English source of a translation.
fn source(translation: &Path) -> PathBuf {
    let path = translation.display().to_string().replace("docs/zh-CN/", "docs/");
    path.replace(".zh-CN.md", ".md").into()
}

/// The name that git gives to a file.
fn version(path: &Path) -> String {
    let output = Command::new("git").args(["hash-object", "--no-filters"]).arg(root_dir().join(path)).output().unwrap();
    assert!(output.status.success(), "git names no version of {}", path.display());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn comment(source: &Path) -> String {
    format!("<!-- {} {} -->", source.display(), version(source))
}

/// What is wrong with the form of a translation.
fn faults(translation: &Document, source: &Document) -> Vec<String> {
    let mut faults = Vec::new();
    let levels =
        |document: &Document| document.headings.iter().map(|heading| heading.level).collect::<Vec<HeadingLevel>>();
    if levels(translation) != levels(source) {
        faults.push("has other headings: translate the new ones, remove the others".to_owned());
    }
    // A code block of the source, or none; comments in it stay as they are.
    for (at, block) in source.blocks.iter().enumerate() {
        if translation.blocks.get(at) != Some(block) {
            faults.push(format!("code block {} differs; copy it:\n{}", at + 1, block.text));
            break;
        }
    }
    if translation.blocks.len() > source.blocks.len() {
        faults.push("has more code blocks".to_owned());
    }
    if !translation.text.lines().next().is_some_and(|line| line.contains("English](") && line.contains("简体中文"))
    {
        faults.push("has no links to the languages in line 1".to_owned());
    }
    faults
}

/// The translation with the comment about its source, which follows the first line.
fn with_comment(text: &str, comment: &str) -> String {
    let rest: Vec<&str> = text.lines().filter(|line| !line.starts_with("<!-- ")).collect();
    let (first, rest) = rest.split_first().unwrap();
    format!("{first}\n{comment}\n{}\n", rest.join("\n"))
}

#[test]
fn translations_have_the_form_of_their_sources() {
    let documents = documents();
    let mut wrong = Vec::new();
    for translation in documents.iter().filter(|document| document.is_chinese()) {
        let path = source(&translation.path);
        let Some(source) = documents.iter().find(|document| document.path == path) else {
            wrong.push(format!("{}: its source {} is gone: remove it", translation.name(), path.display()));
            continue;
        };
        wrong.extend(faults(translation, source).iter().map(|fault| format!("{}: {fault}", translation.name())));
        let comment = comment(&path);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(root_dir().join(&translation.path), with_comment(&translation.text, &comment)).unwrap();
        } else if translation.text.lines().nth(1) != Some(&comment) {
            let before = translation.text.lines().nth(1).unwrap_or_default().split(' ').nth(2).unwrap_or_default();
            wrong.push(format!(
                "{} is of another version of its source. See what changed (`git diff {before} -- {}`), translate it, then run this \
                 test with UPDATE_GOLDEN=1",
                translation.name(),
                path.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_translation_of_another_form_is_found() {
    let parse = crate::markdown::parse;
    let source = parse("# A\n```sh\nx\n```\n## B\n");
    for (text, expect) in [
        ("[English](a.md) · 简体中文\n# 甲\n```sh\nx\n```\n## 乙\n", ""),
        ("[English](a.md) · 简体中文\n# 甲\n```sh\nx\n```\n", "other headings"),
        ("[English](a.md) · 简体中文\n# 甲\n```sh\ny\n```\n## 乙\n", "code block 1 differs"),
        ("[English](a.md) · 简体中文\n# 甲\n```sh\nx\n```\n## 乙\n```sh\nx\n```\n", "more code blocks"),
        ("# 甲\n```sh\nx\n```\n## 乙\n", "links to the languages"),
    ] {
        let found = faults(&parse(text), &source).concat();
        assert_eq!(found.contains(expect), !expect.is_empty() || found.is_empty(), "{text}: {found}");
    }
}
