// SPDX-License-Identifier: Apache-2.0
//! The series that a PromQL expression selects. promtool checks the syntax; here a valid expression comes in.

use std::collections::BTreeSet;
use std::fs;

use dra_tests::prometheus::promtool;
use serde_json::json;

/// A selector: the name of a series and the labels of its matchers.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Selector {
    pub(crate) name: String,
    pub(crate) labels: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Sign(char),
    /// A number, a duration or a text.
    Other,
}

/// Words that are followed by labels in parentheses.
const CLAUSES: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// Words that are no series, also where no parenthesis follows, as in `sum by (node) (…)`.
const OPERATORS: [&str; 20] = [
    "and",
    "or",
    "unless",
    "bool",
    "offset",
    "atan2",
    "inf",
    "nan",
    "sum",
    "min",
    "max",
    "avg",
    "group",
    "stddev",
    "stdvar",
    "count",
    "count_values",
    "bottomk",
    "topk",
    "quantile",
];

/// Every selector of an expression.
pub(crate) fn selectors(expression: &str) -> BTreeSet<Selector> {
    let tokens = tokens(expression);
    let mut found = BTreeSet::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let is_followed_by = |sign: char| tokens.get(at + 1) == Some(&Token::Sign(sign));
        match token {
            Token::Sign('{') => panic!("a selector without a name: {expression}"),
            Token::Sign('[') => at = closing(&tokens, at, ']'),
            Token::Word(word) if CLAUSES.contains(&word.as_str()) && is_followed_by('(') => {
                at = closing(&tokens, at, ')');
            }
            Token::Word(word) if !OPERATORS.contains(&word.to_lowercase().as_str()) && !is_followed_by('(') => {
                let mut labels = BTreeSet::new();
                if is_followed_by('{') {
                    let end = closing(&tokens, at, '}');
                    labels = tokens[at + 1..end].iter().filter_map(Token::word).collect();
                    at = end;
                }
                found.insert(Selector { name: word.clone(), labels });
            }
            Token::Word(_) | Token::Sign(_) | Token::Other => {}
        }
        at += 1;
    }
    found
}

impl Token {
    fn word(&self) -> Option<String> {
        match self {
            Self::Word(word) => Some(word.clone()),
            Self::Sign(_) | Self::Other => None,
        }
    }
}

/// The first of these signs after a token.
fn closing(tokens: &[Token], from: usize, sign: char) -> usize {
    let found = tokens[from..].iter().position(|token| *token == Token::Sign(sign));
    from + found.unwrap_or_else(|| panic!("no {sign} in {tokens:?}"))
}

fn tokens(expression: &str) -> Vec<Token> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut tokens = Vec::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' | '\'' | '`' => {
                let mut is_escaped = false;
                let ends = |c: char| {
                    let ends = c == first && !is_escaped;
                    is_escaped = c == '\\' && !is_escaped && first != '`';
                    ends
                };
                rest[1..].find(ends).unwrap_or_else(|| panic!("a text without end: {expression}")) + 2
            }
            first if is_word(first) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            first => first.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        match first {
            '"' | '\'' | '`' | '0'..='9' => tokens.push(Token::Other),
            first if is_word(first) => tokens.push(Token::Word(token.to_owned())),
            first if first.is_whitespace() => {}
            first => tokens.push(Token::Sign(first)),
        }
        rest = after;
    }
    tokens
}

/// Fails unless promtool parses every expression. Each comes with the place where it stands.
pub(crate) fn check_syntax(expressions: &[(String, String)]) {
    let rules = expressions.iter().map(|(_, expression)| json!({"record": "checked", "expr": expression}));
    // One rule in each group: promtool names the first error of a group only.
    let groups = rules
        .zip(expressions)
        .enumerate()
        .map(|(at, (rule, (place, _)))| json!({"name": format!("{at}: {place}"), "rules": [rule]}));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rules.yaml");
    fs::write(&path, json!({"groups": groups.collect::<Vec<_>>()}).to_string()).unwrap();
    promtool(&["check", "rules", "--lint=none", path.to_str().unwrap()]).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn selectors_of_an_expression_are_found_and_nothing_else() {
    let found = |expression| {
        let found = selectors(expression).into_iter();
        found.map(|one| format!("{}{{{}}}", one.name, Vec::from_iter(one.labels).join(","))).collect::<Vec<_>>()
    };
    for (expression, expect) in [
        ("up", vec!["up{}"]),
        ("1.5e3 * sum by (node) (rate(a_total{b!=\"c} d{\", e=~'f'}[5m] offset 1h)) > 2", vec!["a_total{b,e}"]),
        ("max(a) by (x) / on (x, y) group_left (z) max without (w) (b:c:d{})", vec!["a{}", "b:c:d{}"]),
        ("label_replace(a, \"b\", \"$1\", \"c\", \"(.+)\") unless on () vector(0)", vec!["a{}"]),
        ("topk(3, a[$__rate_interval] \n) or b and -Inf", vec!["a{}", "b{}"]),
    ] {
        assert_eq!(found(expression), expect, "{expression}");
    }
}

#[test]
#[should_panic(expected = "could not parse expression")]
fn an_expression_with_an_error_is_refused() {
    check_syntax(&[("here".to_owned(), "up".to_owned()), ("there".to_owned(), "sum by (node) (up".to_owned())]);
}
