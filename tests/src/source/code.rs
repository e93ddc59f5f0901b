// SPDX-License-Identifier: Apache-2.0
//! Rust code without its strings, comments and tests.
//!
//! The lexer knows just enough Rust to separate code from text. It never fails: what it does not understand counts as code.

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    /// From `fn` to the closing brace.
    pub code: String,
}

impl Function {
    pub fn lines(&self) -> usize {
        self.code.lines().count()
    }
}

/// The functions with a body in code from [`SourceFile::product_code`](super::SourceFile::product_code).
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
pub(super) fn without_tests(code: &str) -> String {
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
pub(super) fn code_only(text: &str) -> String {
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

/// A comment: the lines in a row that begin with the same marker, without the markers.
#[derive(Debug, PartialEq, Eq)]
pub struct Comment {
    /// Of its first line, counted from 1.
    pub line: usize,
    pub text: String,
}

/// The line comments of a Rust file.
pub fn comments(text: &str) -> Vec<Comment> {
    let code = code_only(text);
    let mut found: Vec<Comment> = Vec::new();
    let mut previous = None;
    for (at, (line, code)) in text.lines().zip(code.lines()).enumerate() {
        // Blanks stand for characters, so that both have the same number of them.
        let rest: String = line.chars().skip(code.trim_end().chars().count()).collect();
        let Some(comment) = Some(rest.trim_start()).filter(|rest| rest.starts_with("//")) else {
            previous = None;
            continue;
        };
        let marker = ["///", "//!", "//"].into_iter().find(|marker| comment.starts_with(marker)).unwrap_or_default();
        let body = comment.strip_prefix(marker).unwrap_or(comment).trim();
        let is_whole_line = code.trim().is_empty();
        match found.last_mut() {
            Some(last) if is_whole_line && previous == Some(marker) => {
                last.text.push(' ');
                last.text.push_str(body);
            }
            _ => found.push(Comment { line: at + 1, text: body.to_owned() }),
        }
        previous = is_whole_line.then_some(marker);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_comments_characters_and_tests_are_no_code() {
        let given = "let a = \"}\\\"{\"; // {\nlet b = r#\"\"}\"#; let c = '{'; fn f<'a>(x: &'a str) {}\n#[cfg(test)]\nmod tests {\n{}\n}\nend";
        let code = without_tests(&code_only(given));
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

    #[test]
    fn a_comment_is_all_lines_with_its_marker() {
        let given = "//! Head\n//! line.\n\n/// Why.\n// Other.\nlet a = \"// no\"; // Trailing.\n// Next.\nlet b = '\"'; let c = \"x\";\n";
        let comment = |line, text: &str| Comment { line, text: text.to_owned() };
        let expect = [
            comment(1, "Head line."),
            comment(4, "Why."),
            comment(5, "Other."),
            comment(6, "Trailing."),
            comment(7, "Next."),
        ];
        assert_eq!(comments(given), expect);
    }
}
