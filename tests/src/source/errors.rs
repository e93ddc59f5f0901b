// SPDX-License-Identifier: Apache-2.0
//! The texts of the error types of the product and of the values in them, read from their source.
//!
//! A type that derives `thiserror::Error` has a line for each variant, with its cause and its advice
//! (`impl Advice for …`). A type with a `Display` of its own has the texts in it.
#![expect(clippy::wildcard_enum_match_arm, reason = "syn may get more variants")]

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};
use syn::{Attribute, Fields, ImplItem, Item, ItemImpl, Type};

use super::product::ProductFile;
use super::templates::{self, Texts, compact, formatted, of_function, tokens};

/// The texts of a type.
#[derive(Debug, Default)]
pub struct Section {
    /// The path of the type: crate, module and name.
    pub name: String,
    /// One line for each text, indented.
    pub lines: Vec<String>,
}

/// The sections of all error types of the product, by their names.
pub fn sections(files: &[ProductFile]) -> Vec<Section> {
    let mut advice: BTreeMap<(String, String), Vec<Texts>> = BTreeMap::new();
    for file in files {
        for (name, texts) in impls_of(file, "Advice") {
            advice.insert((file.crate_name.clone(), name), texts);
        }
    }
    let mut sections = Vec::new();
    for file in files {
        let functions = Functions::of(file);
        let advice_of =
            |name: &str| advice.get(&(file.crate_name.clone(), name.to_owned())).map_or(&[][..], Vec::as_slice);
        let derived = file.items().into_iter().filter_map(|item| derived(item, &functions, advice_of));
        let written = written(file, advice_of);
        let section =
            |(name, lines): (String, Vec<String>)| Section { name: format!("{}::{name}", file.module()), lines };
        sections.extend(derived.chain(written).map(section));
    }
    sections.sort_by(|one, other| one.name.cmp(&other.name));
    sections
}

/// A type that derives its texts.
fn derived<'a>(
    item: &Item,
    functions: &Functions,
    advice_of: impl Fn(&str) -> &'a [Texts],
) -> Option<(String, Vec<String>)> {
    let (ident, attributes) = match item {
        Item::Enum(item) => (&item.ident, &item.attrs),
        Item::Struct(item) => (&item.ident, &item.attrs),
        _ => return None,
    };
    if !attributes.iter().any(is_error_derive) {
        return None;
    }
    let name = ident.to_string();
    let mut lines = Vec::new();
    let mut calls = BTreeSet::new();
    let mut add = |variant: &str, attributes: &[Attribute], fields: &Fields| {
        let Some(arguments) = attributes.iter().find_map(error_arguments) else { return };
        calls.extend(templates::calls(arguments.clone()));
        lines.push(line(variant, arguments, fields));
        let arms = advice_of(&name).iter().filter(|texts| applies(texts, variant));
        lines.extend(arms.flat_map(advice_lines));
    };
    match item {
        Item::Enum(item) => item.variants.iter().for_each(|variant| {
            add(&variant.ident.to_string(), &variant.attrs, &variant.fields);
        }),
        Item::Struct(item) => add("", &item.attrs, &item.fields),
        _ => {}
    }
    lines.extend(functions.lines(&calls));
    Some((name, lines))
}

fn applies(advice: &Texts, variant: &str) -> bool {
    advice.variants.is_empty() || advice.variants.iter().any(|name| name == variant || name == "_")
}

fn advice_lines(advice: &Texts) -> Vec<String> {
    let mut lines: Vec<String> = advice.texts.iter().map(|text| format!("    advice: {text}")).collect();
    if advice.calls.contains("advice") {
        lines.push("    advice: that of its cause".to_owned());
    }
    lines
}

/// `Variant: text: <Cause>`, as the chain of causes is printed.
fn line(variant: &str, arguments: TokenStream, fields: &Fields) -> String {
    let label = if variant.is_empty() { String::new() } else { format!("{variant}: ") };
    let is_transparent = arguments.to_string() == "transparent";
    let text = formatted(arguments.clone(), 0).unwrap_or_else(|| compact(arguments));
    let is_cause = |field: &&syn::Field| {
        let by_name = field.ident.as_ref().is_some_and(|name| name == "source");
        by_name || field.attrs.iter().any(|attribute| attribute.path().is_ident("source"))
    };
    let cause = if is_transparent { fields.iter().next() } else { fields.iter().find(is_cause) };
    let cause = cause.map(|field| unboxed(&compact(tokens(&field.ty))));
    match cause {
        Some(cause) if is_transparent => format!("  {label}<{cause}>"),
        Some(cause) => format!("  {label}{text}: <{cause}>"),
        None => format!("  {label}{text}"),
    }
}

/// The name of a type without its `Box` and without `std`.
fn unboxed(name: &str) -> String {
    let inner = name.strip_prefix("Box<").and_then(|inner| inner.strip_suffix('>')).unwrap_or(name);
    inner.replace("std::", "")
}

fn is_error_derive(attribute: &Attribute) -> bool {
    let is_error = |token: TokenTree| matches!(token, TokenTree::Ident(name) if name == "Error");
    attribute.path().is_ident("derive")
        && attribute.meta.require_list().is_ok_and(|list| list.tokens.clone().into_iter().any(is_error))
}

fn error_arguments(attribute: &Attribute) -> Option<TokenStream> {
    let list = attribute.meta.require_list().ok()?;
    attribute.path().is_ident("error").then(|| list.tokens.clone())
}

/// The texts of the attributes `#[error("…")]` in a file, with their lines.
pub fn error_attributes(text: &str) -> Vec<(usize, String)> {
    struct Found(Vec<(usize, String)>);
    impl Visit<'_> for Found {
        fn visit_attribute(&mut self, attribute: &Attribute) {
            let text = error_arguments(attribute).and_then(|arguments| formatted(arguments, 0));
            self.0.extend(text.map(|text| (attribute.span().start().line, text)));
        }
    }
    let mut found = Found(Vec::new());
    if let Ok(file) = syn::parse_file(text) {
        found.visit_file(&file);
    }
    found.0
}

/// The types whose `Display` is written by hand, where they are errors or texts of one line and more than one word.
fn written<'a>(file: &ProductFile, advice_of: impl Fn(&str) -> &'a [Texts]) -> Vec<(String, Vec<String>)> {
    let errors: BTreeSet<String> = impls_of(file, "Error").into_iter().map(|(name, _)| name).collect();
    let mut found = Vec::new();
    for (name, arms) in impls_of(file, "Display") {
        let texts = || arms.iter().flat_map(|arm| &arm.texts);
        let is_message = texts().any(|text| is_sentence(text)) && !texts().any(|text| text.contains('\n'));
        let mut lines: Vec<String> = arms.iter().flat_map(arm_lines).collect();
        lines.extend(advice_of(&name).iter().flat_map(advice_lines));
        if (is_message || errors.contains(&name)) && !lines.is_empty() {
            found.push((name, lines));
        }
    }
    found
}

/// One line for each text of an arm.
pub fn arm_lines(arm: &Texts) -> Vec<String> {
    let label = if arm.variants.is_empty() { String::new() } else { format!("{}: ", arm.variants.join(" | ")) };
    arm.texts.iter().map(|text| format!("  {label}{text}")).collect()
}

fn is_sentence(text: &str) -> bool {
    text.split(' ').filter(|word| word.chars().filter(|c| c.is_alphabetic()).count() > 1).count() > 1
}

/// The types for which the file implements a trait, with the texts of the trait's functions.
fn impls_of(file: &ProductFile, wanted: &str) -> Vec<(String, Vec<Texts>)> {
    let is_wanted = |item: &ItemImpl| {
        let of_trait = item.trait_.as_ref().and_then(|(_, path, _)| path.segments.last());
        of_trait.is_some_and(|segment| segment.ident == wanted)
    };
    let texts = |item: &ItemImpl| {
        let bodies = item.items.iter().filter_map(|item| match item {
            ImplItem::Fn(function) => Some(&function.block),
            _ => None,
        });
        bodies.flat_map(of_function).collect()
    };
    let impls = file.items().into_iter().filter_map(|item| match item {
        Item::Impl(item) if is_wanted(item) => Some((type_name(&item.self_ty)?, texts(item))),
        _ => None,
    });
    impls.collect()
}

fn type_name(of: &Type) -> Option<String> {
    match of {
        Type::Path(path) => path.path.segments.last().map(|segment| segment.ident.to_string()),
        _ => None,
    }
}

/// The functions of a file with the texts in them.
struct Functions(BTreeMap<String, Vec<String>>);

impl Functions {
    fn of(file: &ProductFile) -> Self {
        struct Found(BTreeMap<String, Vec<String>>);
        impl Visit<'_> for Found {
            fn visit_item_fn(&mut self, function: &syn::ItemFn) {
                self.0.insert(function.sig.ident.to_string(), templates::texts(tokens(&function.block)));
                visit::visit_item_fn(self, function);
            }
        }
        let mut found = Found(BTreeMap::new());
        found.visit_file(&file.syntax);
        Self(found.0)
    }

    fn lines(&self, calls: &BTreeSet<String>) -> Vec<String> {
        let known = calls.iter().filter_map(|name| Some((name, self.0.get(name)?)));
        known.flat_map(|(name, texts)| texts.iter().map(move |text| format!("    {name}(): {text}"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: &str) -> Vec<String> {
        let sections = sections(&[ProductFile::parse("c", &["m"], code)]);
        sections.into_iter().flat_map(|section| std::iter::once(section.name).chain(section.lines)).collect()
    }

    #[test]
    fn a_derived_error_has_a_line_with_its_cause_and_advice_for_each_variant() {
        let code = r#"
            #[derive(Debug, thiserror::Error)]
            enum E {
                #[error("failed to read {}: {n}{}", path.display(), of(.n))] Read { path: P, n: u32, #[source] why: io::Error },
                #[error(transparent)] Other(Box<F>),
                #[error("{0} ended")] Ended(String),
            }
            #[derive(thiserror::Error)] #[error("failed")] struct S;
            impl Advice for E {
                fn advice(&self) -> A { match self { Self::Read { .. } => Some("free space".into()), E::Other(e) => e.advice(), E::Ended(_) => None } }
            }
            fn of(n: u32) -> &'static str { " of n" }
            #[cfg(test)] mod tests { #[derive(thiserror::Error)] #[error("no")] struct T; }"#;
        let expect = [
            "c::m::E",
            "  Read: failed to read {path}: {n}{of(.n)}: <io::Error>",
            "    advice: free space",
            "  Other: <F>",
            "    advice: that of its cause",
            "  Ended: {0} ended",
            "    of():  of n",
            "c::m::S",
            "  failed",
        ];
        assert_eq!(of(code), expect);
    }

    #[test]
    fn a_display_by_hand_counts_where_it_is_an_error_or_a_message() {
        let display = |name: &str, text: &str| {
            format!(
                "impl fmt::Display for {name} {{ fn fmt(&self) {{ match self {{ Self::A => f.write_str({text:?}) }} }} }}"
            )
        };
        let code = [
            display("E", "word"),
            "impl std::error::Error for E {}".to_owned(),
            display("M", "two words"),
            display("W", "word"),
        ];
        assert_eq!(of(&code.join("\n")), ["c::m::E", "  A: word", "c::m::M", "  A: two words"]);
    }
}
