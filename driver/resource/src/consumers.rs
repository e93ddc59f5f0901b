// SPDX-License-Identifier: Apache-2.0
//! The pods that a ResourceClaim is reserved for.

use std::borrow::Cow;

use serde::Deserialize;

/// A pod in the namespace of the claim.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Consumer {
    pub pod: String,
    pub uid: String,
}

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow)]
    status: Option<Status<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    #[serde(borrow)]
    reserved_for: Option<Vec<Reference<'a>>>,
}

#[derive(Deserialize)]
struct Reference<'a> {
    #[serde(borrow)]
    resource: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    uid: Cow<'a, str>,
}

/// The pods in `status.reservedFor`, at most 256 by the API; none of JSON that is not a claim.
pub fn consumers_of(json: &[u8]) -> Vec<Consumer> {
    let Ok(Object { status }) = serde_json::from_slice::<Object<'_>>(json) else { return Vec::new() };
    let references = status.and_then(|status| status.reserved_for).unwrap_or_default().into_iter();
    let pods = references.filter(|reference| reference.resource == "pods");
    pods.map(|pod| Consumer { pod: pod.name.into_owned(), uid: pod.uid.into_owned() }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_are_found_and_other_consumers_are_not() {
        let reference = |resource: &str, name: &str| json!({"resource": resource, "name": name, "uid": "u"});
        let claim = json!({
            "metadata": {"name": "a", "managedFields": [{"x": 1}]},
            "status": {"allocation": {}, "reservedFor": [reference("pods", "train-0"), reference("podgroups", "train")]},
        });
        let found = consumers_of(claim.to_string().as_bytes());
        assert_eq!(found, [Consumer { pod: "train-0".to_owned(), uid: "u".to_owned() }]);
        for without in [json!({}), json!({"status": {}}), json!({"status": {"reservedFor": null}}), json!([1])] {
            assert_eq!(consumers_of(without.to_string().as_bytes()), []);
        }
    }
}
