// SPDX-License-Identifier: Apache-2.0
//! Converts the configurations that NVIDIA's components on the cluster use.

use std::borrow::Cow;
use std::collections::BTreeSet;

use dra_explain::reading;
use dra_explain::request::{ReadError, Resource};
use dra_import::document::{self, DocumentError};
use dra_import::files::FileKind;
use dra_import::import::{self, ImportError, Imported, Selection};
use dra_import::plan::{Cluster as Known, Memory};
use dra_import::published;
use dra_model::Advice;
use dra_resource::DriverName;
use kube::Client;
use serde_json::{Value, json};

use super::reading::items;
use crate::args::migrate::Conversion;
use crate::migrate::Cluster;

/// The configurations are not converted.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    #[error("failed to read the cluster")]
    Read(#[source] ReadError),
    #[error("--driver-name {name} is not the name of a driver")]
    DriverName { name: String },
    #[error("none of NVIDIA's components on the cluster has a configuration of shares or of MIG devices")]
    Nothing,
    #[error("failed to convert ConfigMap {name}")]
    Import { name: String, source: ImportError },
}

impl Advice for ConvertError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Read(source) => source.advice(),
            Self::DriverName { .. } => None,
            Self::Nothing => Some("there is nothing to convert: whole GPUs need no values and no objects".into()),
            Self::Import { source, .. } => source.advice(),
        }
    }
}

/// The objects or the values of the chart, as YAML.
pub(super) async fn converted(client: &Client, cluster: &Cluster, args: &Conversion) -> Result<String, ConvertError> {
    let driver: DriverName =
        cluster.driver.parse().map_err(|_invalid| ConvertError::DriverName { name: cluster.driver.clone() })?;
    let known = Known { memory: memory(client, &driver).await?, ..Known::default() };
    let named = cluster.components.iter().flat_map(|one| one.config_maps.iter().map(|map| (&one.namespace, map)));
    let named: BTreeSet<(&String, &String)> = named.collect();
    let mut texts = Vec::new();
    for (namespace, name) in named {
        let resource = Resource::core("configmaps", Some(namespace));
        let found = reading::json(client, &resource, name).await.map_err(ConvertError::Read)?;
        let Some(mut found) = found else { continue };
        if let Some(fields) = found.as_object_mut() {
            fields.insert("kind".to_owned(), json!("ConfigMap"));
        }
        texts.extend(convert(&format!("{namespace}/{name}"), &found, &known, &driver, args)?);
    }
    if texts.is_empty() { Err(ConvertError::Nothing) } else { Ok(texts.join("---\n")) }
}

/// Nothing for a ConfigMap without a configuration, such as one with scripts.
fn convert(
    name: &str,
    config_map: &Value,
    known: &Known,
    driver: &DriverName,
    args: &Conversion,
) -> Result<Option<String>, ConvertError> {
    let files = config_map.get("data").and_then(Value::as_object);
    if files.is_none_or(|files| files.values().all(|file| file.as_str().is_none_or(|text| text.starts_with("#!")))) {
        return Ok(None);
    }
    let text = config_map.to_string();
    let kind = match document::read(&text, None, None) {
        Ok(document) => Some(document.kind),
        Err(DocumentError::Empty) => return Ok(None),
        // The import names the cause.
        Err(_) => None,
    };
    let selection = match kind {
        Some(FileKind::MigLayouts) => Selection { file: None, mig_config: args.mig_config.as_deref() },
        Some(FileKind::Sharing) | None => Selection { file: args.config.as_deref(), mig_config: None },
    };
    let imported = import::import(&text, selection, known, driver);
    let Imported { objects, values, warnings } =
        imported.map_err(|source| ConvertError::Import { name: name.to_owned(), source })?;
    let heading = format!("# ConfigMap {name}\n");
    if args.values {
        let warnings: Vec<String> = warnings.iter().map(|warning| format!("# Warning: {warning}\n")).collect();
        return Ok(Some(heading + &warnings.concat() + &values));
    }
    Ok(Some(heading + &objects))
}

/// The memory of GPUs that are published already, for shares of it.
async fn memory(client: &Client, driver: &DriverName) -> Result<Memory, ConvertError> {
    let slices = items::<Value>(client, Resource::dra("resourceslices", None)).await.map_err(ConvertError::Read)?;
    let list = json!({"items": slices}).to_string();
    Ok(published::read(&list, driver).map_or(Memory::Unknown, Memory::Published))
}
