// SPDX-License-Identifier: Apache-2.0
//! Files of the repository and values of the chart that a document names exist.

use dra_tests::source::root_dir;

use crate::invocation::values;
use crate::markdown::documents;

/// Whether a word is a path of a file of ours.
fn is_path(word: &str) -> bool {
    let ours = ["demo/", "deploy/", "docs/", "tests/tests/"].iter().any(|dir| word.starts_with(dir));
    ours && !word.contains([' ', '*', '…', '#', '{'])
}

/// Whether a word names a value of the chart that the chart does not have. `word` may end in `=VALUE`.
fn is_unknown_value(word: &str) -> bool {
    let path = word.split('=').next().unwrap_or(word);
    // Classes and files have such names, too.
    let is_other = path.ends_with(".nvidia.com") || path.contains(".json") || path.starts_with("sharing.strategy");
    let is_name = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric());
    let parts: Vec<&str> = path.split('.').collect();
    let first = values().get(parts[0]);
    if is_other
        || parts.len() < 2
        || !parts.iter().all(|part| is_name(part))
        || !first.is_some_and(serde_json::Value::is_object)
    {
        return false;
    }
    // Below an empty object the names are the user's.
    let mut value = values();
    for part in parts {
        match value.get(part) {
            Some(next) => value = next,
            None => return !value.as_object().is_some_and(serde_json::Map::is_empty),
        }
    }
    false
}

#[test]
fn every_file_and_value_that_a_document_names_exists() {
    let mut wrong = Vec::new();
    for document in documents() {
        // Names of earlier versions stay in the list of changes, and the chart for tenants has values of its own.
        if document.path.ends_with("CHANGELOG.md") || document.name().contains("tenants") {
            continue;
        }
        for span in &document.spans {
            if is_path(span) && !root_dir().join(span).exists() {
                wrong.push(format!("{}: there is no {span}", document.name()));
            }
            if is_unknown_value(span) {
                wrong.push(format!("{}: deploy/chart/values.yaml has no {span}", document.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_value_that_the_chart_lacks_is_found() {
    for unknown in ["mig.dynamc=false", "mps.enabled.x", "deviceClasses.gpu.resource"] {
        assert!(is_unknown_value(unknown), "{unknown}");
    }
    for other in ["mig.dynamic=false", "health.rules.lost", "limits.classes", "driver.root", "gpu.nvidia.com", "mig"] {
        assert!(!is_unknown_value(other), "{other}");
    }
}
