// SPDX-License-Identifier: Apache-2.0
//! The rules of this project that no lint checks, over every file of the repository.

use dra_tests::source::code::{comments, functions};
use dra_tests::source::errors::error_attributes;
use dra_tests::source::words::unwanted_words;
use dra_tests::source::{SourceFile, files, root_dir};

/// Lines before the tests of the file.
const MAX_FILE_LINES: usize = 400;
const MAX_FUNCTION_LINES: usize = 60;

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
fn every_source_file_has_a_header() {
    check(SourceFile::is_rust, |file| {
        let has_header = file.text.lines().nth(1).is_some_and(|line| line.starts_with("//! ") && line.len() > 12);
        if has_header { Vec::new() } else { vec!["has no `//!` header on its second line".to_owned()] }
    });
}

#[test]
fn files_and_functions_stay_short() {
    check(product, |file| {
        let code = file.product_code();
        let lines = file.text.lines().count() - file.text.lines().skip_while(|line| *line != "#[cfg(test)]").count();
        let mut faults = Vec::new();
        if lines > MAX_FILE_LINES {
            faults.push(format!("has {lines} lines before its tests, more than {MAX_FILE_LINES}"));
        }
        let long = functions(&code).into_iter().filter(|function| function.lines() > MAX_FUNCTION_LINES);
        faults.extend(long.map(|function| {
            format!("{} has {} lines, more than {MAX_FUNCTION_LINES}", function.name, function.lines())
        }));
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

/// Words with which a comment asks instead of answering.
const INTERROGATIVES: [&str; 9] = ["why", "which", "where", "how", "what", "when", "who", "whose", "whom"];

/// Words with which a comment names only what the name of the item names.
const ARTICLES: [&str; 4] = ["the", "its", "their", "this"];

/// Other comments without a fact.
const FILLERS: [&str; 5] = ["see the module", "see above", "as above", "for people", "it is so"];

/// Whether a whole comment only asks (`Why.`, `Of which GPU.`), only repeats a name (`Its path.`) or is a known filler.
fn is_filler(comment: &str) -> bool {
    let lower = comment.to_lowercase();
    let words: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let asks = words.len() <= 3 && words.iter().take(2).any(|word| INTERROGATIVES.contains(word));
    let repeats = words.len() == 2 && words.first().is_some_and(|word| ARTICLES.contains(word));
    let is_code = comment.contains('`');
    !is_code && (asks || repeats || FILLERS.contains(&words.join(" ").as_str()))
}

#[test]
fn a_comment_without_a_fact_is_recognized() {
    for filler in ["Why.", "Of which GPU.", "Who asks.", "Its path.", "Why, for people.", "See the module."] {
        assert!(is_filler(filler), "{filler}");
    }
    for comment in ["Whether retrying helps.", "Counted from 1.", "The `nvidia.com/gpu`.", "How long the file stays."] {
        assert!(!is_filler(comment), "{comment}");
    }
}

#[test]
fn comments_give_a_fact() {
    check(SourceFile::is_rust, |file| {
        let fillers = comments(&file.text).into_iter().filter(|comment| is_filler(&comment.text));
        fillers
            .map(|comment| {
                let at = comment.line;
                format!(
                    "line {at}: `{}` gives no unit, range, reason or source: write one, or delete the comment",
                    comment.text
                )
            })
            .collect()
    });
}

#[test]
fn one_word_stands_for_one_thing() {
    let ours = |file: &SourceFile| {
        let is_prose =
            ["rs", "md", "yaml", "tpl", "toml", "proto", "sh"].iter().any(|extension| file.has_extension(extension));
        // Golden files repeat what is written elsewhere.
        is_prose && !file.path.ends_with("source/words.rs") && !file.path.starts_with("tests/tests/golden")
    };
    check(ours, |file| {
        let found = unwanted_words(file).into_iter();
        found.map(|found| format!("line {}: `{}` is written as: {}", found.line, found.word, found.instead)).collect()
    });
}

/// What is wrong with the text of an error.
fn faults_of_error(text: &str) -> Vec<String> {
    let first = text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
    // Abbreviations and kinds of the API have a second capital; these kinds do not.
    let is_name = first.chars().skip(1).any(char::is_uppercase) || ["Node", "Pod", "Event"].contains(&first);
    let mut faults = Vec::new();
    if first.starts_with(char::is_uppercase) && !is_name {
        faults.push("begins with a capital".to_owned());
    }
    if ["it", "its"].contains(&first.to_lowercase().as_str()) {
        faults.push(format!("begins with `{first}`: name the object"));
    }
    if text.ends_with('.') {
        faults.push("ends with a full stop".to_owned());
    }
    for words in ["unable to", "could not"].iter().filter(|words| text.contains(**words)) {
        faults.push(format!("contains `{words}`: write `failed to …`"));
    }
    if text.contains("cannot be kept") {
        faults.push("contains `cannot be kept`: write `failed to save …`".to_owned());
    }
    if text.contains("(will retry)") {
        faults.push("contains `(will retry)`: the outermost message adds that the kubelet retries".to_owned());
    }
    faults
}

#[test]
fn an_error_that_does_not_name_what_failed_is_recognized() {
    for text in
        ["It failed", "its record failed", "Failed to read", "unable to read {path}", "failed (will retry)", "{0}."]
    {
        assert!(!faults_of_error(text).is_empty(), "{text}");
    }
    for text in
        ["failed to read {path}", "MPS daemon {id} exited", "ResourceSlice {0} is refused", "{device} is in use"]
    {
        assert!(faults_of_error(text).is_empty(), "{text}");
    }
}

#[test]
fn errors_name_what_failed() {
    check(SourceFile::is_rust, |file| {
        let texts = error_attributes(&file.text).into_iter();
        texts
            .flat_map(|(line, text)| {
                faults_of_error(&text).into_iter().map(move |fault| format!("line {line}: `{text}` {fault}"))
            })
            .collect()
    });
}

#[test]
fn the_documents_a_reader_expects_are_there() {
    for name in ["README.md", "ARCHITECTURE.md", "SPECIFICATION.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"] {
        assert!(root_dir().join(name).is_file(), "{name} is missing");
    }
}

#[test]
fn the_specification_names_tests_that_exist() {
    let specification = std::fs::read_to_string(root_dir().join("SPECIFICATION.md")).unwrap_or_default();
    let quoted = specification.split('`').skip(1).step_by(2);
    let missing: Vec<&str> = quoted.filter(|path| path.contains(".rs") && !root_dir().join(path).is_file()).collect();
    assert!(missing.is_empty(), "SPECIFICATION.md names files that are not there: {missing:?}");
}
