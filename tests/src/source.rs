// SPDX-License-Identifier: Apache-2.0
//! The files of this repository as the checks see them: text, and Rust code without its strings, comments and tests.
//!
//! The lexer knows just enough Rust to tell code from text. It never fails: what it does not understand counts as code.

use std::fs;
use std::path::{Path, PathBuf};

/// One file.
#[derive(Debug)]
pub struct SourceFile {
    /// Path below the repository's root.
    pub path: PathBuf,
    /// As it is on disk.
    pub text: String,
}

/// The root of the repository.
pub fn root_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate is a folder of the repository")
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
        } else if kind.is_file() {
            paths.push(entry.path());
        }
    }
}

impl SourceFile {
    /// Whether it is Rust.
    pub fn is_rust(&self) -> bool {
        self.has_extension("rs")
    }

    /// Whether its name ends so.
    pub fn has_extension(&self, wanted: &str) -> bool {
        self.path.extension().is_some_and(|extension| extension == wanted)
    }

    /// Whether all of it is for tests: the harness, and what cargo takes for tests and benchmarks.
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
        without_tests(&code_only(&self.text))
    }
}

/// A function.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// From `fn` to the closing brace.
    pub code: String,
}

impl Function {
    /// How long it is.
    pub fn lines(&self) -> usize {
        self.code.lines().count()
    }
}

/// The functions with a body in code from [`SourceFile::product_code`].
pub fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let begins_word =
            code[..at].chars().next_back().is_none_or(|before| !before.is_alphanumeric() && before != '_');
        let name: String = code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if !begins_word || name.is_empty() {
            continue;
        }
        let Some(open) = body_start(&code[at..]) else { continue };
        let length = block_length(&code[at + open..]);
        let code = code[at..at + open + length].to_owned();
        found.push(Function { name, code });
    }
    found
}

/// Where the `{` of a body is, unless a `;` comes first.
fn body_start(code: &str) -> Option<usize> {
    let mut depth = 0_i32;
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' if depth == 0 => return Some(at),
            ';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// The bytes of a block that begins with `{`.
fn block_length(code: &str) -> usize {
    let mut depth = 0_i32;
    for (at, c) in code.char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if depth == 0 {
            return at + c.len_utf8();
        }
    }
    code.len()
}

/// Blanks `#[cfg(test)] mod … { … }`.
fn without_tests(code: &str) -> String {
    let mut code = code.to_owned();
    while let Some(at) = code.find("#[cfg(test)]") {
        let Some(open) = body_start(&code[at + 12..]).map(|open| at + 12 + open) else {
            blank(&mut code, at, at + 12);
            continue;
        };
        let end = open + block_length(&code[open..]);
        blank(&mut code, at, end);
    }
    code
}

fn blank(text: &mut String, from: usize, to: usize) {
    let blanked: String = text[from..to].chars().filter(|c| *c == '\n').collect();
    text.replace_range(from..to, &blanked);
}

/// Replaces strings, characters and comments by spaces; line ends stay.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = text_length(rest, code.chars().next_back()).unwrap_or(0);
        let (skipped, tail) = rest.split_at(length.max(c.len_utf8()));
        if length == 0 {
            code.push_str(skipped);
        } else {
            code.extend(skipped.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        }
        rest = tail;
    }
    code
}

/// The bytes of the comment or literal `rest` begins with.
fn text_length(rest: &str, before: Option<char>) -> Option<usize> {
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(rest.find("*/").map_or(rest.len(), |end| end + 2));
    }
    if rest.starts_with('"') {
        return Some(string_length(rest));
    }
    if rest.starts_with('\'') {
        return character_length(rest);
    }
    let raw = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r')).filter(|_| !in_word)?;
    let hashes = raw.len() - raw.trim_start_matches('#').len();
    if raw[hashes..].starts_with('"') {
        let end = format!("\"{}", "#".repeat(hashes));
        let opening = rest.len() - raw.len() + hashes + 1;
        return Some(rest[opening..].find(&end).map_or(rest.len(), |at| opening + at + end.len()));
    }
    None
}

fn string_length(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The bytes of a character literal; a lifetime is none.
fn character_length(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix('\'')?;
    if body.starts_with('\\') {
        return body[2..].find('\'').map(|end| end + 4);
    }
    let c = body.chars().next()?;
    body[c.len_utf8()..].starts_with('\'').then(|| c.len_utf8() + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_comments_characters_and_tests_are_no_code() {
        let given = "let a = \"}\\\"{\"; // {\nlet b = r#\"\"}\"#; let c = '{'; fn f<'a>(x: &'a str) {}\n#[cfg(test)]\nmod tests {\n{}\n}\nend";
        let file = SourceFile { path: "x.rs".into(), text: given.to_owned() };
        let code = file.product_code();
        assert_eq!(code.lines().count(), given.lines().count());
        assert_eq!(code.matches('{').count(), 1, "{code}");
        assert!(code.contains("fn f<'a>(x: &'a str) {}") && code.ends_with("end"));
    }

    #[test]
    fn functions_are_measured_from_fn_to_brace() {
        let code = "trait T {\n    fn declared(&self);\n}\nfn one() {}\nfn three(\n) {\n}\n";
        let found: Vec<(String, usize)> = functions(code).into_iter().map(|f| (f.name.clone(), f.lines())).collect();
        assert_eq!(found, [("one".to_owned(), 1), ("three".to_owned(), 3)]);
    }
}
