// SPDX-License-Identifier: Apache-2.0
//! One object of a configuration, read field by field. Every error names the path of its field. Pure.

use serde_json::{Map, Value};

use super::error::ConfigError;
use super::kind::ConfigKind;

/// An object and its path.
pub(super) struct Fields<'a> {
    /// The path of the object and a dot; empty for the parameters themselves.
    prefix: String,
    values: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The parameters themselves.
    pub(super) fn of(values: &'a Map<String, Value>) -> Self {
        Self { prefix: String::new(), values }
    }

    /// The path of a field of this object.
    pub(super) fn path(&self, name: &str) -> String {
        format!("{}{}", self.prefix, printable(name))
    }

    /// A field that must be there.
    pub(super) fn required<T>(
        &self,
        name: &str,
        expected: &'static str,
        accept: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<T, ConfigError> {
        let value = self.values.get(name).ok_or_else(|| ConfigError::Missing { path: self.path(name), expected })?;
        accept(value).ok_or_else(|| self.unexpected(name, value, expected))
    }

    /// A field that may be absent; null is absent.
    pub(super) fn optional<T>(
        &self,
        name: &str,
        expected: &'static str,
        accept: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let value = self.values.get(name).filter(|value| !value.is_null());
        let accept = |value| accept(value).ok_or_else(|| self.unexpected(name, value, expected));
        value.map(accept).transpose()
    }

    /// An object that may be absent; null is absent.
    pub(super) fn object(&self, name: &str) -> Result<Option<Self>, ConfigError> {
        let value = self.values.get(name).filter(|value| !value.is_null());
        let object = |value: &'a Value| match value {
            Value::Object(values) => Ok(Self { prefix: format!("{}.", self.path(name)), values }),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Err(self.unexpected(name, value, "an object"))
            }
        };
        value.map(object).transpose()
    }

    /// Refuses a field that is none of these.
    pub(super) fn only(&self, kind: ConfigKind, known: &[&str]) -> Result<(), ConfigError> {
        match self.names().find(|name| !known.contains(name)) {
            None => Ok(()),
            Some(unknown) => Err(ConfigError::UnknownField { path: self.path(unknown), kind }),
        }
    }

    /// The names of all fields.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.values.keys().map(String::as_str)
    }

    fn unexpected(&self, name: &str, value: &Value, expected: &'static str) -> ConfigError {
        ConfigError::Unexpected { path: self.path(name), found: printable(&value.to_string()), expected }
    }
}

/// The first 80 characters of a text of a user, escaped to one line of ASCII, for logs and Events.
pub(super) fn printable(text: &str) -> String {
    let escape = |letter: char| {
        if matches!(letter, ' '..='~') { letter.to_string() } else { letter.escape_default().to_string() }
    };
    text.chars().take(80).map(escape).collect()
}
