// SPDX-License-Identifier: Apache-2.0
//! Objects that can be made, changed and removed; a taint rule without effect gets the counts of the eviction controller.

use std::collections::BTreeMap;
use std::sync::Mutex;

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Lists and objects by their paths.
pub(crate) type Stored = BTreeMap<String, Value>;

/// What Kubernetes 1.37 writes about a rule whose device one pod uses.
pub(crate) const COUNTED: &str = "1 published device selected. 1 allocated device selected. 1 pod would be evicted in 1 namespace if the effect was NoExecute.";

pub(crate) fn json_body(body: &Value) -> impl IntoResponse + use<> {
    ([(header::CONTENT_TYPE, "application/json")], body.to_string())
}

/// A list, an object, or an object of a list.
pub(crate) fn find(stored: &Stored, path: &str) -> Option<Value> {
    let of_list = || {
        let (list, name) = path.rsplit_once('/')?;
        let items = stored.get(list)?.as_array()?;
        items.iter().find(|item| item["metadata"]["name"] == name).cloned()
    };
    stored.get(path).cloned().or_else(of_list)
}

/// An object that is not in its list does not exist; what has no list is forbidden.
pub(crate) fn refused(stored: &Stored, path: &str) -> Response {
    let has_list = path.rsplit_once('/').is_some_and(|(list, _)| stored.get(list).is_some_and(Value::is_array));
    if has_list { StatusCode::NOT_FOUND.into_response() } else { forbidden() }
}

fn forbidden() -> Response {
    let status = json!({"kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403, "message": "no"});
    (StatusCode::FORBIDDEN, json_body(&status)).into_response()
}

pub(crate) async fn change(stored: &Mutex<Stored>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let path = head.uri.path();
    let mut stored = stored.lock().unwrap();
    if head.method == Method::POST {
        let Some(list) = stored.get_mut(path).and_then(Value::as_array_mut) else { return forbidden() };
        let made = made(serde_json::from_slice(&body).unwrap(), list.len());
        list.push(made.clone());
        return (StatusCode::CREATED, json_body(&made)).into_response();
    }
    let (list, name) = path.rsplit_once('/').unwrap();
    let Some(list) = stored.get_mut(list).and_then(Value::as_array_mut) else { return forbidden() };
    let at = list.iter().position(|item| item["metadata"]["name"] == name);
    let Some(at) = at else { return StatusCode::NOT_FOUND.into_response() };
    if head.method == Method::DELETE {
        return json_body(&list.remove(at)).into_response();
    }
    merge(&mut list[at], &serde_json::from_slice(&body).unwrap());
    json_body(&list[at]).into_response()
}

fn made(mut object: Value, number: usize) -> Value {
    let name = format!("{}{number}", object["metadata"]["generateName"].as_str().unwrap());
    object["metadata"]["name"] = json!(name);
    object["metadata"]["generation"] = json!(1);
    object["metadata"]["creationTimestamp"] = json!("2026-11-30T11:00:00Z");
    if object["spec"]["taint"]["effect"] == "None" {
        let message = format!("{COUNTED} This information will not be updated again.");
        let condition =
            json!({"type": "EvictionInProgress", "status": "False", "message": message, "observedGeneration": 1});
        object["status"] = json!({"conditions": [condition]});
    }
    object
}

/// As RFC 7386.
pub(crate) fn merge(object: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *object = patch.clone();
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut object[key.as_str()], value);
        }
    }
}
