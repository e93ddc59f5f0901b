// SPDX-License-Identifier: Apache-2.0
//! Reads what a request is about from its method, path and query, the way the API server's `RequestInfo` does.

use std::collections::BTreeMap;

use axum::http::{Method, Uri};
use serde_json::Value;

use super::key::{Key, Resource};

/// What a client wants to do; the words of RBAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// Read one object.
    Get,
    /// Read all objects.
    List,
    /// Follow changes.
    Watch,
    /// Make an object.
    Create,
    /// Replace an object.
    Update,
    /// Change a part of an object.
    Patch,
    /// Remove an object.
    Delete,
    /// Remove all objects a selector names.
    DeleteCollection,
}

/// A request for objects.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) verb: Verb,
    pub(super) resource: Resource,
    pub(super) namespace: String,
    /// Empty for requests about all objects.
    pub(super) name: String,
    pub(super) status: bool,
    pub(super) query: BTreeMap<String, String>,
}

impl Request {
    /// `None` for paths this server does not have.
    pub(super) fn parse(method: &Method, uri: &Uri) -> Option<Self> {
        let segments: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
        let (["api", "v1", rest @ ..]
        | ["apis", "resource.k8s.io" | "events.k8s.io" | "coordination.k8s.io", "v1", rest @ ..]) = segments.as_slice()
        else {
            return None;
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] => (*namespace, rest),
            rest => ("", rest),
        };
        let (kind, name, status) = match rest {
            [kind] => (*kind, "", false),
            [kind, name] => (*kind, *name, false),
            [kind, name, "status"] => (*kind, *name, true),
            _ => return None,
        };
        let resource = match kind {
            "nodes" => Resource::Nodes,
            "resourceclaims" => Resource::ResourceClaims,
            "resourceslices" => Resource::ResourceSlices,
            "events" => Resource::Events,
            "leases" => Resource::Leases,
            _ => return None,
        };
        let query = query(uri.query().unwrap_or_default());
        let verb = verb(method, name.is_empty(), query.get("watch").is_some_and(|watch| watch == "true"))?;
        Some(Self { verb, resource, namespace: namespace.to_owned(), name: name.to_owned(), status, query })
    }

    pub(super) fn key(&self) -> Key {
        Key { resource: self.resource, namespace: self.namespace.clone(), name: self.name.clone() }
    }

    /// Whether the field selector takes an object.
    pub(super) fn selects(&self, object: &Value) -> bool {
        let terms =
            self.query.get("fieldSelector").map_or("", String::as_str).split(',').filter(|term| !term.is_empty());
        terms.filter_map(|term| term.split_once('=')).all(|(field, wanted)| {
            let found =
                object.pointer(&format!("/{}", field.replace('.', "/"))).and_then(Value::as_str).unwrap_or_default();
            found == wanted.trim_start_matches('=')
        })
    }

    /// Whether nothing is to be stored; only creates are tried like that here.
    pub(super) fn is_dry_run(&self) -> bool {
        self.query.contains_key("dryRun")
    }

    /// Where a watch begins.
    pub(super) fn revision(&self) -> u64 {
        self.query.get("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

fn verb(method: &Method, all: bool, watch: bool) -> Option<Verb> {
    Some(match (method.as_str(), all) {
        ("GET", true) if watch => Verb::Watch,
        ("GET", true) => Verb::List,
        ("GET", false) => Verb::Get,
        ("POST", true) => Verb::Create,
        ("PUT", false) => Verb::Update,
        ("PATCH", false) => Verb::Patch,
        ("DELETE", false) => Verb::Delete,
        ("DELETE", true) => Verb::DeleteCollection,
        _ => return None,
    })
}

fn query(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decode(name), decode(value))).collect()
}

/// Percent decoding; what is no valid escape stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = (*first == b'%').then(|| tail.get(..2)).flatten();
        let escaped = escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(escaped.unwrap_or(if *first == b'+' { b' ' } else { *first }));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_rbac_reads_them() {
        for (method, uri, expect) in [
            (Method::GET, "/api/v1/nodes/n1", Some((Verb::Get, Resource::Nodes, "", "n1", false))),
            (
                Method::GET,
                "/apis/resource.k8s.io/v1/resourceslices?watch=true",
                Some((Verb::Watch, Resource::ResourceSlices, "", "", false)),
            ),
            (
                Method::PATCH,
                "/apis/resource.k8s.io/v1/namespaces/ns/resourceclaims/c/status?force=true",
                Some((Verb::Patch, Resource::ResourceClaims, "ns", "c", true)),
            ),
            (
                Method::DELETE,
                "/apis/resource.k8s.io/v1/resourceslices",
                Some((Verb::DeleteCollection, Resource::ResourceSlices, "", "", false)),
            ),
            (
                Method::POST,
                "/apis/events.k8s.io/v1/namespaces/ns/events",
                Some((Verb::Create, Resource::Events, "ns", "", false)),
            ),
            (Method::GET, "/api/v1/pods", None),
        ] {
            let request = Request::parse(&method, &uri.parse().unwrap());
            let read = request.as_ref().map(|r| (r.verb, r.resource, r.namespace.as_str(), r.name.as_str(), r.status));
            assert_eq!(read, expect, "{uri}");
        }
    }

    #[test]
    fn selectors_compare_fields() {
        let uri = "/apis/resource.k8s.io/v1/resourceslices?fieldSelector=spec.driver%3Dd%2Cspec.nodeName%3Dn";
        let request = Request::parse(&Method::GET, &uri.parse().unwrap()).unwrap();
        assert!(request.selects(&serde_json::json!({"spec": {"driver": "d", "nodeName": "n"}})));
        assert!(!request.selects(&serde_json::json!({"spec": {"driver": "d"}})));
    }
}
