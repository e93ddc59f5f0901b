// SPDX-License-Identifier: Apache-2.0
//! The reasons and notes of the Events and conditions of the product, read from its source.
//!
//! A reason and a note belong together in four places: the functions `reason` and `note` of one type, arm by arm of their
//! `match self`; a struct with a field `reason`; a call with an `EventType`; a tuple that begins with a reason. A value is
//! followed through variables, constants and functions; where it comes from a field it stays a name in braces.
#![expect(clippy::wildcard_enum_match_arm, reason = "syn may get more variants")]

use std::collections::{BTreeMap, BTreeSet};

use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Block, Expr, Local, Member, Pat};

use super::product::ProductFile;
use super::templates::{self, compact, of_function, tokens};
use super::values::{Index, Value, is_known, literal, plain, values_of, variants};

/// The names of fields and functions that hold a note.
const NOTES: [&str; 3] = ["note", "message", "text"];

/// Methods that do not change a text.
const SAME_TEXT: [&str; 6] = ["clone", "to_owned", "to_string", "into", "as_str", "as_deref"];

/// A variable that refers to a variable: no code of the product has more of them in a row.
const MAX_DEPTH: usize = 8;

/// The notes of each reason.
pub type Events = BTreeMap<String, BTreeSet<String>>;

/// The Events and conditions of the product.
pub fn events(files: &[ProductFile]) -> Events {
    let mut index = Index::default();
    visit_all(files, &mut index);
    // What is given to a variant is known before the code that matches the variant is read.
    let mut first = Reader::new(&index, Given::new());
    visit_all(files, &mut first);
    let mut second = Reader::new(&index, first.given);
    visit_all(files, &mut second);
    second.events()
}

fn visit_all<'a>(files: &'a [ProductFile], visitor: &mut impl Visit<'a>) {
    for item in files.iter().flat_map(ProductFile::items) {
        visitor.visit_item(item);
    }
}

/// The texts that are given to a field of a variant or struct.
type Given = BTreeMap<(String, String), BTreeSet<Value>>;

#[derive(Clone)]
enum Binding {
    Code(Box<Expr>),
    Values(Vec<Value>),
}

struct Reader<'a> {
    index: &'a Index,
    given: Given,
    /// The variables in scope.
    bindings: BTreeMap<String, Binding>,
    /// For a field that holds a reason: its reasons, and the notes beside them.
    fields: Vec<(String, Vec<Value>, Vec<Value>)>,
    /// For a field that holds a reason: the notes with which the reason is used.
    uses: BTreeMap<String, Vec<Value>>,
    found: Events,
}

impl<'a> Reader<'a> {
    fn new(index: &'a Index, given: Given) -> Self {
        let (bindings, uses) = (BTreeMap::new(), BTreeMap::new());
        Self { index, given, bindings, fields: Vec::new(), uses, found: Events::new() }
    }

    /// What was found, with the reasons in fields as they are used.
    fn events(mut self) -> Events {
        for (field, reasons, notes) in std::mem::take(&mut self.fields) {
            match self.uses.get(&field) {
                Some(uses) => {
                    let within = |used: &Value| notes.iter().map(|note| note_within(used, note)).collect::<Vec<_>>();
                    let notes: Vec<Value> = uses.iter().flat_map(within).collect();
                    self.add_values(&reasons, &notes);
                }
                None if field == "reason" => self.add_values(&reasons, &notes),
                None => {}
            }
        }
        self.found
    }

    fn add(&mut self, reason: &Expr, note: &Expr) {
        let reasons = self.values(reason, MAX_DEPTH);
        let notes = match note {
            // The function whose variants are those of the reasons.
            Expr::MethodCall(call) => {
                let functions = self.index.functions.get(&call.method.to_string());
                let values = functions.into_iter().flatten().map(|texts| values_of(texts));
                let paired = values.into_iter().find(|values| variants(values) == variants(&reasons));
                paired.unwrap_or_else(|| self.values(note, MAX_DEPTH))
            }
            _ => self.values(note, MAX_DEPTH),
        };
        self.add_values(&reasons, &notes);
    }

    fn add_values(&mut self, reasons: &[Value], notes: &[Value]) {
        let is_paired = variants(reasons) == variants(notes);
        for reason in reasons.iter().filter(|reason| is_reason(&reason.text)) {
            let own = notes.iter().filter(|note| !is_paired || note.variant == reason.variant);
            self.found.entry(reason.text.clone()).or_default().extend(own.map(|note| note.text.clone()));
        }
    }

    /// The texts that an expression can have; its code in braces where they are not in the source.
    fn values(&self, expr: &Expr, depth: usize) -> Vec<Value> {
        let unknown = || vec![plain(format!("{{{}}}", compact(tokens(expr))))];
        if let Some(text) = literal(expr) {
            return vec![plain(text)];
        }
        if depth == 0 {
            return unknown();
        }
        match expr {
            Expr::Macro(_) => {
                let first = templates::texts(tokens(expr)).into_iter().next();
                first.map(|text| self.expanded(&text, depth)).unwrap_or_default()
            }
            Expr::Path(_) => self.named(&last_segment(expr), depth).unwrap_or_else(unknown),
            Expr::Call(call) => match (last_segment(&call.func).as_str(), call.args.first()) {
                ("Some", Some(inner)) => self.values(inner, depth - 1),
                (name, _) => self.returned(name).unwrap_or_else(unknown),
            },
            Expr::MethodCall(call) if SAME_TEXT.iter().any(|name| call.method == name) => {
                self.values(&call.receiver, depth - 1)
            }
            Expr::MethodCall(call) => match call.args.first() {
                Some(Expr::Closure(closure)) => self.values(&closure.body, depth - 1),
                _ => self.returned(&call.method.to_string()).unwrap_or_else(unknown),
            },
            Expr::Match(found) => found.arms.iter().flat_map(|arm| self.values(&arm.body, depth - 1)).collect(),
            Expr::Reference(inner) => self.values(&inner.expr, depth - 1),
            _ => unknown(),
        }
    }

    /// The texts of a variable or constant.
    fn named(&self, name: &str, depth: usize) -> Option<Vec<Value>> {
        match (self.bindings.get(name), self.index.constants.get(name)) {
            (Some(Binding::Code(code)), _) if depth > 0 => Some(self.values(code, depth - 1)),
            (Some(Binding::Values(values)), _) => Some(values.clone()),
            (None, Some(text)) => Some(vec![plain(text.clone())]),
            (Some(Binding::Code(_)) | None, _) => None,
        }
    }

    /// A template with the texts of the variables and constants in it, as far as they are known.
    fn expanded(&self, template: &str, depth: usize) -> Vec<Value> {
        let names: BTreeSet<&str> =
            template.split('{').filter_map(|part| part.split_once('}')).map(|(n, _)| n).collect();
        let mut texts = vec![template.to_owned()];
        for name in names {
            let known = self.named(name, depth - 1).filter(|values| values.iter().all(is_known));
            if let Some(values) = known {
                let with = |text: &String| {
                    values.iter().map(|value| text.replace(&format!("{{{name}}}"), &value.text)).collect::<Vec<_>>()
                };
                texts = texts.iter().flat_map(with).collect();
            }
        }
        texts.into_iter().map(plain).collect()
    }

    /// The texts of the only function with that name that has texts.
    fn returned(&self, name: &str) -> Option<Vec<Value>> {
        let functions = self.index.functions.get(name)?.iter().map(|texts| values_of(texts));
        let mut functions = functions.filter(|values| !values.is_empty());
        functions.next().filter(|_| functions.next().is_none())
    }

    fn scoped(&mut self, visit: impl FnOnce(&mut Self)) {
        let outer = self.bindings.clone();
        visit(self);
        self.bindings = outer;
    }

    fn bind(&mut self, pattern: &Pat, value: &Expr) {
        match pattern {
            Pat::Ident(name) => {
                self.bindings.insert(name.ident.to_string(), Binding::Code(Box::new(value.clone())));
            }
            Pat::Type(pattern) => self.bind(&pattern.pat, value),
            Pat::TupleStruct(found) if last_of(&found.path) == "Some" => {
                found.elems.iter().for_each(|inner| self.bind(inner, value));
            }
            _ => self.bind_given(pattern),
        }
    }

    /// Binds the variables in the pattern of a variant to what is given to the variant elsewhere.
    fn bind_given(&mut self, pattern: &Pat) {
        let mut bind = |variant: &str, field: &str, inner: &Pat| {
            if let Pat::Ident(name) = inner {
                let name = name.ident.to_string();
                let of = |field: &str| self.given.get(&(variant.to_owned(), field.to_owned()));
                match of(field).or_else(|| of(&name)) {
                    Some(values) => self.bindings.insert(name, Binding::Values(values.iter().cloned().collect())),
                    None => self.bindings.remove(&name),
                };
            }
        };
        match pattern {
            Pat::TupleStruct(found) => found.elems.iter().enumerate().for_each(|(at, inner)| {
                bind(&last_of(&found.path), &at.to_string(), inner);
            }),
            Pat::Struct(found) => found.fields.iter().for_each(|field| {
                bind(&last_of(&found.path), &member(&field.member), &field.pat);
            }),
            Pat::Or(or) => or.cases.iter().for_each(|case| self.bind_given(case)),
            _ => {}
        }
    }

    /// Records what is given to a field, as far as it is known.
    fn give(&mut self, of: &str, field: &str, value: &Expr) {
        if of.starts_with(char::is_uppercase) && !["Some", "Ok", "Err"].contains(&of) {
            let known = self.values(value, MAX_DEPTH).into_iter().filter(is_known);
            let known: Vec<Value> = known.collect();
            if !known.is_empty() {
                self.given.entry((of.to_owned(), field.to_owned())).or_default().extend(known);
            }
        }
    }

    /// Reads a call whose arguments are the type of an Event, its reason and its note.
    fn call(&mut self, arguments: &Punctuated<Expr, syn::Token![,]>) {
        let is_type = |argument: &Expr| {
            let code = match (argument, self.bindings.get(&last_segment(argument))) {
                (Expr::Path(_), Some(Binding::Code(code))) => compact(tokens(code)),
                _ => compact(tokens(argument)),
            };
            code.contains("EventType::") || code == "\"Warning\"" || code == "\"Normal\""
        };
        let Some(at) = arguments.iter().position(is_type) else { return };
        let (Some(reason), Some(note)) = (arguments.iter().nth(at + 1), arguments.iter().nth(at + 2)) else { return };
        if let Expr::Field(field) = reason {
            let notes = self.values(note, MAX_DEPTH);
            self.uses.entry(member(&field.member)).or_default().extend(notes);
        }
        self.add(reason, note);
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let texts = |wanted: &[&str]| {
            item.items.iter().find_map(|item| match item {
                syn::ImplItem::Fn(function) if wanted.iter().any(|name| function.sig.ident == name) => {
                    Some(values_of(&of_function(&function.block)))
                }
                _ => None,
            })
        };
        if let (Some(reasons), Some(notes)) = (texts(&["reason"]), texts(&NOTES)) {
            self.add_values(&reasons, &notes);
        }
        visit::visit_item_impl(self, item);
    }

    fn visit_block(&mut self, block: &'ast Block) {
        self.scoped(|reader| visit::visit_block(reader, block));
    }

    fn visit_local(&mut self, local: &'ast Local) {
        visit::visit_local(self, local);
        if let Some(init) = &local.init {
            self.bind(&local.pat, &init.expr);
        }
    }

    fn visit_expr_if(&mut self, found: &'ast syn::ExprIf) {
        self.scoped(|reader| {
            reader.visit_expr(&found.cond);
            reader.visit_block(&found.then_branch);
        });
        if let Some((_, otherwise)) = &found.else_branch {
            self.visit_expr(otherwise);
        }
    }

    fn visit_expr_let(&mut self, found: &'ast syn::ExprLet) {
        visit::visit_expr_let(self, found);
        self.bind(&found.pat, &found.expr);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        self.scoped(|reader| {
            reader.bind_given(&arm.pat);
            visit::visit_arm(reader, arm);
        });
    }

    fn visit_expr_struct(&mut self, found: &'ast syn::ExprStruct) {
        for field in &found.fields {
            self.give(&last_of(&found.path), &member(&field.member), &field.expr);
        }
        let named = |names: &[&str]| found.fields.iter().find(|field| names.contains(&member(&field.member).as_str()));
        if let (Some(reason), Some(note)) = (named(&["reason"]), named(&NOTES)) {
            if matches!(note.expr, Expr::MethodCall(_)) {
                self.add(&reason.expr, &note.expr);
            } else {
                let notes = self.values(&note.expr, MAX_DEPTH);
                for field in &found.fields {
                    let values = self.values(&field.expr, MAX_DEPTH);
                    self.fields.push((member(&field.member), values, notes.clone()));
                }
            }
        }
        visit::visit_expr_struct(self, found);
    }

    fn visit_expr_tuple(&mut self, found: &'ast syn::ExprTuple) {
        if let (Some(reason @ Expr::Path(_)), Some(note)) = (found.elems.first(), found.elems.get(1)) {
            self.add(reason, note);
        }
        visit::visit_expr_tuple(self, found);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        self.call(&call.args);
        visit::visit_expr_method_call(self, call);
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        for (at, argument) in call.args.iter().enumerate() {
            self.give(&last_segment(&call.func), &at.to_string(), argument);
        }
        self.call(&call.args);
        visit::visit_expr_call(self, call);
    }
}

/// A note in the text with which it is used, such as `over: {trouble.note}`.
fn note_within(used: &Value, note: &Value) -> Value {
    let mut names = used.text.split('{').filter_map(|part| part.split_once('}')).map(|(name, _)| name);
    let place = names.rfind(|name| NOTES.iter().any(|note| name.rsplit('.').next() == Some(note)));
    let text = place.map(|place| used.text.replace(&format!("{{{place}}}"), &note.text));
    Value { variant: note.variant.clone(), text: text.unwrap_or_else(|| used.text.clone()) }
}

fn member(of: &Member) -> String {
    match of {
        Member::Named(name) => name.to_string(),
        Member::Unnamed(index) => index.index.to_string(),
    }
}

fn last_of(path: &syn::Path) -> String {
    path.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default()
}

fn last_segment(expr: &Expr) -> String {
    match expr {
        Expr::Path(path) => last_of(&path.path),
        _ => String::new(),
    }
}

/// Whether a text is in upper camel case, of two words or more, as the reasons of this driver are.
fn is_reason(text: &str) -> bool {
    let is_word = text.chars().all(char::is_alphanumeric) && text.starts_with(char::is_uppercase);
    is_word && text.chars().filter(|c| c.is_uppercase()).count() > 1 && text.contains(char::is_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: &str) -> Vec<String> {
        let found = events(&[ProductFile::parse("c", &[], code)]).into_iter();
        found.flat_map(|(reason, notes)| notes.into_iter().map(move |note| format!("{reason}: {note}"))).collect()
    }

    #[test]
    fn a_type_with_reason_and_note_is_read_arm_by_arm() {
        let code = r#"
            impl T {
                fn reason(&self) -> &'static str { match self { Self::A { .. } => "IsA", Self::B | Self::C => "IsOther" } }
                fn note(&self) -> String { match self { Self::A { n } => format!("a {n}"), T::B => "b".to_owned(), T::C => "c".into() } }
            }"#;
        assert_eq!(of(code), ["IsA: a {n}", "IsOther: b", "IsOther: c"]);
    }

    #[test]
    fn a_call_is_read_with_variables_constants_and_variants() {
        let code = r#"
            const REASON: &str = "IsConst";
            fn note(n: u32) -> Option<String> { (n > 1).then(|| format!("{n} of {}", REST)) }
            fn give(send: F) { send(N::First { text: note(1) }); if let Some(text) = x.map(|y| note(y)) { event(EventType::Normal, REASON, text) } }
            fn take(n: N) { match n { N::First { text } => event("Warning", "IsFirst", text), N::Other(text) => event("Warning", "IsOther", text) } }
        "#;
        assert_eq!(of(code), ["IsConst: {n} of {REST}", "IsFirst: {n} of {REST}", "IsOther: {text}"]);
    }

    #[test]
    fn the_reasons_of_a_struct_have_the_notes_they_are_used_with() {
        let code = r#"
            fn make(why: &str) -> T { let note = format!("lost: {why}"); T { reason: "IsLost", recovered: "IsFound", note } }
            fn write(t: T) { post("Warning", t.reason, &t.note); post("Normal", t.recovered, &format!("resolved: {}", t.note)); }
        "#;
        assert_eq!(of(code), ["IsFound: resolved: lost: {why}", "IsLost: lost: {why}"]);
    }
}
