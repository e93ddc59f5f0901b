// SPDX-License-Identifier: Apache-2.0
//! The texts of constants and functions, by name.
#![expect(clippy::wildcard_enum_match_arm, reason = "syn may get more variants")]

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::Visit;
use syn::{Block, Expr, ImplItemFn, ItemConst, ItemFn, Lit};

use super::templates::{Texts, of_function};

/// A text, and the variant for which it is used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value {
    pub variant: Option<String>,
    pub text: String,
}

/// The constants and functions of the product.
#[derive(Debug, Default)]
pub struct Index {
    pub constants: BTreeMap<String, String>,
    pub functions: BTreeMap<String, Vec<Vec<Texts>>>,
}

impl Index {
    fn add(&mut self, name: &syn::Ident, body: &Block) {
        self.functions.entry(name.to_string()).or_default().push(of_function(body));
    }
}

impl Visit<'_> for Index {
    fn visit_item_const(&mut self, item: &ItemConst) {
        if let Some(text) = literal(&item.expr) {
            self.constants.insert(item.ident.to_string(), text);
        }
    }

    fn visit_item_fn(&mut self, function: &ItemFn) {
        self.add(&function.sig.ident, &function.block);
    }

    fn visit_impl_item_fn(&mut self, function: &ImplItemFn) {
        self.add(&function.sig.ident, &function.block);
    }
}

/// A text that is used for every variant.
pub fn plain(text: String) -> Value {
    Value { variant: None, text }
}

/// The variants that have texts.
pub fn variants(values: &[Value]) -> BTreeSet<Option<&String>> {
    values.iter().map(|value| value.variant.as_ref()).collect()
}

/// Whether a text is more than code in braces.
pub fn is_known(value: &Value) -> bool {
    let mut depth = 0_usize;
    value.text.chars().any(|c| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && c.is_alphabetic()
    })
}

/// The texts of a function, without the parts that it joins to a text.
pub fn values_of(texts: &[Texts]) -> Vec<Value> {
    let value = |variant: Option<String>, text: &String| Value { variant, text: text.clone() };
    let of = |texts: &Texts| -> Vec<Value> {
        let variants: Vec<Option<String>> = match texts.variants.as_slice() {
            [] => vec![None],
            variants => variants.iter().cloned().map(Some).collect(),
        };
        variants.iter().flat_map(|variant| texts.texts.iter().map(|text| value(variant.clone(), text))).collect()
    };
    let all: Vec<Value> = texts.iter().flat_map(of).collect();
    // A part of a text begins or ends with a space.
    let is_whole = |value: &&Value| value.text.trim() == value.text;
    let whole: Vec<Value> = all.iter().filter(is_whole).cloned().collect();
    if whole.is_empty() { all } else { whole }
}

/// The value of a string literal.
pub fn literal(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Str(text) => Some(text.value()),
            _ => None,
        },
        _ => None,
    }
}
