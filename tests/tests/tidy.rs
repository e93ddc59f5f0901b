// SPDX-License-Identifier: Apache-2.0
//! The house rules that no lint knows, checked over every file of the repository.

use dra_tests::source::{SourceFile, files, functions, root_dir};

/// Non-test lines of a file.
const LONGEST_FILE: usize = 400;
/// Lines of a function.
const LONGEST_FUNCTION: usize = 60;

/// Applies a check to files and fails with everything it found.
fn check(concerns: impl Fn(&SourceFile) -> bool, faults: impl Fn(&SourceFile) -> Vec<String>) {
    let files = files();
    let concerned: Vec<&SourceFile> = files.iter().filter(|file| concerns(file)).collect();
    assert!(!concerned.is_empty(), "the check looks at no file at all");
    let line = |file: &SourceFile, fault: String| format!("{}: {fault}\n", file.path.display());
    let found: String =
        concerned.iter().flat_map(|file| faults(file).into_iter().map(|fault| line(file, fault))).collect();
    assert!(found.is_empty(), "\n{found}");
}

fn product(file: &SourceFile) -> bool {
    file.is_rust() && !file.is_test()
}

/// The lines of `text` that contain one of the words.
fn lines_with(text: &str, words: &[&str]) -> Vec<String> {
    let hit = |line: &str| words.iter().find(|word| line.contains(**word)).map(|word| (*word).to_owned());
    text.lines().enumerate().filter_map(|(at, line)| hit(line).map(|word| format!("line {}: {word}", at + 1))).collect()
}

#[test]
fn every_source_file_names_its_licence() {
    let concerns = |file: &SourceFile| file.is_rust() || file.has_extension("sh") || file.path.ends_with("Makefile");
    check(concerns, |file| {
        let named = file.text.lines().take(2).any(|line| line.ends_with("SPDX-License-Identifier: Apache-2.0"));
        if named { Vec::new() } else { vec!["has no licence line".to_owned()] }
    });
}

#[test]
fn every_source_file_says_what_it_is_for() {
    check(SourceFile::is_rust, |file| {
        let said = file.text.lines().nth(1).is_some_and(|line| line.starts_with("//! ") && line.len() > 12);
        if said { Vec::new() } else { vec!["has no `//!` header on its second line".to_owned()] }
    });
}

#[test]
fn files_and_functions_stay_short() {
    check(product, |file| {
        let code = file.product_code();
        let lines = file.text.lines().count() - file.text.lines().skip_while(|line| *line != "#[cfg(test)]").count();
        let mut faults = Vec::new();
        if lines > LONGEST_FILE {
            faults.push(format!("has {lines} lines before its tests, more than {LONGEST_FILE}"));
        }
        let long = functions(&code).into_iter().filter(|function| function.lines() > LONGEST_FUNCTION);
        faults.extend(
            long.map(|function| {
                format!("{} has {} lines, more than {LONGEST_FUNCTION}", function.name, function.lines())
            }),
        );
        faults
    });
}

#[test]
fn errors_are_never_converted_without_context() {
    check(SourceFile::is_rust, |file| lines_with(&file.product_code(), &["#[from]"]));
}

#[test]
fn the_product_does_not_panic() {
    let words = [".unwrap()", ".expect(", "panic!(", "unreachable!(", "unimplemented!(", "todo!("];
    check(product, |file| lines_with(&file.product_code(), &words));
}

#[test]
fn no_test_is_skipped_or_sleeps() {
    check(SourceFile::is_rust, |file| lines_with(&file.text, &[concat!("#[ign", "ore")]));
    // Looking again after a while is what waiting for a condition is made of; the harness has servers that are slow.
    let tests = |file: &SourceFile| file.is_rust() && file.is_test() && !file.path.starts_with("tests/src");
    check(tests, |file| {
        let found = functions(&file.product_code()).into_iter();
        let sleeping = found.filter(|function| function.code.contains(concat!("sl", "eep(")));
        let waiting = |name: &str| name.starts_with("until") || name.starts_with("wait");
        sleeping
            .filter(|function| !waiting(&function.name))
            .map(|function| format!("{} sleeps", function.name))
            .collect()
    });
}

#[test]
fn nothing_is_left_to_do() {
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:"), concat!("HA", "CK:")];
    let ours = |file: &SourceFile| !file.path.ends_with("Cargo.lock") && !file.has_extension("sum");
    check(ours, |file| lines_with(&file.text, &words));
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    let words = [concat!("/wo", "rk/"), concat!("/tmp/br", "ief"), concat!("/home/", "runner"), concat!("/Us", "ers/")];
    check(|_| true, |file| lines_with(&file.text, &words));
}

#[test]
fn file_names_are_nouns_of_the_domain() {
    check(SourceFile::is_rust, |file| {
        let name = file.path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let vague = ["mod", "util", "utils", "common", "helper", "helpers", "manager", "handler", "misc"];
        if vague.contains(&name.as_str()) { vec![format!("`{name}` says nothing")] } else { Vec::new() }
    });
}

#[test]
fn the_documents_a_reader_expects_are_there() {
    for name in ["README.md", "ARCHITECTURE.md", "SPECIFICATION.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"] {
        assert!(root_dir().join(name).is_file(), "{name} is missing");
    }
}

#[test]
fn links_in_documents_lead_somewhere() {
    check(
        |file| file.has_extension("md"),
        |file| {
            let dir = root_dir().join(&file.path);
            let targets = file.text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            let local = targets.filter(|target| {
                !target.contains("://") && !target.starts_with(['#', '<']) && !target.starts_with("mailto:")
            });
            let paths = local.filter_map(|target| target.split('#').next());
            let missing = paths.filter(|path| !dir.with_file_name(path).exists());
            missing.map(|path| format!("links to {path}, which is not there")).collect()
        },
    );
}

#[test]
fn promises_name_tests_that_exist() {
    let specification = std::fs::read_to_string(root_dir().join("SPECIFICATION.md")).unwrap_or_default();
    let quoted = specification.split('`').skip(1).step_by(2);
    let missing: Vec<&str> = quoted.filter(|path| path.contains(".rs") && !root_dir().join(path).is_file()).collect();
    assert!(missing.is_empty(), "SPECIFICATION.md names files that are not there: {missing:?}");
}
