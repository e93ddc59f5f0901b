// SPDX-License-Identifier: Apache-2.0
//! Finds files of the device plugin and of mig-parted in ConfigMaps and Helm values, and rejects files that are no configuration.

use std::iter;

use dra_mig_parted::{Field, YamlError, yaml};
use serde_json::Value;

use crate::keys::SECTIONS;
use crate::warnings::{self, Warning};

/// What a file configures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// Sharing, by the device plugin.
    Sharing,
    /// MIG devices, by mig-parted.
    MigLayouts,
}

/// A parsed file.
#[derive(Debug, PartialEq)]
pub struct File {
    pub kind: FileKind,
    pub content: Value,
    /// Whether the file has no further document.
    pub is_alone: bool,
}

/// A file that is no configuration.
#[derive(Debug, PartialEq, Eq)]
pub enum RejectedFile {
    Syntax(YamlError),
    NotAConfiguration,
}

impl RejectedFile {
    /// The warning about a rejected file beside a configuration.
    pub fn warning(&self, path: &str, name: &str) -> Warning {
        match self {
            Self::Syntax(why) => warnings::unreadable(path, why),
            Self::NotAConfiguration => warnings::not_a_configuration(path, name),
        }
    }
}

/// Paths of the files in Helm values of the device plugin and of the GPU operator, whose MIG manager runs mig-parted.
const FILES: [&[&str]; 3] =
    [&["config", "map"], &["devicePlugin", "config", "data"], &["migManager", "config", "data"]];

/// Paths of the name of an existing ConfigMap, also in the operator's ClusterPolicy.
const NAMES: [&[&str]; 5] = [
    &["config", "name"],
    &["devicePlugin", "config", "name"],
    &["spec", "devicePlugin", "config", "name"],
    &["migManager", "config", "name"],
    &["spec", "migManager", "config", "name"],
];

/// The document, or the items of a list that contains a ConfigMap.
pub fn objects(content: &Value) -> Vec<&Value> {
    let is = |value: &Value, kind: &str| value.get("kind").is_some_and(|found| found == kind);
    match content.get("items").and_then(Value::as_array) {
        Some(items) if is(content, "List") && items.iter().any(|item| is(item, "ConfigMap")) => items.iter().collect(),
        _ => vec![content],
    }
}

/// The files in Helm values, also if the chart is a dependency of another chart.
pub fn in_values<'v>(values: &Field<'v>) -> Vec<Field<'v>> {
    let has_files = |files: &Field<'_>| files.value.as_object().is_some_and(|files| !files.is_empty());
    charts(values).iter().flat_map(|chart| FILES.map(|keys| chart.at(keys))).flatten().filter(has_files).collect()
}

/// The path and name of the ConfigMap in values without files.
pub fn named_config_map(values: &Field<'_>) -> Option<(String, String)> {
    let name = |field: Field<'_>| match field.value.as_str() {
        None | Some("") => None,
        Some(name) => Some((field.path, name.to_owned())),
    };
    let mut names = charts(values).into_iter().flat_map(|chart| NAMES.map(|keys| chart.at(keys))).flatten();
    if in_values(values).is_empty() { names.find_map(name) } else { None }
}

fn charts<'v>(values: &Field<'v>) -> Vec<Field<'v>> {
    let dependencies = values.entries().unwrap_or_default().into_iter().map(|(_, chart)| chart);
    iter::once(values.clone()).chain(dependencies).collect()
}

/// Parses a named file. An empty file is a configuration without sharing.
pub fn read(name: &str, text: &str) -> Result<File, RejectedFile> {
    let mut documents = yaml::documents(text).map_err(RejectedFile::Syntax)?.into_iter();
    let content = documents.next().unwrap_or_default();
    let is_empty = content.is_null() || content.as_object().is_some_and(serde_json::Map::is_empty);
    let kind = if is_empty && !warnings::is_setting(name) { FileKind::Sharing } else { kind_of(&content)? };
    Ok(File { kind, content, is_alone: documents.next().is_none() })
}

/// A file of mig-parted has its one section, a file of the plugin at least one. The plugin's parser is case-insensitive (Go's
/// encoding/json).
pub fn kind_of(content: &Value) -> Result<FileKind, RejectedFile> {
    let known = |key: &String| SECTIONS.iter().any(|section| section.eq_ignore_ascii_case(key));
    if content.get("mig-configs").is_some() {
        Ok(FileKind::MigLayouts)
    } else if content.as_object().is_some_and(|entries| entries.keys().any(known)) {
        Ok(FileKind::Sharing)
    } else {
        Err(RejectedFile::NotAConfiguration)
    }
}
