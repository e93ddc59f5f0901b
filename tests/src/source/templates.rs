// SPDX-License-Identifier: Apache-2.0
//! The texts in code, as templates: string literals, with the arguments of `format!` in place of its `{}`.
#![expect(clippy::wildcard_enum_match_arm, reason = "syn may get more variants")]

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Arm, Block, ExprMatch, Pat};

/// Macros that format, with the number of arguments before the template.
const FORMATS: [(&str, usize); 4] = [("format", 0), ("format_args", 0), ("write", 1), ("writeln", 1)];

/// The texts of a function: those of one arm of its `match self`, or all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Texts {
    /// The variants that the arm matches; empty where the texts are those of the whole function.
    pub variants: Vec<String>,
    pub texts: Vec<String>,
    /// Names of the functions and methods that the code calls.
    pub calls: BTreeSet<String>,
}

/// The tokens of a part of a file that was parsed.
pub fn tokens(node: &impl Spanned) -> TokenStream {
    node.span().source_text().unwrap_or_default().parse().unwrap_or_default()
}

/// The texts of a function, arm by arm where it matches `self`.
pub fn of_function(body: &Block) -> Vec<Texts> {
    let mut search = MatchOfSelf(None);
    search.visit_block(body);
    let whole = |variants: Vec<String>, tokens: TokenStream| Texts {
        variants,
        texts: texts(tokens.clone()),
        calls: calls(tokens),
    };
    match search.0 {
        Some(found) => found.arms.iter().map(|arm| whole(variants(&arm.pat), of_arm(arm))).collect(),
        None => vec![whole(Vec::new(), tokens(body))],
    }
}

fn of_arm(arm: &Arm) -> TokenStream {
    tokens(&arm.body)
}

struct MatchOfSelf<'a>(Option<&'a ExprMatch>);

impl<'a> Visit<'a> for MatchOfSelf<'a> {
    fn visit_expr_match(&mut self, found: &'a ExprMatch) {
        let is_variants = found.arms.iter().any(|arm| !variants(&arm.pat).is_empty());
        if self.0.is_none() && is_variants && words(tokens(&found.expr)).contains("self") {
            self.0 = Some(found);
        }
        visit::visit_expr_match(self, found);
    }
}

/// The names of the variants in a pattern; `_` for one that matches all others.
pub fn variants(pattern: &Pat) -> Vec<String> {
    let last = |path: &syn::Path| path.segments.last().map(|segment| segment.ident.to_string());
    match pattern {
        Pat::Or(or) => or.cases.iter().flat_map(variants).collect(),
        Pat::Struct(pattern) => last(&pattern.path).into_iter().collect(),
        Pat::TupleStruct(pattern) => last(&pattern.path).into_iter().collect(),
        Pat::Path(pattern) => last(&pattern.path).into_iter().collect(),
        Pat::Ident(pattern) => match &pattern.subpat {
            Some((_, pattern)) => variants(pattern),
            // A name in upper case is a variant, not a variable.
            None if pattern.ident.to_string().starts_with(char::is_uppercase) => vec![pattern.ident.to_string()],
            None => Vec::new(),
        },
        Pat::Reference(pattern) => variants(&pattern.pat),
        Pat::Paren(pattern) => variants(&pattern.pat),
        Pat::Wild(_) => vec!["_".to_owned()],
        _ => Vec::new(),
    }
}

fn words(tokens: TokenStream) -> BTreeSet<String> {
    let of = |token: TokenTree| match token {
        TokenTree::Group(group) => words(group.stream()),
        TokenTree::Ident(ident) => BTreeSet::from([ident.to_string()]),
        TokenTree::Literal(_) | TokenTree::Punct(_) => BTreeSet::new(),
    };
    tokens.into_iter().flat_map(of).collect()
}

/// The names before parentheses.
pub fn calls(tokens: TokenStream) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut last = None;
    for token in tokens {
        if let TokenTree::Group(group) = &token {
            found.extend(last.take());
            found.extend(calls(group.stream()));
        }
        last = match token {
            TokenTree::Ident(ident) => Some(ident.to_string()),
            TokenTree::Group(_) | TokenTree::Literal(_) | TokenTree::Punct(_) => None,
        };
    }
    found
}

/// The texts in code that contain a letter, in their order.
pub fn texts(tokens: TokenStream) -> Vec<String> {
    let mut found = Vec::new();
    collect(tokens, &mut found);
    let mut seen = BTreeSet::new();
    found.retain(|text| text.contains(char::is_alphabetic) && seen.insert(text.clone()));
    found
}

fn collect(tokens: TokenStream, found: &mut Vec<String>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Literal(_) => found.extend(literal(token)),
            TokenTree::Group(group) => {
                let skipped = format_macro(&tokens[..at]);
                match skipped.and_then(|skipped| Some((skipped, formatted(group.stream(), skipped)?))) {
                    Some((skipped, text)) => {
                        found.push(text);
                        arguments(group.stream()).into_iter().skip(skipped + 1).for_each(|rest| collect(rest, found));
                    }
                    None => collect(group.stream(), found),
                }
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) => {}
        }
    }
}

/// How many arguments the macro whose parentheses follow has before its template.
fn format_macro(before: &[TokenTree]) -> Option<usize> {
    let [.., TokenTree::Ident(name), TokenTree::Punct(mark)] = before else { return None };
    let known = FORMATS.iter().find(|(known, _)| name == known && mark.as_char() == '!');
    known.map(|(_, skipped)| *skipped)
}

fn literal(token: &TokenTree) -> Option<String> {
    let text = token.to_string();
    text.starts_with(['"', 'r']).then(|| syn::parse_str::<syn::LitStr>(&text).ok()).flatten().map(|text| text.value())
}

/// The arguments of a macro or an attribute.
fn arguments(tokens: TokenStream) -> Vec<TokenStream> {
    let mut all = vec![Vec::new()];
    for token in tokens {
        if matches!(&token, TokenTree::Punct(punct) if punct.as_char() == ',') {
            all.push(Vec::new());
        } else if let Some(last) = all.last_mut() {
            last.push(token);
        }
    }
    all.into_iter().map(|tokens| tokens.into_iter().collect()).collect()
}

/// The template among the arguments of a macro or an attribute, with the other arguments in their places.
pub fn formatted(tokens: TokenStream, skipped: usize) -> Option<String> {
    let mut arguments = arguments(tokens).into_iter().skip(skipped);
    let mut first = arguments.next()?.into_iter();
    let template = literal(&first.next()?).filter(|_| first.next().is_none())?;
    let (named, positional): (Vec<String>, Vec<String>) =
        arguments.map(compact).filter(|text| !text.is_empty()).partition(|text| is_named(text));
    let named: Vec<(&str, &str)> = named.iter().filter_map(|text| text.split_once('=')).collect();
    let mut positional = positional.into_iter();
    let mut text = String::new();
    let mut rest = template.as_str();
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        if let Some(after) = after.strip_prefix('{') {
            text.push_str("{{");
            rest = after;
            continue;
        }
        let (inside, after) = after.split_once('}').unwrap_or((after, ""));
        let (name, _) = inside.split_once(':').unwrap_or((inside, ""));
        let value = match named.iter().find(|(known, _)| *known == name) {
            Some((_, value)) => (*value).to_owned(),
            None if name.is_empty() => positional.next().unwrap_or_default(),
            None => name.to_owned(),
        };
        let value = value.strip_prefix("self.").or_else(|| value.strip_prefix('.')).unwrap_or(&value);
        text.extend(["{", value.strip_suffix(".display()").unwrap_or(value), "}"]);
        rest = after;
    }
    text.push_str(rest);
    Some(text)
}

fn is_named(argument: &str) -> bool {
    let name = argument.split('=').next().unwrap_or_default();
    argument.contains('=') && name.chars().all(|c| c.is_alphanumeric() || c == '_')
}

/// Code on one line, without spaces that tell nothing.
pub fn compact(tokens: TokenStream) -> String {
    let mut text = String::new();
    for token in tokens {
        let next = match &token {
            TokenTree::Group(group) => {
                let inner = compact(group.stream());
                match group.delimiter() {
                    proc_macro2::Delimiter::Parenthesis => format!("({inner})"),
                    proc_macro2::Delimiter::Brace => format!("{{{inner}}}"),
                    proc_macro2::Delimiter::Bracket => format!("[{inner}]"),
                    proc_macro2::Delimiter::None => inner,
                }
            }
            TokenTree::Ident(_) | TokenTree::Literal(_) | TokenTree::Punct(_) => token.to_string(),
        };
        let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        if text.ends_with(',') || (is_word(text.chars().next_back()) && is_word(next.chars().next())) {
            text.push(' ');
        }
        text.push_str(&next);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_stand_in_their_places() {
        let code = r#"write!(f, "claim {}: {} at {path:?} {n}", self.claim, a.b(&c, "x"), n = d.e)"#;
        let expect = ["claim {claim}: {a.b(&c, \"x\")} at {path} {d.e}", "x"];
        assert_eq!(texts(code.parse().unwrap()), expect);
    }

    #[test]
    fn a_match_of_self_has_texts_for_its_variants() {
        let file: syn::ItemFn = syn::parse_str(
            r#"fn f(&self) -> T { let n = 1; match &self.x { A { .. } | X::B(_) => Some("p".into()), C => g(1), _ => h() } }"#,
        )
        .unwrap();
        let found: Vec<(String, Vec<String>)> =
            of_function(&file.block).into_iter().map(|texts| (texts.variants.join("|"), texts.texts)).collect();
        let text =
            |variants: &str, texts: &[&str]| (variants.to_owned(), texts.iter().map(|t| (*t).to_owned()).collect());
        assert_eq!(found, [text("A|B", &["p"]), text("C", &[]), text("_", &[])]);
    }
}
