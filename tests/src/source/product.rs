// SPDX-License-Identifier: Apache-2.0
//! The Rust files of the programs and libraries that users install, parsed, without their tests.
#![expect(clippy::wildcard_enum_match_arm, reason = "syn may get more variants")]

use std::fmt;
use std::path::Path;

use syn::{Attribute, Item};

use super::{SourceFile, files};

/// A file of the product.
pub struct ProductFile {
    pub crate_name: String,
    /// The modules below the root of the crate.
    modules: Vec<String>,
    pub syntax: syn::File,
}

/// Every Rust file of the product, by path. The demo and the test cluster are not installed.
pub fn product_files() -> Vec<ProductFile> {
    let files = files();
    let manifests: Vec<&SourceFile> = files.iter().filter(|file| file.path.ends_with("Cargo.toml")).collect();
    let product = files.iter().filter(|file| file.is_rust() && !file.is_test());
    let product = product.filter(|file| !file.path.starts_with("demo") && !file.path.starts_with("tests"));
    product.filter_map(|file| parsed(file, &manifests)).collect()
}

fn parsed(file: &SourceFile, manifests: &[&SourceFile]) -> Option<ProductFile> {
    let dir = |manifest: &SourceFile| manifest.path.parent().unwrap_or_else(|| Path::new("")).to_owned();
    let own = manifests.iter().filter(|manifest| file.path.starts_with(dir(manifest)));
    let own = own.max_by_key(|manifest| dir(manifest).components().count())?;
    let name = own.text.lines().find_map(|line| line.strip_prefix("name = "))?.trim_matches('"').replace('-', "_");
    let inside = file.path.strip_prefix(dir(own).join("src")).ok()?.with_extension("");
    let modules: Vec<String> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let modules: Vec<&str> = modules.iter().map(String::as_str).filter(|module| *module != "lib").collect();
    Some(ProductFile::parse(&name, &modules, &file.text))
}

impl fmt::Debug for ProductFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProductFile").field("module", &self.module()).finish_non_exhaustive()
    }
}

impl ProductFile {
    /// A file that is this module of this crate.
    pub fn parse(crate_name: &str, modules: &[&str], text: &str) -> Self {
        let syntax =
            syn::parse_file(text).unwrap_or_else(|error| panic!("{crate_name}::{}: {error}", modules.join("::")));
        let modules = modules.iter().map(|module| (*module).to_owned()).collect();
        Self { crate_name: crate_name.to_owned(), modules, syntax }
    }

    /// The path of its module; a program of a crate has the path of its file.
    pub fn module(&self) -> String {
        std::iter::once(&self.crate_name).chain(&self.modules).cloned().collect::<Vec<_>>().join("::")
    }

    /// Its items, also those of modules in it, but not its tests.
    pub fn items(&self) -> Vec<&Item> {
        let mut found = Vec::new();
        collect(&self.syntax.items, &mut found);
        found
    }
}

fn collect<'a>(items: &'a [Item], found: &mut Vec<&'a Item>) {
    for item in items {
        match item {
            Item::Mod(module) if !module.attrs.iter().any(is_test_only) => {
                if let Some((_, items)) = &module.content {
                    collect(items, found);
                }
            }
            Item::Mod(_) => {}
            _ => found.push(item),
        }
    }
}

fn is_test_only(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string() == "test")
}
