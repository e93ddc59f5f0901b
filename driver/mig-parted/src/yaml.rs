// SPDX-License-Identifier: Apache-2.0
//! Parses YAML, with the line in every error.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use dra_model::Advice;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{Error, Options, Spanned, UserMessageFormatter};

/// Invalid YAML.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum YamlError {
    #[error("duplicate key {key:?} in lines {first} and {second}")]
    DuplicateKey { key: String, first: u64, second: u64 },
    #[error("{0}")]
    Syntax(String),
}

impl Advice for YamlError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::DuplicateKey { .. } => Some("remove one of them".into()),
            Self::Syntax(_) => None,
        }
    }
}

/// The documents of a text that are not empty.
pub fn documents(text: &str) -> Result<Vec<Value>, YamlError> {
    serde_saphyr::from_multiple_with_options(text, options(DuplicateKeyPolicy::Error)).map_err(|error| {
        let duplicate = matches!(error.without_snippet(), Error::DuplicateMappingKey { .. }).then(|| duplicate(text));
        duplicate.flatten().unwrap_or_else(|| YamlError::Syntax(error.render_with_formatter(&UserMessageFormatter)))
    })
}

/// Error texts without the lines of the input, which may have any content.
fn options(duplicate_keys: DuplicateKeyPolicy) -> Options {
    serde_saphyr::options! { with_snippet: false, duplicate_keys: duplicate_keys }
}

/// The first duplicate key.
fn duplicate(text: &str) -> Option<YamlError> {
    let options = options(DuplicateKeyPolicy::PassThrough);
    let documents: Vec<DuplicateKey> = serde_saphyr::from_multiple_with_options(text, options).ok()?;
    documents.into_iter().find_map(|DuplicateKey(duplicate)| duplicate)
}

/// A value that is parsed only for its first duplicate key.
struct DuplicateKey(Option<YamlError>);

impl<'de> Deserialize<'de> for DuplicateKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DuplicateKeyVisitor)
    }
}

struct DuplicateKeyVisitor;

impl<'de> Visitor<'de> for DuplicateKeyVisitor {
    type Value = DuplicateKey;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<DuplicateKey, A::Error> {
        let mut lines: BTreeMap<String, u64> = BTreeMap::new();
        let mut found = None;
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let second = key.referenced.line();
            let key = key.value;
            if let Some(first) = lines.insert(key.clone(), second) {
                found = found.or(Some(YamlError::DuplicateKey { key, first, second }));
            }
            let DuplicateKey(inside) = map.next_value()?;
            found = found.or(inside);
        }
        Ok(DuplicateKey(found))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<DuplicateKey, A::Error> {
        let mut found = None;
        while let Some(DuplicateKey(inside)) = seq.next_element()? {
            found = found.or(inside);
        }
        Ok(DuplicateKey(found))
    }

    fn visit_bool<E>(self, _: bool) -> Result<DuplicateKey, E> {
        Ok(DuplicateKey(None))
    }

    fn visit_i64<E>(self, _: i64) -> Result<DuplicateKey, E> {
        Ok(DuplicateKey(None))
    }

    fn visit_u64<E>(self, _: u64) -> Result<DuplicateKey, E> {
        Ok(DuplicateKey(None))
    }

    fn visit_f64<E>(self, _: f64) -> Result<DuplicateKey, E> {
        Ok(DuplicateKey(None))
    }

    fn visit_str<E>(self, _: &str) -> Result<DuplicateKey, E> {
        Ok(DuplicateKey(None))
    }

    fn visit_unit<E>(self) -> Result<DuplicateKey, E> {
        Ok(DuplicateKey(None))
    }
}
