// SPDX-License-Identifier: Apache-2.0
//! Reads the mig-parted configuration of the static MIG devices.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use dra_mig_parted::{Field, LayoutError, Layouts, YamlError, layouts, yaml};
use dra_model::Advice;

/// Which file, and which of its configurations.
#[derive(Debug, Clone)]
pub struct StaticMigFile {
    pub path: PathBuf,
    /// Needed if there are several.
    pub config: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum StaticMigFileError {
    #[error("failed to read the configuration of static MIG devices, {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not YAML", path.display())]
    Syntax { path: PathBuf, source: YamlError },
    #[error("{} has {count} documents, expected one configuration of mig-parted", path.display())]
    Documents { path: PathBuf, count: usize },
    #[error("{} is not a valid configuration of mig-parted", path.display())]
    Layouts { path: PathBuf, source: LayoutError },
}

impl Advice for StaticMigFileError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Read { .. } => Some("check --static-mig-file".into()),
            Self::Syntax { source, .. } => source.advice(),
            Self::Documents { .. } => None,
            Self::Layouts { source: LayoutError::Unknown { .. } | LayoutError::Several { .. }, .. } => {
                Some("choose one of them with --static-mig-config (`mig.static.config` of the chart)".into())
            }
            Self::Layouts { source, .. } => source.advice(),
        }
    }
}

/// Reads and parses the file.
pub fn read(file: &StaticMigFile) -> Result<Layouts, StaticMigFileError> {
    let path = || file.path.clone();
    let text =
        std::fs::read_to_string(&file.path).map_err(|source| StaticMigFileError::Read { path: path(), source })?;
    let documents = yaml::documents(&text).map_err(|source| StaticMigFileError::Syntax { path: path(), source })?;
    let [document] = documents.as_slice() else {
        return Err(StaticMigFileError::Documents { path: path(), count: documents.len() });
    };
    let parsed = layouts::read_one(&Field::new("", document), file.config.as_deref());
    parsed.map_err(|source| StaticMigFileError::Layouts { path: path(), source })
}

#[cfg(test)]
mod tests {
    use dra_model::explain;

    use super::*;

    #[test]
    fn every_mistake_names_the_file_and_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let entry = "[{devices: all, mig-enabled: true, mig-devices: {1g.10gb: 7}}]";
        let outcome = |text: Option<&str>, config: Option<&str>| {
            let file = StaticMigFile { path: dir.path().join("config.yaml"), config: config.map(str::to_owned) };
            if let Some(text) = text {
                std::fs::write(&file.path, text).unwrap();
            }
            let path = dir.path().display().to_string();
            read(&file).map(|layouts| layouts.entries.len()).map_err(|error| explain(&error).replace(&path, "DIR"))
        };
        for (text, config, expect) in [
            (
                None,
                None,
                "failed to read the configuration of static MIG devices, DIR/config.yaml: No such file or directory",
            ),
            (Some("{"), None, "DIR/config.yaml is not YAML: "),
            (Some(""), None, "DIR/config.yaml has 0 documents, expected one configuration of mig-parted"),
            (
                Some("mig-configs: {}"),
                None,
                "DIR/config.yaml is not a valid configuration of mig-parted: version is missing",
            ),
            (
                Some(&format!("version: v1\nmig-configs: {{a: {entry}, b: {entry}}}")),
                None,
                "mig-configs has several configurations: \"a\", \"b\"; choose one of them with --static-mig-config",
            ),
            (
                None,
                Some("c"),
                "mig-configs has no configuration named \"c\", only \"a\", \"b\"; choose one of them with",
            ),
        ] {
            let error = outcome(text, config).unwrap_err();
            assert!(error.contains(expect), "{error}");
        }
        assert_eq!(outcome(None, Some("b")), Ok(1));
    }
}
