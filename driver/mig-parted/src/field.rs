// SPDX-License-Identifier: Apache-2.0
//! Reads YAML values strictly, with the path of the field in every error.
//!
//! Paths are printed in comments and on terminals, so keys with other characters than those of a word are quoted and escaped.

use serde_json::Value;

/// A value with its path.
#[derive(Debug, Clone)]
pub struct Field<'a> {
    /// `sharing.timeSlicing.resources[0].name`.
    pub path: String,
    pub value: &'a Value,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path} is {found}, expected {wanted}")]
pub struct TypeError {
    path: String,
    found: &'static str,
    wanted: &'static str,
}

impl<'a> Field<'a> {
    /// `path` is empty for a whole document.
    pub fn new(path: &str, value: &'a Value) -> Self {
        Self { path: path.to_owned(), value }
    }

    /// The entries of a mapping; none for null, which is an empty section in YAML.
    pub fn entries(&self) -> Result<Vec<(&'a str, Self)>, TypeError> {
        if self.value.is_null() {
            return Ok(Vec::new());
        }
        let entries = self.value.as_object().ok_or_else(|| self.is_not("a mapping"))?;
        Ok(entries.iter().map(|(key, value)| (key.as_str(), self.entry(key, value))).collect())
    }

    /// The items of a list; none for null.
    pub fn items(&self) -> Result<Vec<Self>, TypeError> {
        if self.value.is_null() {
            return Ok(Vec::new());
        }
        let items = self.value.as_array().ok_or_else(|| self.is_not("a list"))?.iter().enumerate();
        Ok(items.map(|(index, value)| Self { path: format!("{}[{index}]", self.path), value }).collect())
    }

    /// The value below these keys, if all exist.
    pub fn at(&self, keys: &[&str]) -> Option<Self> {
        let Some((key, keys)) = keys.split_first() else { return Some(self.clone()) };
        self.entry(key, self.value.get(key)?).at(keys)
    }

    /// A string; nothing for null, which the plugin treats as an absent key.
    pub fn text(&self) -> Result<Option<&'a str>, TypeError> {
        self.unless_empty(Value::as_str, "a string")
    }

    /// A boolean; nothing for null.
    pub fn flag(&self) -> Result<Option<bool>, TypeError> {
        self.unless_empty(Value::as_bool, "true or false")
    }

    /// A whole number, also if written as 4.0; nothing for null.
    pub fn number(&self) -> Result<Option<i64>, TypeError> {
        self.unless_empty(|value| value.as_i64().or_else(|| whole(value.as_f64()?)), "a whole number")
    }

    fn unless_empty<T>(
        &self,
        read: impl Fn(&'a Value) -> Option<T>,
        wanted: &'static str,
    ) -> Result<Option<T>, TypeError> {
        if self.value.is_null() {
            return Ok(None);
        }
        read(self.value).map(Some).ok_or_else(|| self.is_not(wanted))
    }

    fn entry(&self, key: &str, value: &'a Value) -> Self {
        Self { path: self.path_below(key), value }
    }

    /// The path of a key that may be absent.
    pub fn path_below(&self, key: &str) -> String {
        match (is_word(key), self.path.is_empty()) {
            (true, true) => key.to_owned(),
            (true, false) => format!("{}.{key}", self.path),
            (false, _) => format!("{}[{key:?}]", self.path),
        }
    }

    pub fn is_not(&self, wanted: &'static str) -> TypeError {
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

/// The integer value of a float. Beyond 2^53 it may differ from the written number.
fn whole(number: f64) -> Option<i64> {
    let is_exact = number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0;
    is_exact.then(|| format!("{number:.0}").parse().ok()).flatten()
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
        assert_eq!(items[1].number().unwrap_err().to_string(), r#"a["b c"][1] is a string, expected a whole number"#);
    }

    #[test]
    fn keys_cannot_start_a_new_line() {
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

    #[test]
    fn whole_numbers_may_be_written_as_floats() {
        let number = |value| Field::new("", &value).number();
        assert_eq!(number(json!(4.0)), Ok(Some(4)));
        assert_eq!(number(json!(-1e3)), Ok(Some(-1000)));
        assert_eq!(number(json!(null)), Ok(None));
        for value in [json!(4.5), json!(1e300), json!(9_007_199_254_740_993.0), json!("4")] {
            assert!(number(value.clone()).is_err(), "{value}");
        }
    }

    #[test]
    fn what_is_below_is_found_with_its_path() {
        let document = json!({"a": {"b c": [1]}});
        let whole = Field::new("", &document);
        assert_eq!(whole.at(&["a", "b c"]).unwrap().path, r#"a["b c"]"#);
        assert!(whole.at(&["a", "d"]).is_none() && whole.at(&["a", "b c", "e"]).is_none());
    }
}
