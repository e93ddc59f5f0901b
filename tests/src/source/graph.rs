// SPDX-License-Identifier: Apache-2.0
//! Which file of a target uses an item of which other file, and the circles of files that use each other.
//!
//! `mod x;` is no use, nor is the re-export of a child's item (`pub use x::Y`). A path through a re-export uses the file
//! that defines the item.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};

use super::modules::{Definition, Modules};
use super::paths::{Import, UsedPath};
use super::root_dir;

/// The first place where a file uses an item of another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Use {
    /// Counted from 1.
    pub line: usize,
    /// As it is written.
    pub path: String,
}

/// For each file of a target the files whose items it uses. Paths are below the root of the repository.
#[derive(Debug, Default)]
pub struct Graph(pub BTreeMap<PathBuf, BTreeMap<PathBuf, Use>>);

/// Files of which each uses, directly or through others of them, each other one.
#[derive(Debug, PartialEq, Eq)]
pub struct Circle {
    pub files: BTreeSet<PathBuf>,
    /// The shortest way from a file to itself; each step with the place where the file uses the next one.
    pub shortest: Vec<(PathBuf, Use)>,
}

impl Graph {
    /// The graph of the target whose root is the file `root`.
    pub fn of_target(root: &Path) -> Self {
        let modules = Modules::load(root);
        let mut graph = Self::default();
        for id in 0..modules.0.len() {
            graph.0.entry(below_root(&modules.0[id].file)).or_default();
            graph.add_module(&modules, id);
        }
        graph
    }

    fn add_module(&mut self, modules: &Modules, id: usize) {
        let names = &modules.0[id].names;
        for import in &names.imports {
            self.add_import(modules, id, import);
        }
        for path in &names.paths {
            self.add_items(modules, id, path, &modules.resolve(id, &path.segments));
        }
        // A bare name is used where it is imported, unless the import is a re-export or a glob.
        let exports = names.imports.iter().filter(|import| import.is_export).filter_map(|import| import.name.as_ref());
        let exports: BTreeSet<&String> = exports.collect();
        let has_glob = names.imports.iter().any(|import| import.name.is_none());
        for word in names.words.iter().chain(&names.macro_calls) {
            let name = &word.segments[0];
            let is_type = name.starts_with(char::is_uppercase);
            if is_type && (exports.contains(name) || (has_glob && !names.items.contains(name))) {
                self.add_items(modules, id, word, &modules.resolve(id, &word.segments));
            }
        }
        for call in &names.macro_calls {
            if let Some(definition) = modules.macro_definition(id, &call.segments[0]) {
                self.add_items(modules, id, call, &BTreeSet::from([Definition::ItemOf(definition)]));
            }
        }
    }

    fn add_import(&mut self, modules: &Modules, id: usize, import: &Import) {
        let found = modules.resolve(id, &import.path.segments).into_iter();
        let used = found.filter_map(|found| match found {
            Definition::Module(of) => import.name.is_none().then_some(of),
            Definition::ItemOf(of) => Some(of),
        });
        let used = used.filter(|of| !(import.is_export && modules.is_within(*of, id)));
        self.add_items(modules, id, &import.path, &used.map(Definition::ItemOf).collect());
    }

    fn add_items(&mut self, modules: &Modules, id: usize, path: &UsedPath, found: &BTreeSet<Definition>) {
        let from = below_root(&modules.0[id].file);
        for definition in found {
            let Definition::ItemOf(of) = definition else { continue };
            let to = below_root(&modules.0[*of].file);
            if from != to {
                let this = Use { line: path.line, path: path.segments.join("::") };
                let first = self.0.entry(from.clone()).or_default().entry(to).or_insert_with(|| this.clone());
                *first = this.min(first.clone());
            }
        }
    }

    /// Every circle, in the order of its first file.
    pub fn circles(&self) -> Vec<Circle> {
        let reachable: BTreeMap<&PathBuf, BTreeSet<&PathBuf>> =
            self.0.keys().map(|file| (file, self.reachable(file))).collect();
        let reaches = |from: &PathBuf, to: &PathBuf| reachable.get(from).is_some_and(|files| files.contains(to));
        let mut sets: BTreeSet<BTreeSet<PathBuf>> = BTreeSet::new();
        for file in self.0.keys().filter(|file| reaches(file, file)) {
            let mutual = self.0.keys().filter(|other| reaches(file, other) && reaches(other, file));
            sets.insert(mutual.cloned().collect());
        }
        sets.into_iter().map(|files| Circle { shortest: self.shortest(&files), files }).collect()
    }

    fn used_by(&self, file: &Path) -> impl Iterator<Item = (&PathBuf, &Use)> {
        self.0.get(file).into_iter().flatten()
    }

    fn reachable<'a>(&'a self, from: &Path) -> BTreeSet<&'a PathBuf> {
        let mut found = BTreeSet::new();
        let mut next: Vec<&PathBuf> = self.used_by(from).map(|(to, _)| to).collect();
        while let Some(file) = next.pop() {
            if found.insert(file) {
                next.extend(self.used_by(file).map(|(to, _)| to));
            }
        }
        found
    }

    fn shortest(&self, files: &BTreeSet<PathBuf>) -> Vec<(PathBuf, Use)> {
        files.iter().map(|file| self.way_back(file)).min_by_key(Vec::len).unwrap_or_default()
    }

    /// The shortest way from a file of a circle to itself, by breadth-first search.
    fn way_back(&self, start: &PathBuf) -> Vec<(PathBuf, Use)> {
        let mut ways = VecDeque::from([(start, Vec::new())]);
        let mut visited = BTreeSet::new();
        while let Some((file, way)) = ways.pop_front() {
            for (to, used) in self.used_by(file) {
                let mut way = way.clone();
                way.push((file.clone(), used.clone()));
                if to == start {
                    return way;
                }
                if visited.insert(to) {
                    ways.push_back((to, way));
                }
            }
        }
        Vec::new()
    }

    /// Every use inside a circle.
    pub fn uses_within<'a>(&'a self, circle: &'a Circle) -> impl Iterator<Item = (&'a PathBuf, &'a PathBuf, &'a Use)> {
        let uses = circle.files.iter().flat_map(|from| self.used_by(from).map(move |(to, used)| (from, to, used)));
        uses.filter(|(_, to, _)| circle.files.contains(*to))
    }
}

fn below_root(file: &Path) -> PathBuf {
    file.strip_prefix(root_dir()).unwrap_or(file).to_owned()
}

impl fmt::Display for Circle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files: Vec<String> = self.shortest.iter().map(|(file, _)| file.display().to_string()).collect();
        let first = files.first().map(String::as_str).unwrap_or_default();
        writeln!(f, "circle of {} files: {} -> {first}", self.files.len(), files.join(" -> "))?;
        for (file, Use { line, path }) in &self.shortest {
            writeln!(f, "    {}:{line}: {path}", file.display())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The uses of a target with these files, as `from -> to: path`, and its circles.
    fn uses(files: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        for (name, code) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, code).unwrap();
        }
        let graph = Graph::of_target(&dir.path().join("lib.rs"));
        let short = |path: &Path| path.strip_prefix(dir.path()).unwrap().with_extension("").display().to_string();
        let of = |(from, to): (&PathBuf, &BTreeMap<PathBuf, Use>)| -> Vec<String> {
            to.iter().map(|(to, used)| format!("{} -> {}: {}", short(from), short(to), used.path)).collect()
        };
        let circles = graph.circles().into_iter().map(|circle| {
            let files: Vec<String> = circle.shortest.iter().map(|(file, _)| short(file)).collect();
            files.join(" ")
        });
        (graph.0.iter().flat_map(of).collect(), circles.collect())
    }

    #[test]
    fn a_path_through_a_reexport_uses_the_file_of_the_item() {
        let (uses, circles) = uses(&[
            ("lib.rs", "mod a; mod b; mod c; pub use a::A; pub(crate) use b::f;"),
            ("a.rs", "pub struct A;"),
            ("b.rs", "use super::A; use std::a::B; pub fn f() { g!(crate::c::inner::h()) }"),
            ("c.rs", "mod d; pub mod inner { use super::super::b; pub fn h() { b::f() } }"),
            ("c/d.rs", "fn f(a: crate::A) { super::inner::h() }"),
        ]);
        let expect = [
            "b -> a: super::A",
            "b -> c: crate::c::inner::h",
            "c/d -> a: crate::A",
            "c/d -> c: super::inner::h",
            "c -> b: b::f",
        ];
        assert_eq!(uses, expect);
        assert_eq!(circles, ["b c"]);
    }

    #[test]
    fn a_parent_and_its_child_can_be_a_circle() {
        let (_, circles) = uses(&[
            ("lib.rs", "mod p;"),
            ("p.rs", "mod c; pub use c::C; pub struct P(C);"),
            ("p/c.rs", "pub struct C; impl C { fn of(_: super::P) {} }"),
        ]);
        assert_eq!(circles, ["p/c p"]);
    }

    #[test]
    fn declarations_reexports_and_tests_are_no_uses() {
        let (uses, _) = uses(&[
            ("lib.rs", "pub mod p; #[cfg(test)] mod tests { use crate::p::P; }"),
            ("p.rs", "mod c; pub use self::c::C; use std::fmt; pub struct P;"),
            ("p/c.rs", "//! [`crate::p::P`]\npub struct C; #[cfg(test)] mod tests { use super::super::P; }"),
        ]);
        assert_eq!(uses, Vec::<String>::new());
    }
}
