// SPDX-License-Identifier: Apache-2.0
//! The names that the code of one module uses: its imports, its paths and the modules it declares.
//!
//! It works on tokens, so that paths in the arguments of macros and in attributes count too. Code under `#[cfg(test)]`
//! and comments do not count. A function body belongs to its module, with the imports in it.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use syn::{ItemUse, UseTree};

/// A path as it is written, such as `crate::error::chain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedPath {
    pub segments: Vec<String>,
    /// Counted from 1.
    pub line: usize,
}

/// One name of a `use` item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    pub path: UsedPath,
    /// The name in this module; `None` for a glob.
    pub name: Option<String>,
    /// Whether other modules can use the name, as after `pub(crate) use`.
    pub is_export: bool,
}

/// A `mod` item.
#[derive(Debug, Clone)]
pub struct Declared {
    pub name: String,
    /// The value of `#[path = "…"]`.
    pub path: Option<String>,
    /// `None` where the module is a file.
    pub body: Option<TokenStream>,
}

/// What the code of a module contains.
#[derive(Debug, Clone, Default)]
pub struct Names {
    pub declared: Vec<Declared>,
    /// Functions, types, constants and macros.
    pub items: BTreeSet<String>,
    pub imports: Vec<Import>,
    /// Paths of two segments or more.
    pub paths: Vec<UsedPath>,
    /// Names without a path.
    pub words: Vec<UsedPath>,
    /// Macros called without a path.
    pub macro_calls: Vec<UsedPath>,
    pub macros: BTreeSet<String>,
}

/// The names in the tokens of a module.
pub fn names(tokens: TokenStream) -> Names {
    let mut names = Names::default();
    names.walk(tokens, Place::Module);
    names
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Module,
    Attribute,
    Code,
}

const ITEM_KEYWORDS: [&str; 8] = ["fn", "struct", "enum", "union", "trait", "type", "const", "static"];

impl Names {
    fn walk(&mut self, tokens: TokenStream, place: Place) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut path_attribute = None;
        let mut at = 0;
        while at < tokens.len() {
            at = match &tokens[at] {
                TokenTree::Punct(punct) if punct.as_char() == '#' && place != Place::Attribute => {
                    let is_inner = is_punct(tokens.get(at + 1), '!');
                    let after = at + 1 + usize::from(is_inner);
                    match tokens.get(after) {
                        Some(TokenTree::Group(group)) if is_test_only(group) && is_inner => return,
                        Some(TokenTree::Group(group)) if is_test_only(group) => after_item(&tokens, after + 1),
                        Some(TokenTree::Group(group)) => {
                            path_attribute = path_value(group).or(path_attribute);
                            self.attribute(group);
                            after + 1
                        }
                        _ => after,
                    }
                }
                TokenTree::Ident(ident) if *ident == "use" && !is_punct(tokens.get(at + 1), '<') => {
                    self.import(&tokens, at)
                }
                TokenTree::Ident(ident) if place == Place::Module && *ident == "mod" => {
                    self.declare(&tokens, at, path_attribute.take())
                }
                TokenTree::Ident(_) => {
                    if place == Place::Module {
                        self.item(&tokens, at);
                    }
                    self.path(&tokens, at)
                }
                TokenTree::Group(group) => {
                    let inner = if place == Place::Attribute { Place::Attribute } else { Place::Code };
                    self.walk(group.stream(), inner);
                    at + 1
                }
                TokenTree::Literal(literal) => {
                    if place == Place::Attribute {
                        self.quoted_path(&literal.to_string(), literal.span().start().line);
                    }
                    at + 1
                }
                TokenTree::Punct(_) => at + 1,
            };
        }
    }

    /// Documentation is no code.
    fn attribute(&mut self, group: &Group) {
        let is_doc = matches!(group.stream().into_iter().next(), Some(TokenTree::Ident(name)) if name == "doc");
        if !is_doc {
            self.walk(group.stream(), Place::Attribute);
        }
    }

    /// A path in a string, as in `#[serde(with = "crate::words")]`.
    fn quoted_path(&mut self, literal: &str, line: usize) {
        let text = literal.trim_matches('"');
        let is_path = text.contains("::") && text.chars().all(|c| c.is_alphanumeric() || c == '_' || c == ':');
        if is_path {
            self.paths.push(UsedPath { segments: text.split("::").map(str::to_owned).collect(), line });
        }
    }

    /// Records the `use` item that begins at `at`; returns the place behind it.
    fn import(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        let length = tokens[at..].iter().position(|token| is_punct(Some(token), ';'));
        let Some(end) = length.map(|length| at + length + 1) else { return at + 1 };
        let item: TokenStream = tokens[at..end].iter().cloned().collect();
        let Ok(item) = syn::parse2::<ItemUse>(item) else { return at + 1 };
        let line = tokens[at].span().start().line;
        // A path that begins with `::` names another crate.
        if item.leading_colon.is_none() {
            self.import_tree(&item.tree, &UsedPath { segments: Vec::new(), line }, is_export(&tokens[..at]));
        }
        end
    }

    fn import_tree(&mut self, tree: &UseTree, before: &UsedPath, is_export: bool) {
        let to = |ident: &proc_macro2::Ident| {
            let mut path = UsedPath { segments: before.segments.clone(), line: ident.span().start().line };
            if ident != "self" || before.segments.is_empty() {
                path.segments.push(plain(ident));
            }
            path
        };
        match tree {
            UseTree::Path(tree) => self.import_tree(&tree.tree, &to(&tree.ident), is_export),
            UseTree::Name(tree) => {
                let path = to(&tree.ident);
                let name = path.segments.last().cloned();
                self.imports.push(Import { path, name, is_export });
            }
            UseTree::Rename(tree) => {
                self.imports.push(Import { path: to(&tree.ident), name: Some(plain(&tree.rename)), is_export });
            }
            UseTree::Glob(_) => self.imports.push(Import { path: before.clone(), name: None, is_export }),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.import_tree(tree, before, is_export);
                }
            }
        }
    }

    /// Records the `mod` item that begins at `at`; returns the place behind it.
    fn declare(&mut self, tokens: &[TokenTree], at: usize, path: Option<String>) -> usize {
        let Some(TokenTree::Ident(name)) = tokens.get(at + 1) else { return at + 1 };
        let body = match tokens.get(at + 2) {
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => Some(group.stream()),
            _ => None,
        };
        self.declared.push(Declared { name: plain(name), path, body });
        at + 3
    }

    /// Records the name of the item whose keyword is at `at`.
    fn item(&mut self, tokens: &[TokenTree], at: usize) {
        let (Some(TokenTree::Ident(keyword)), Some(next)) = (tokens.get(at), tokens.get(at + 1)) else { return };
        match next {
            TokenTree::Ident(name) if ITEM_KEYWORDS.iter().any(|known| keyword == known) => {
                self.items.insert(plain(name));
            }
            TokenTree::Punct(_) => {
                if let (true, Some(TokenTree::Ident(name))) = (keyword == "macro_rules", tokens.get(at + 2)) {
                    self.items.insert(plain(name));
                    self.macros.insert(plain(name));
                }
            }
            TokenTree::Group(_) | TokenTree::Ident(_) | TokenTree::Literal(_) => {}
        }
    }

    /// Records the path or name that begins at `at`; returns the place behind it.
    fn path(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        let mut segments = Vec::new();
        let mut end = at;
        while let Some(TokenTree::Ident(ident)) = tokens.get(end) {
            segments.push(plain(ident));
            end += 1;
            if !(is_double_colon(tokens, end) && matches!(tokens.get(end + 2), Some(TokenTree::Ident(_)))) {
                break;
            }
            end += 2;
        }
        let path = UsedPath { segments, line: tokens[at].span().start().line };
        if continues(&tokens[..at]) {
            return end;
        }
        let is_macro = is_punct(tokens.get(end), '!') && !is_punct(tokens.get(end + 1), '=');
        match path.segments.len() {
            1 if is_macro => self.macro_calls.push(path),
            1 => self.words.push(path),
            _ => self.paths.push(path),
        }
        end
    }
}

/// Whether the next token is a method, a field, a lifetime or the rest of a path.
fn continues(before: &[TokenTree]) -> bool {
    let last = before.last();
    let second = before.len().checked_sub(2).and_then(|at| before.get(at));
    is_punct(last, '\'')
        || (is_punct(last, '.') && !is_punct(second, '.'))
        || (is_punct(last, ':') && is_punct(second, ':') && is_joint(second))
}

fn is_double_colon(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens.get(at), ':') && is_joint(tokens.get(at)) && is_punct(tokens.get(at + 1), ':')
}

fn is_joint(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.spacing() == proc_macro2::Spacing::Joint)
}

fn is_punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

fn plain(ident: &proc_macro2::Ident) -> String {
    let name = ident.to_string();
    name.strip_prefix("r#").map(str::to_owned).unwrap_or(name)
}

/// Whether the attribute is `cfg(test)`.
fn is_test_only(attribute: &Group) -> bool {
    attribute.stream().to_string().replace(' ', "") == "cfg(test)"
}

fn path_value(attribute: &Group) -> Option<String> {
    let text = attribute.stream().to_string();
    let value = text.strip_prefix("path")?.trim_start().strip_prefix('=')?;
    Some(value.trim().trim_matches('"').to_owned())
}

/// The place behind the item that begins at `at`, which ends with `;` or with its braces.
fn after_item(tokens: &[TokenTree], at: usize) -> usize {
    let ends = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(punct) => punct.as_char() == ';',
        TokenTree::Ident(_) | TokenTree::Literal(_) => false,
    };
    tokens[at..].iter().position(ends).map_or(tokens.len(), |length| at + length + 1)
}

/// Whether a `pub`, but not `pub(self)`, stands last.
fn is_export(before: &[TokenTree]) -> bool {
    let is_pub = |token: &TokenTree| matches!(token, TokenTree::Ident(ident) if ident == "pub");
    match before {
        [.., last] if is_pub(last) => true,
        [.., first, TokenTree::Group(group)] if is_pub(first) => group.stream().to_string() != "self",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: &str) -> Names {
        names(code.parse().unwrap())
    }

    fn paths(found: &[UsedPath]) -> Vec<(String, usize)> {
        found.iter().map(|path| (path.segments.join("::"), path.line)).collect()
    }

    #[test]
    fn paths_are_found_in_code_macros_and_attributes() {
        let found = of(
            "#[serde(with = \"crate::a\")]\nfn f(x: super::B) {\n  warn!(e = %chain::of(&x.y::<c::D>()), \"g::h\");\n\
                        for _ in 0..i::J {}\n}\n/// k::l\n#[cfg(test)]\nmod tests { fn f() { m::n() } }",
        );
        let expect = [("crate::a", 1), ("super::B", 2), ("chain::of", 3), ("c::D", 3), ("i::J", 4)];
        assert_eq!(paths(&found.paths), expect.map(|(path, line)| (path.to_owned(), line)));
        assert!(found.declared.is_empty() && found.items.contains("f"), "{found:?}");
        assert_eq!(paths(&found.macro_calls), [("warn".to_owned(), 3)]);
    }

    #[test]
    fn imports_have_a_path_and_a_name() {
        let found =
            of("pub(crate) use a::{self, b::C as D, e::*};\nfn f() {\n  use crate::g;\n}\n#[cfg(test)]\nuse h::i;");
        let import = |path: &str, name: Option<&str>, is_export, line| {
            let segments = path.split("::").map(str::to_owned).collect();
            Import { path: UsedPath { segments, line }, name: name.map(str::to_owned), is_export }
        };
        let expect = [
            import("a", Some("a"), true, 1),
            import("a::b::C", Some("D"), true, 1),
            import("a::e", None, true, 1),
            import("crate::g", Some("g"), false, 3),
        ];
        assert_eq!(found.imports, expect);
    }
}
