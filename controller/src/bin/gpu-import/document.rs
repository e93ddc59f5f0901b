// SPDX-License-Identifier: Apache-2.0
//! Finds the one configuration to import: the input is such a file itself, or a ConfigMap with one file per key.
//!
//! The device plugin's chart and the GPU operator mount a ConfigMap whose keys are the names that nodes choose by the
//! label `nvidia.com/device-plugin.config`.

use serde_json::Value;

use crate::fields::{Field, TypeError};
use crate::warnings::{self, Warning};

/// A configuration of the device plugin.
#[derive(Debug, PartialEq)]
pub(crate) struct Document {
    /// Where it is in the input: empty, or `data.NAME`.
    pub(crate) path: String,
    /// Its content, not looked at yet.
    pub(crate) content: Value,
    /// What the ConfigMap holds besides.
    pub(crate) warnings: Vec<Warning>,
}

/// Why there is nothing to import.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DocumentError {
    #[error("{whole} is not YAML")]
    Syntax { whole: String, source: Box<serde_saphyr::Error> },
    #[error("the input has an unexpected type")]
    Type(#[source] TypeError),
    #[error("the input is a {found:?}, not a ConfigMap: give the device plugin's ConfigMap or one file of it")]
    Kind { found: String },
    #[error(
        "{whole} has none of the keys version, flags, resources, sharing: it is no configuration of the device plugin"
    )]
    Foreign { whole: String },
    #[error("the ConfigMap has no configuration of the device plugin")]
    Empty,
    #[error("the ConfigMap has {count} configurations: choose one with --config: {names}")]
    Several { count: usize, names: String },
    #[error("there is no configuration named {wanted:?}: the input has {names}")]
    Unknown { wanted: String, names: String },
}

/// Reads the input and chooses; `wanted` is needed only where a ConfigMap has several.
pub(crate) fn read(input: &str, wanted: Option<&str>) -> Result<Document, DocumentError> {
    let content = parse(input, "the input")?;
    let whole = Field::new("", &content);
    let entries = whole.entries().map_err(DocumentError::Type)?;
    match entries.iter().find(|(key, _)| *key == "kind") {
        Some((_, kind)) => match kind.text().map_err(DocumentError::Type)? {
            "ConfigMap" => from_config_map(&entries, wanted),
            found => Err(DocumentError::Kind { found: found.to_owned() }),
        },
        None if !is_configuration(&content) => Err(DocumentError::Foreign { whole: "the input".to_owned() }),
        None => match wanted {
            Some(wanted) => Err(DocumentError::Unknown {
                wanted: wanted.to_owned(),
                names: "one without a name: leave --config out".to_owned(),
            }),
            None => Ok(Document { path: String::new(), content, warnings: Vec::new() }),
        },
    }
}

fn from_config_map(entries: &[(&str, Field<'_>)], wanted: Option<&str>) -> Result<Document, DocumentError> {
    let data = entries.iter().find(|(key, _)| *key == "data");
    let files = data.map_or(Ok(Vec::new()), |(_, data)| data.entries()).map_err(DocumentError::Type)?;
    let mut found: Vec<(&str, Document)> = Vec::new();
    let mut warnings = Vec::new();
    for (name, file) in files {
        let text = file.text().map_err(DocumentError::Type)?;
        match parse(text, &file.path) {
            Ok(content) if is_configuration(&content) => {
                found.push((name, Document { path: file.path, content, warnings: Vec::new() }));
            }
            Err(error) if wanted == Some(name) => return Err(error),
            Ok(_) if wanted == Some(name) => return Err(DocumentError::Foreign { whole: file.path }),
            Ok(_) | Err(_) => warnings.push(warnings::not_a_configuration(&file.path, name)),
        }
    }
    let mut chosen = choose(found, wanted)?;
    chosen.warnings = warnings;
    Ok(chosen)
}

fn choose(mut found: Vec<(&str, Document)>, wanted: Option<&str>) -> Result<Document, DocumentError> {
    let names: Vec<String> = found.iter().map(|(name, _)| format!("{name:?}")).collect();
    let names = names.join(", ");
    let at = match wanted {
        Some(wanted) => found
            .iter()
            .position(|(name, _)| *name == wanted)
            .ok_or_else(|| DocumentError::Unknown { wanted: wanted.to_owned(), names })?,
        None if found.len() > 1 => return Err(DocumentError::Several { count: found.len(), names }),
        None if found.is_empty() => return Err(DocumentError::Empty),
        None => 0,
    };
    Ok(found.swap_remove(at).1)
}

fn parse(text: &str, whole: &str) -> Result<Value, DocumentError> {
    let failed = |source| DocumentError::Syntax { whole: whole.to_owned(), source: Box::new(source) };
    // Without the lines around the fault: they are the user's, whatever is in them.
    serde_saphyr::from_str_with_options(text, serde_saphyr::options! { with_snippet: false }).map_err(failed)
}

/// Whether the plugin would find anything in it; its parser ignores the case of letters (Go's encoding/json).
fn is_configuration(content: &Value) -> bool {
    let known = |key: &String| ["version", "flags", "resources", "sharing"].iter().any(|k| k.eq_ignore_ascii_case(key));
    content.as_object().is_some_and(|entries| entries.keys().any(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "kind: ConfigMap\ndata:\n  a: 'version: v1'\n  b: 'sharing: {}'\n";

    fn outcome(input: &str, wanted: Option<&str>) -> Result<String, String> {
        read(input, wanted).map(|document| document.path).map_err(|error| error.to_string())
    }

    #[test]
    fn one_configuration_is_chosen() {
        for (input, wanted, expect) in [
            ("version: v1", None, Ok("")),
            ("Sharing: {}", None, Ok("")),
            ("kind: ConfigMap\ndata:\n  any: |-\n    version: v1\n", None, Ok("data.any")),
            ("kind: ConfigMap\ndata:\n  config.yaml: |-\n    version: v1\n", None, Ok(r#"data["config.yaml"]"#)),
            (TWO, Some("b"), Ok("data.b")),
            (TWO, None, Err("the ConfigMap has 2 configurations: choose one with --config: \"a\", \"b\"")),
            (TWO, Some("c"), Err("there is no configuration named \"c\": the input has \"a\", \"b\"")),
            (
                "version: v1",
                Some("a"),
                Err("there is no configuration named \"a\": the input has one without a name: leave --config out"),
            ),
            ("kind: ConfigMap", None, Err("the ConfigMap has no configuration of the device plugin")),
            ("kind: ConfigMap\ndata: {a: 1}", None, Err("the input has an unexpected type")),
            (
                "kind: ConfigMap\ndata: {a: x}",
                Some("a"),
                Err(
                    "data.a has none of the keys version, flags, resources, sharing: it is no configuration of the device plugin",
                ),
            ),
            ("kind: ConfigMap\ndata: {a: '['}", Some("a"), Err("data.a is not YAML")),
            (
                "kind: DaemonSet",
                None,
                Err(
                    "the input is a \"DaemonSet\", not a ConfigMap: give the device plugin's ConfigMap or one file of it",
                ),
            ),
            ("kind: [1]", None, Err("the input has an unexpected type")),
            (
                "replicas: 4",
                None,
                Err(
                    "the input has none of the keys version, flags, resources, sharing: it is no configuration of the device plugin",
                ),
            ),
            ("- 1", None, Err("the input has an unexpected type")),
            ("{", None, Err("the input is not YAML")),
            (
                "",
                None,
                Err(
                    "the input has none of the keys version, flags, resources, sharing: it is no configuration of the device plugin",
                ),
            ),
            ("version: v1\nversion: v1", None, Err("the input is not YAML")),
        ] {
            let expect = expect.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(outcome(input, wanted), expect, "{input:?} {wanted:?}");
        }
    }
}
