// SPDX-License-Identifier: Apache-2.0
//! Samples from the text of a metrics endpoint (OpenMetrics 1.0). Only named series are read; the rest is passed over. Pure.

use std::collections::BTreeMap;

/// One value with its labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Sample {
    /// The value of a label; empty if it has none, which means the same.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// A line that is not in the format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {number} of the metrics is malformed: {line}")]
pub struct Malformed {
    number: usize,
    line: String,
}

/// The samples whose names begin with `prefix`, without it.
pub fn samples(text: &str, prefix: &str) -> Result<Vec<Sample>, Malformed> {
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if let Some(rest) = line.strip_prefix(prefix) {
            let malformed = || Malformed { number: at + 1, line: line.chars().take(80).collect() };
            found.push(sample(rest).ok_or_else(malformed)?);
        }
    }
    Ok(found)
}

/// `name{label="value",…} number`, after which a time may follow.
fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at_checked(end)?;
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inner) => labels(inner)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest.strip_prefix(' ')?.split(' ').next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// The labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, after) = rest.split_once("=\"")?;
        let (value, after) = quoted(after)?;
        labels.insert(name.to_owned(), value);
        rest = after.strip_prefix(',').unwrap_or(after);
    }
}

/// The text up to the closing quote, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, found)) = chars.next() {
        match found {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_series_are_read_and_others_passed_over() {
        let text = "# HELP x_a help\n# TYPE x_a gauge\nx_a{device=\"gpu-1\",note=\"a \\\"b\\\" \\\\ }, c\"} 0.5\nother{ 1\nx_b 2e9 1700000000\nx_c{} NaN\n# EOF\n";
        let found = samples(text, "x_").unwrap();
        let names: Vec<&str> = found.iter().map(|sample| sample.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(
            (found[0].label("device"), found[0].label("note"), found[0].label("none")),
            ("gpu-1", r#"a "b" \ }, c"#, "")
        );
        assert!(
            found[0].value.total_cmp(&0.5).is_eq() && found[1].value.total_cmp(&2e9).is_eq() && found[2].value.is_nan()
        );
    }

    #[test]
    fn a_line_that_is_cut_is_named() {
        for line in ["x_a", "x_a{", "x_a{b=\"c", "x_a{b=\"c\"}", "x_a{b=\"c\"} y", "x_a{b} 1"] {
            let error = samples(&format!("# TYPE\n{line}\n"), "x_").unwrap_err();
            assert_eq!(error.to_string(), format!("line 2 of the metrics is malformed: {line}"));
        }
    }
}
