// SPDX-License-Identifier: Apache-2.0
//! Removes from objects and logs what may be a secret. Pure.

use serde_json::Value;

const REMOVED: &str = "REMOVED";

/// Variables that the chart sets, whose values are paths and names.
const KNOWN_VARIABLES: [&str; 12] = [
    "CDI_HOOK_DIR",
    "CDI_ROOT",
    "DRIVER_NAME",
    "DRIVER_ROOT",
    "DRIVER_ROOT_HOST",
    "HTTP_ADDRESS",
    "KUBELET_ROOT_DIR",
    "NODE_NAME",
    "POD_NAMESPACE",
    "PROC_ROOT",
    "RUST_LOG",
    "SYS_ROOT",
];

/// An object or a list as JSON, without annotations, managed fields and the values of unknown environment variables.
pub(super) fn json(object: &str) -> String {
    match serde_json::from_str::<Value>(object) {
        Ok(mut value) => {
            clean(&mut value);
            text(&format!("{value:#}\n"))
        }
        Err(_) => text(object),
    }
}

fn clean(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("managedFields");
            fields.remove("annotations");
            if let Some(Value::Array(variables)) = fields.get_mut("env") {
                variables.iter_mut().for_each(clean_variable);
            }
            fields.values_mut().for_each(clean);
        }
        Value::Array(items) => items.iter_mut().for_each(clean),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn clean_variable(variable: &mut Value) {
    let name = variable.get("name").and_then(Value::as_str).unwrap_or_default();
    let is_known = KNOWN_VARIABLES.contains(&name);
    if let Some(value) = variable.get_mut("value").filter(|_| !is_known) {
        *value = Value::from(REMOVED);
    }
}

/// Text without words that have the form of a token, and without what follows the words that announce one.
pub(super) fn text(text: &str) -> String {
    let lines = text.split_inclusive('\n').map(|line| {
        let mut after_secret = false;
        let words = line.split_inclusive(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ','));
        let cleaned = words.map(|word| {
            let end = word.trim_end_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ','));
            let rest = word.get(end.len()..).unwrap_or_default();
            let is_secret = is_token(end) || (after_secret && !end.is_empty());
            after_secret = (after_secret && end.is_empty()) || announces(end);
            match end.split_once('=').filter(|(name, value)| !value.is_empty() && announces(name)) {
                Some((name, _)) => format!("{name}={REMOVED}{rest}"),
                None if is_secret => format!("{REMOVED}{rest}"),
                None => word.to_owned(),
            }
        });
        cleaned.collect::<String>()
    });
    lines.collect()
}

/// A JSON web token, such as that of a service account.
fn is_token(word: &str) -> bool {
    word.split(['=', ':', '(', ')']).any(|part| part.starts_with("eyJ") && part.len() > 20)
}

fn announces(word: &str) -> bool {
    let word = word.trim_end_matches([':', '=']).to_ascii_lowercase();
    ["bearer", "password", "token", "authorization"].contains(&word.trim_start_matches('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJpc3MiOiJrIn0.c2ln";

    #[test]
    fn objects_lose_what_may_be_a_secret() {
        let object = format!(
            r#"{{"metadata": {{"annotations": {{"a": "hunter2"}}, "managedFields": ["hunter2"], "name": "p"}},
            "spec": {{"containers": [{{"env": [{{"name": "PASS", "value": "hunter2"}}, {{"name": "DRIVER_ROOT", "value": "/r"}},
            {{"name": "REF", "valueFrom": {{"secretKeyRef": {{"name": "s"}}}}}}]}}], "note": "{TOKEN}"}}}}"#
        );
        let found = json(&object);
        assert!(!found.contains("hunter2") && !found.contains("eyJ"), "{found}");
        for expect in [r#""name": "p""#, r#""value": "REMOVED""#, r#""value": "/r""#, "secretKeyRef"] {
            assert!(found.contains(expect), "{expect} in {found}");
        }
    }

    #[test]
    fn logs_lose_tokens_and_nothing_else() {
        for (line, expect) in [
            ("level=info node=n driver=\"580.95\"\n", "level=info node=n driver=\"580.95\"\n"),
            ("Authorization: Bearer abc.def ok\n", "Authorization: REMOVED REMOVED ok\n"),
            ("password=hunter2, next\n", "password=REMOVED, next\n"),
            ("the token is fine", "the token REMOVED fine"),
        ] {
            assert_eq!(text(line), expect);
        }
        assert_eq!(text(&format!("got t={TOKEN} (x)\n")), "got REMOVED (x)\n");
        assert_eq!(json("not json"), "not json");
    }
}
