// SPDX-License-Identifier: Apache-2.0
//! The modules of one target, with the names that their code uses, and which module defines what a path names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::TokenStream;

use super::paths::{Names, names};

/// A module: a file or a part of one.
#[derive(Debug)]
pub struct Module {
    pub file: PathBuf,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    pub names: Names,
}

/// The modules of a target. The first one is its root.
#[derive(Debug, Default)]
pub struct Modules(pub Vec<Module>);

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Definition {
    Module(usize),
    /// An item that this module defines.
    ItemOf(usize),
}

fn dir_of(file: &Path) -> &Path {
    file.parent().unwrap_or_else(|| Path::new(""))
}

/// Imports that lead to imports. A circle of them does not compile.
const MAX_DEPTH: usize = 32;

impl Modules {
    /// Reads the target whose root is the file `root`.
    pub fn load(root: &Path) -> Self {
        let mut modules = Self::default();
        modules.add_file(root, None, dir_of(root));
        modules
    }

    fn add_file(&mut self, file: &Path, parent: Option<usize>, children_dir: &Path) -> usize {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let code = text.parse().unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self.add(file, parent, children_dir, code)
    }

    fn add(&mut self, file: &Path, parent: Option<usize>, children_dir: &Path, code: TokenStream) -> usize {
        let id = self.0.len();
        let names = names(code);
        let declared = names.declared.clone();
        self.0.push(Module { file: file.to_owned(), parent, children: BTreeMap::new(), names });
        for module in declared {
            let inner_dir = children_dir.join(&module.name);
            let child = match (module.body, module.path) {
                (Some(body), _) => self.add(file, Some(id), &inner_dir, body),
                (None, Some(path)) => {
                    let file = file.with_file_name(path);
                    self.add_file(&file, Some(id), dir_of(&file))
                }
                (None, None) => {
                    let beside = inner_dir.with_extension("rs");
                    let child = if beside.is_file() { beside } else { inner_dir.join("mod.rs") };
                    self.add_file(&child, Some(id), &inner_dir)
                }
            };
            self.0[id].children.insert(module.name, child);
        }
        id
    }

    /// Whether a module is another one or lies below it.
    pub fn is_within(&self, module: usize, ancestor: usize) -> bool {
        std::iter::successors(Some(module), |id| self.0[*id].parent).any(|id| id == ancestor)
    }

    /// The module that defines the macro that `module` calls by its bare name: `macro_rules!` of itself or of a parent.
    pub fn macro_definition(&self, module: usize, name: &str) -> Option<usize> {
        std::iter::successors(Some(module), |id| self.0[*id].parent).find(|id| self.0[*id].names.macros.contains(name))
    }

    /// What `segments`, written in `module`, name in this target; nothing where they name another crate.
    pub fn resolve(&self, module: usize, segments: &[String]) -> BTreeSet<Definition> {
        self.resolve_within(module, segments, MAX_DEPTH)
    }

    fn resolve_within(&self, module: usize, segments: &[String], depth: usize) -> BTreeSet<Definition> {
        let Some((first, rest)) = segments.split_first().filter(|_| depth > 0) else { return BTreeSet::new() };
        let start = match first.as_str() {
            "crate" => Some(0),
            "self" => Some(module),
            "super" => self.0[module].parent,
            _ => {
                let found = self.lookup(module, first, rest.is_empty(), depth);
                return found.into_iter().flat_map(|found| self.follow(found, rest, depth)).collect();
            }
        };
        start.map(|id| self.follow(Definition::Module(id), rest, depth)).unwrap_or_default()
    }

    /// The rest of a path from a place where its first part leads.
    fn follow(&self, from: Definition, rest: &[String], depth: usize) -> BTreeSet<Definition> {
        let (Definition::Module(module), Some((next, after))) = (from, rest.split_first()) else {
            return BTreeSet::from([from]);
        };
        if let ("super", Some(parent)) = (next.as_str(), self.0[module].parent) {
            return self.follow(Definition::Module(parent), after, depth);
        }
        let found = self.lookup(module, next, after.is_empty(), depth);
        if found.is_empty() {
            // A macro made the item.
            return BTreeSet::from([Definition::ItemOf(module)]);
        }
        found.into_iter().flat_map(|found| self.follow(found, after, depth)).collect()
    }

    /// What a name means in a module. Where it names both a module and an item, only the last segment can be the item.
    fn lookup(&self, module: usize, name: &str, is_last: bool, depth: usize) -> BTreeSet<Definition> {
        let Module { names, children, .. } = &self.0[module];
        let mut found: BTreeSet<Definition> =
            children.get(name).map(|id| Definition::Module(*id)).into_iter().collect();
        if names.items.contains(name) {
            found.insert(Definition::ItemOf(module));
        }
        for import in names.imports.iter().filter(|import| import.name.as_deref() == Some(name)) {
            found.extend(self.resolve_within(module, &import.path.segments, depth - 1));
        }
        if found.is_empty() {
            for glob in names.imports.iter().filter(|import| import.name.is_none()) {
                for of in self.resolve_within(module, &glob.path.segments, depth - 1) {
                    if let Definition::Module(of) = of
                        && of != module
                        && depth > 1
                    {
                        found.extend(self.lookup(of, name, is_last, depth - 1));
                    }
                }
            }
        }
        let is_wanted = |found: &Definition| matches!(found, Definition::ItemOf(_)) == is_last;
        let wanted: BTreeSet<Definition> = found.iter().copied().filter(is_wanted).collect();
        if wanted.is_empty() { found } else { wanted }
    }
}
