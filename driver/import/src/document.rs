// SPDX-License-Identifier: Apache-2.0
//! Finds the configuration to import: a file of the device plugin or of mig-parted, or one of the files in a ConfigMap or in Helm
//! values.
//!
//! The device plugin's chart and the GPU operator mount a ConfigMap whose keys are the names that the node label
//! `nvidia.com/device-plugin.config` selects. Their Helm values contain the same files. Without a choice of the user, layouts of MIG
//! devices beside them are not imported.

use std::borrow::Cow;

use dra_mig_parted::{Field, TypeError, YamlError, yaml};
use dra_model::Advice;
use serde_json::Value;

use crate::files::{self, File, FileKind, RejectedFile};
use crate::warnings::{self, Warning};

/// A configuration of the device plugin or of mig-parted.
#[derive(Debug, PartialEq)]
pub struct Document {
    /// Path in the input: empty, or `data.NAME`.
    pub path: String,
    pub kind: FileKind,
    /// Not validated.
    pub content: Value,
    /// Warnings about other parts of the input.
    pub warnings: Vec<Warning>,
}

/// The input has no configuration to import.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    #[error("{whole} is not YAML")]
    Syntax { whole: String, source: YamlError },
    #[error("the input has an unexpected type")]
    Type(#[source] TypeError),
    #[error("the input is a {found:?}, not a ConfigMap")]
    Kind { found: String },
    #[error(
        "{whole} has none of the keys version, flags, resources, sharing of a configuration of the device plugin and no key \
         mig-configs of mig-parted"
    )]
    NotAConfiguration { whole: String },
    #[error("the input has no configuration of mig-parted with the key mig-configs")]
    NoMigLayouts,
    #[error("{path} refers to the ConfigMap {name:?}, which has the configuration")]
    NamedConfigMap { path: String, name: String },
    #[error("the ConfigMap has no configuration of the device plugin or of mig-parted")]
    Empty,
    #[error("{holder} has {count} configurations: {names}")]
    Several { holder: &'static str, count: usize, names: String },
    #[error("the input has {count} configurations named {name:?}")]
    SameName { count: usize, name: String },
    #[error("the input has no configuration named {wanted:?}, only {names}")]
    Unknown { wanted: String, names: String },
}

impl Advice for DocumentError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Kind { .. } => {
                Some("use the ConfigMap of the device plugin or of mig-parted, or one file of it".into())
            }
            Self::NoMigLayouts => Some("omit --mig-config to import a sharing configuration".into()),
            Self::NamedConfigMap { .. } => Some("use that ConfigMap".into()),
            Self::Several { .. } => Some("choose one with --config".into()),
            Self::SameName { .. } => Some("remove all but one".into()),
            Self::Syntax { source, .. } => source.advice(),
            Self::Type(_) | Self::NotAConfiguration { .. } | Self::Empty | Self::Unknown { .. } => None,
        }
    }
}

const THE_INPUT: &str = "the input";

#[derive(Default)]
struct Search {
    /// With the names of the files; a bare file has none.
    found: Vec<(Option<String>, Document)>,
    warnings: Vec<Warning>,
    /// The error of the first object that cannot be imported.
    refused: Option<DocumentError>,
    config_maps: usize,
}

/// Parses the input and selects a configuration; `wanted` is needed only if there are several, `kind` only to exclude the other.
pub fn read(input: &str, wanted: Option<&str>, kind: Option<FileKind>) -> Result<Document, DocumentError> {
    let contents = yaml::documents(input);
    let contents = contents.map_err(|source| DocumentError::Syntax { whole: THE_INPUT.to_owned(), source })?;
    let mut search = Search::default();
    for content in contents.iter().flat_map(files::objects) {
        search.add_object(&Field::new("", content), wanted)?;
    }
    search.select_kind(wanted, kind)?;
    search.choose(wanted)
}

impl Search {
    /// Adds the configurations of one object or bare file.
    fn add_object(&mut self, whole: &Field<'_>, wanted: Option<&str>) -> Result<(), DocumentError> {
        whole.entries().map_err(DocumentError::Type)?;
        let kind = whole.at(&["kind"]).map_or(Ok(None), |kind| kind.text()).map_err(DocumentError::Type)?;
        if kind == Some("ConfigMap") {
            self.config_maps += 1;
            whole.at(&["data"]).map_or(Ok(()), |data| self.files(&data, wanted))?;
            self.refuse(DocumentError::Empty);
        } else if let (None | Some("ClusterPolicy"), Some((path, name))) = (kind, files::named_config_map(whole)) {
            self.refuse(DocumentError::NamedConfigMap { path, name });
        } else if let Some(found) = kind {
            self.refuse(DocumentError::Kind { found: found.to_owned() });
        } else {
            let in_values = files::in_values(whole);
            in_values.iter().try_for_each(|data| self.files(data, wanted))?;
            if in_values.is_empty() {
                self.bare(whole.value);
            }
        }
        Ok(())
    }

    /// Adds a bare file.
    fn bare(&mut self, content: &Value) {
        match files::kind_of(content) {
            Err(rejected) => self.refuse(error_of(rejected, THE_INPUT)),
            Ok(_) if self.found.iter().any(|(name, _)| name.is_none()) => {
                self.warnings.push(warnings::later_document(THE_INPUT));
            }
            Ok(kind) => self.add(None, String::new(), kind, content.clone()),
        }
    }

    /// Adds named files.
    fn files(&mut self, files: &Field<'_>, wanted: Option<&str>) -> Result<(), DocumentError> {
        for (name, file) in files.entries().map_err(DocumentError::Type)? {
            let text = file.text().map_err(DocumentError::Type)?.unwrap_or_default();
            match files::read(name, text) {
                Ok(File { kind, content, is_alone }) => {
                    if !is_alone {
                        self.warnings.push(warnings::later_document(&file.path));
                    }
                    self.add(Some(name.to_owned()), file.path, kind, content);
                }
                Err(rejected) if wanted == Some(name) => return Err(error_of(rejected, &file.path)),
                Err(rejected) => {
                    self.warnings.push(rejected.warning(&file.path, name));
                    if rejected != RejectedFile::NotAConfiguration {
                        self.refuse(error_of(rejected, &file.path));
                    }
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, name: Option<String>, path: String, kind: FileKind, content: Value) {
        self.found.push((name, Document { path, kind, content, warnings: Vec::new() }));
    }

    fn refuse(&mut self, error: DocumentError) {
        self.refused.get_or_insert(error);
    }

    /// Removes the files of the other kind; those of mig-parted if neither their name nor the kind is wanted and others are there.
    fn select_kind(&mut self, wanted: Option<&str>, kind: Option<FileKind>) -> Result<(), DocumentError> {
        let has = |search: &Self, kind| search.found.iter().any(|(_, document)| document.kind == kind);
        if kind == Some(FileKind::MigLayouts) && !self.found.is_empty() && !has(self, FileKind::MigLayouts) {
            return Err(DocumentError::NoMigLayouts);
        }
        let both = has(self, FileKind::Sharing) && has(self, FileKind::MigLayouts);
        let default = (both && wanted.is_none()).then_some(FileKind::Sharing);
        let Some(selected) = kind.or(default) else { return Ok(()) };
        for (_, document) in self.found.extract_if(.., |(_, document)| document.kind != selected) {
            if document.kind == FileKind::MigLayouts {
                self.warnings.push(warnings::mig_layouts(&document.path));
            }
        }
        Ok(())
    }

    fn choose(self, wanted: Option<&str>) -> Result<Document, DocumentError> {
        let Self { mut found, warnings, refused, config_maps } = self;
        let quoted = |name: &Option<String>| {
            name.as_ref().map_or_else(
                || "one without a name, for which --config must be omitted".to_owned(),
                |name| format!("{name:?}"),
            )
        };
        let names = found.iter().map(|(name, _)| quoted(name)).collect::<Vec<_>>().join(", ");
        let holder = if config_maps == 1 { "the ConfigMap" } else { THE_INPUT };
        if found.is_empty() {
            return Err(refused.unwrap_or_else(|| DocumentError::NotAConfiguration { whole: THE_INPUT.to_owned() }));
        }
        if let Some(wanted) = wanted {
            found.retain(|(name, _)| name.as_deref() == Some(wanted));
        }
        let count = found.len();
        match (found.pop(), wanted) {
            (Some((_, document)), _) if count == 1 => Ok(Document { warnings, ..document }),
            (Some(_), Some(name)) => Err(DocumentError::SameName { count, name: name.to_owned() }),
            (None, Some(wanted)) => Err(DocumentError::Unknown { wanted: wanted.to_owned(), names }),
            (_, None) => Err(DocumentError::Several { holder, count, names }),
        }
    }
}

/// The error for a rejected file that is the whole input or the wanted one.
fn error_of(rejected: RejectedFile, whole: &str) -> DocumentError {
    let whole = whole.to_owned();
    match rejected {
        RejectedFile::Syntax(source) => DocumentError::Syntax { whole, source },
        RejectedFile::NotAConfiguration => DocumentError::NotAConfiguration { whole },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "kind: ConfigMap\ndata:\n  a: 'version: v1'\n  b: 'sharing: {}'\n";

    fn outcome(input: &str, wanted: Option<&str>) -> Result<String, String> {
        read(input, wanted, None).map(|document| document.path).map_err(|error| error.to_string())
    }

    #[test]
    fn one_configuration_is_chosen() {
        for (input, wanted, expect) in [
            ("version: v1", None, Ok("")),
            ("Sharing: {}", None, Ok("")),
            ("kind: ConfigMap\ndata:\n  any: |-\n    version: v1\n", None, Ok("data.any")),
            ("kind: ConfigMap\ndata:\n  config.yaml: |-\n    version: v1\n", None, Ok(r#"data["config.yaml"]"#)),
            (TWO, Some("b"), Ok("data.b")),
            (TWO, None, Err("the ConfigMap has 2 configurations: \"a\", \"b\"")),
            (TWO, Some("c"), Err("the input has no configuration named \"c\", only \"a\", \"b\"")),
            (
                "version: v1",
                Some("a"),
                Err(
                    "the input has no configuration named \"a\", only one without a name, for which --config must be omitted",
                ),
            ),
            ("kind: ConfigMap", None, Err("the ConfigMap has no configuration of the device plugin or of mig-parted")),
            ("kind: ConfigMap\ndata: {a: 1}", None, Err("the input has an unexpected type")),
            (
                "kind: ConfigMap\ndata: {a: x}",
                Some("a"),
                Err(
                    "data.a has none of the keys version, flags, resources, sharing of a configuration of the device plugin and no key mig-configs of mig-parted",
                ),
            ),
            ("kind: ConfigMap\ndata: {a: '['}", Some("a"), Err("data.a is not YAML")),
            ("kind: DaemonSet", None, Err("the input is a \"DaemonSet\", not a ConfigMap")),
            ("kind: [1]", None, Err("the input has an unexpected type")),
            (
                "replicas: 4",
                None,
                Err(
                    "the input has none of the keys version, flags, resources, sharing of a configuration of the device plugin and no key mig-configs of mig-parted",
                ),
            ),
            ("- 1", None, Err("the input has an unexpected type")),
            ("{", None, Err("the input is not YAML")),
            (
                "",
                None,
                Err(
                    "the input has none of the keys version, flags, resources, sharing of a configuration of the device plugin and no key mig-configs of mig-parted",
                ),
            ),
            ("version: v1\nversion: v1", None, Err("the input is not YAML")),
        ] {
            let expect = expect.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(outcome(input, wanted), expect, "{input:?} {wanted:?}");
        }
    }

    #[test]
    fn layouts_are_chosen_by_their_kind() {
        let chosen = |input| read(input, None, Some(FileKind::MigLayouts)).map(|document| document.path);
        let chosen = |input| chosen(input).map_err(|error| error.to_string());
        assert_eq!(chosen("kind: ConfigMap\ndata: {a: 'version: v1', b: 'mig-configs: {}'}").as_deref(), Ok("data.b"));
        assert_eq!(chosen("mig-configs: {}").as_deref(), Ok(""));
        let manager = "migManager: {config: {data: {config.yaml: 'mig-configs: {}'}}}";
        let both = format!("devicePlugin: {{config: {{data: {{a: 'version: v1'}}}}}}\n{manager}");
        for values in [manager, &both] {
            assert_eq!(chosen(values).as_deref(), Ok(r#"migManager.config.data["config.yaml"]"#));
        }
        assert_eq!(outcome(&both, None).as_deref(), Ok("devicePlugin.config.data.a"));
        let named = "kind: ClusterPolicy\nspec: {migManager: {config: {name: parted}}}";
        let elsewhere = "spec.migManager.config.name refers to the ConfigMap \"parted\", which has the configuration";
        assert_eq!(chosen(named).unwrap_err(), elsewhere);
        let none = "the input has no configuration of mig-parted with the key mig-configs";
        assert_eq!(chosen("version: v1").unwrap_err(), none);
        let broken = "kind: ConfigMap\ndata: {b: '['}";
        assert_eq!(chosen(broken).unwrap_err(), "data.b is not YAML");
    }

    #[test]
    fn files_are_found_in_what_holds_them() {
        for (input, wanted, expect) in [
            ("--- {kind: DaemonSet}\n--- {version: v1}\n", None, Ok("")),
            ("--- {version: v1}\n--- {version: v1}\n", None, Ok("")),
            ("kind: List\nitems: [{kind: Secret}, {kind: ConfigMap, data: {a: 'version: v1'}}]", None, Ok("data.a")),
            ("config: {map: {a: 'version: v1'}}\nresources: {}", None, Ok("config.map.a")),
            (
                "operator: {devicePlugin: {config: {data: {a: 'version: v1'}}}}",
                None,
                Ok("operator.devicePlugin.config.data.a"),
            ),
            ("config: {map: {a: 'version: v1', b: ''}}", None, Err("the input has 2 configurations: \"a\", \"b\"")),
            (
                "config: {map: {}, name: shared}\nresources: {}",
                None,
                Err("config.name refers to the ConfigMap \"shared\", which has the configuration"),
            ),
            (
                "kind: ClusterPolicy\nspec: {devicePlugin: {config: {name: shared, default: any}}}",
                None,
                Err("spec.devicePlugin.config.name refers to the ConfigMap \"shared\", which has the configuration"),
            ),
            ("kind: ConfigMap\ndata: {a: 'version: v1', FAIL_ON_INIT_ERROR: ''}", None, Ok("data.a")),
            ("kind: ConfigMap\ndata: {a: 'version: v1', b: '['}", None, Ok("data.a")),
            ("kind: ConfigMap\ndata: {b: '['}", None, Err("data.b is not YAML")),
            ("kind: ConfigMap\ndata: {a: 'version: v1', b: 'mig-configs: {}'}", None, Ok("data.a")),
            ("kind: ConfigMap\ndata: {a: 'version: v1', b: 'mig-configs: {}'}", Some("b"), Ok("data.b")),
            ("version: v1\nmig-configs: {}", None, Ok("")),
            (
                "--- {kind: ConfigMap, data: {a: 'version: v1'}}\n--- {kind: ConfigMap, data: {a: ''}}\n",
                Some("a"),
                Err("the input has 2 configurations named \"a\""),
            ),
        ] {
            let expect = expect.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(outcome(input, wanted), expect, "{input:?} {wanted:?}");
        }
    }
}
