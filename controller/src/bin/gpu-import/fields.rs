// SPDX-License-Identifier: Apache-2.0
//! Reads foreign YAML strictly, with the path of the field in every error.
//!
//! Paths end up in comments and on terminals, so keys that are more than a word are shown quoted and escaped.

use serde_json::Value;

/// A value and where it is.
#[derive(Debug, Clone)]
pub(crate) struct Field<'a> {
    /// `sharing.timeSlicing.resources[0].name`.
    pub(crate) path: String,
    /// What is there.
    pub(crate) value: &'a Value,
}

/// A value of another type than its reader needs.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path} is {found}, but must be {wanted}")]
pub(crate) struct TypeError {
    path: String,
    found: &'static str,
    wanted: &'static str,
}

impl<'a> Field<'a> {
    /// The value at `path`, which is empty for a whole document.
    pub(crate) fn new(path: &str, value: &'a Value) -> Self {
        Self { path: path.to_owned(), value }
    }

    /// The entries of a mapping; none of a null, which is how an empty section is read from YAML.
    pub(crate) fn entries(&self) -> Result<Vec<(&'a str, Self)>, TypeError> {
        if self.value.is_null() {
            return Ok(Vec::new());
        }
        let entries = self.value.as_object().ok_or_else(|| self.is_not("a mapping"))?;
        Ok(entries.iter().map(|(key, value)| (key.as_str(), self.entry(key, value))).collect())
    }

    /// The items of a list; none of a null.
    pub(crate) fn items(&self) -> Result<Vec<Self>, TypeError> {
        if self.value.is_null() {
            return Ok(Vec::new());
        }
        let items = self.value.as_array().ok_or_else(|| self.is_not("a list"))?.iter().enumerate();
        Ok(items.map(|(index, value)| Self { path: format!("{}[{index}]", self.path), value }).collect())
    }

    pub(crate) fn text(&self) -> Result<&'a str, TypeError> {
        self.value.as_str().ok_or_else(|| self.is_not("a string"))
    }

    pub(crate) fn flag(&self) -> Result<bool, TypeError> {
        self.value.as_bool().ok_or_else(|| self.is_not("true or false"))
    }

    pub(crate) fn number(&self) -> Result<i64, TypeError> {
        self.value.as_i64().ok_or_else(|| self.is_not("a whole number"))
    }

    fn entry(&self, key: &str, value: &'a Value) -> Self {
        let path = match (is_word(key), self.path.is_empty()) {
            (true, true) => key.to_owned(),
            (true, false) => format!("{}.{key}", self.path),
            (false, _) => format!("{}[{key:?}]", self.path),
        };
        Self { path, value }
    }

    fn is_not(&self, wanted: &'static str) -> TypeError {
        let found = match self.value {
            Value::Null => "empty",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
            Value::Object(_) => "a mapping",
        };
        let path = if self.path.is_empty() { "the document".to_owned() } else { self.path.clone() };
        TypeError { path, found, wanted }
    }
}

fn is_word(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_to_the_field() {
        let document = json!({"a": {"b c": [1, "x"]}});
        let a = &Field::new("", &document).entries().unwrap()[0].1;
        let b = &a.entries().unwrap()[0].1;
        let items = b.items().unwrap();
        assert_eq!(items[1].path, r#"a["b c"][1]"#);
        assert_eq!(
            items[1].number().unwrap_err().to_string(),
            r#"a["b c"][1] is a string, but must be a whole number"#
        );
    }

    #[test]
    fn keys_cannot_begin_a_line_of_their_own() {
        for key in ["a\nb", "a\u{85}b", "a\u{2028}b", "\u{1b}[2J"] {
            let document = json!({ key: 1 });
            let path = Field::new("", &document).entries().unwrap()[0].1.path.clone();
            assert!(path.chars().all(|c| c.is_ascii_graphic()), "{path:?}");
        }
    }

    #[test]
    fn other_types_are_errors() {
        let values = [json!(true), json!(1.5), json!("x"), json!([]), json!({})];
        let accepted =
            |read: fn(&Field<'_>) -> bool| values.iter().filter(|value| read(&Field::new("", value))).count();
        assert_eq!(accepted(|field| field.entries().is_ok()), 1);
        assert_eq!(accepted(|field| field.items().is_ok()), 1);
        assert_eq!(accepted(|field| field.text().is_ok()), 1);
        assert_eq!(accepted(|field| field.flag().is_ok()), 1);
        assert_eq!(accepted(|field| field.number().is_ok()), 0);
    }
}
