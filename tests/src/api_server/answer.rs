// SPDX-License-Identifier: Apache-2.0
//! Answers requests from the objects, as JSON over HTTP.

use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request as HttpRequest, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde_json::{Value, json};

use super::key::Resource;
use super::objects::{Objects, Preconditions};
use super::patch::merge;
use super::refusal::Refusal;
use super::request::{Request, Verb};
use super::shared::Shared;

/// No object of a real cluster is larger.
const LARGEST_BODY: usize = 3 << 20;

/// Answers one request.
pub(super) async fn answer(State(shared): State<Arc<Shared>>, request: HttpRequest) -> Response {
    let (head, body) = request.into_parts();
    if head.uri.path() == "/version" {
        return json_response(
            StatusCode::OK,
            &json!({"major": "1", "minor": "37", "gitVersion": "v1.37.0", "platform": "linux/amd64",
            "gitCommit": "", "gitTreeState": "clean", "buildDate": "", "goVersion": "", "compiler": "gc"}),
        );
    }
    let Some(parsed) = Request::parse(&head.method, &head.uri) else {
        return refusal(&Refusal::new(404, "NotFound", format!("the fake server has no {} {}", head.method, head.uri)));
    };
    if !parsed.is_dry_run() {
        shared.count(parsed.verb, parsed.resource);
    }
    if let Err(refused) = shared.conduct().await {
        return refusal(&refused);
    }
    let body = to_bytes(body, LARGEST_BODY).await.unwrap_or_default();
    if parsed.verb == Verb::Watch {
        return watch(shared, parsed);
    }
    let result = shared.change(|state| fulfil(&mut state.objects, &mut state.owners, &parsed, &body));
    match result {
        Ok(object) if parsed.verb == Verb::Create => json_response(StatusCode::CREATED, &object),
        Ok(object) => json_response(StatusCode::OK, &object),
        Err(refused) => refusal(&refused),
    }
}

fn fulfil(
    objects: &mut Objects,
    owners: &mut super::patch::Owners,
    request: &Request,
    body: &Bytes,
) -> Result<Value, Refusal> {
    let parse =
        || serde_json::from_slice::<Value>(body).map_err(|error| Refusal::new(400, "BadRequest", error.to_string()));
    match request.verb {
        Verb::Get => objects.get(&request.key()),
        Verb::List | Verb::Watch => Ok(list(objects, request)),
        Verb::Create if request.is_dry_run() => objects.tried(request.resource, &request.namespace, parse()?),
        Verb::Create => objects.create(request.resource, &request.namespace, parse()?),
        Verb::Update => objects.update(&request.key(), parse()?),
        Verb::Delete => objects.delete(&request.key(), &preconditions(&parse().unwrap_or_default())),
        Verb::DeleteCollection => delete_collection(objects, request),
        Verb::Patch => {
            let mut object = objects.get(&request.key())?;
            let patch = parse()?;
            let uid = &patch["metadata"]["uid"];
            if !uid.is_null() && *uid != object["metadata"]["uid"] {
                return Err(Refusal::new(409, "Conflict", "metadata.uid does not match: the object was replaced"));
            }
            match request.query.get("fieldManager") {
                Some(manager) if request.status => owners.apply(&request.key(), manager, &mut object, &patch)?,
                _ => merge(&mut object, &patch),
            }
            objects.update(&request.key(), object)
        }
    }
}

fn delete_collection(objects: &mut Objects, request: &Request) -> Result<Value, Refusal> {
    for object in objects.list(request.resource).iter().filter(|object| request.selects(object)) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        objects.delete(&super::Key { name, ..request.key() }, &Preconditions::default())?;
    }
    Ok(list(objects, request))
}

fn list(objects: &Objects, request: &Request) -> Value {
    let items: Vec<Value> = objects
        .list(request.resource)
        .into_iter()
        .filter(|object| request.namespace.is_empty() || object["metadata"]["namespace"] == *request.namespace)
        .filter(|object| request.selects(object))
        .collect();
    let (api_version, kind) = match request.resource {
        Resource::Nodes => ("v1", "NodeList"),
        Resource::ResourceClaims => ("resource.k8s.io/v1", "ResourceClaimList"),
        Resource::ResourceSlices => ("resource.k8s.io/v1", "ResourceSliceList"),
        Resource::Events => ("events.k8s.io/v1", "EventList"),
        Resource::Leases => ("coordination.k8s.io/v1", "LeaseList"),
    };
    let metadata = json!({"resourceVersion": objects.revision().to_string()});
    json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "items": items})
}

fn preconditions(options: &Value) -> Preconditions {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let wanted = &options["preconditions"];
    Preconditions { uid: text(&wanted["uid"]), resource_version: text(&wanted["resourceVersion"]) }
}

/// The changes of a kind as they happen, one JSON document per line.
fn watch(shared: Arc<Shared>, request: Request) -> Response {
    let (revision, seen) = (request.revision(), shared.revisions());
    let lines = stream::unfold((shared, request, revision, seen), |(shared, request, revision, mut seen)| async move {
        loop {
            let (lines, newest) = shared.read(|state| lines_after(&state.objects, &request, revision));
            if !lines.is_empty() {
                return Some((Ok::<_, std::convert::Infallible>(Bytes::from(lines)), (shared, request, newest, seen)));
            }
            seen.changed().await.ok()?;
        }
    });
    (StatusCode::OK, [("content-type", "application/json")], Body::from_stream(lines)).into_response()
}

fn lines_after(objects: &Objects, request: &Request, revision: u64) -> (String, u64) {
    let changes = objects.changes_after(revision).iter();
    let changes = changes.filter(|change| change.key.resource == request.resource && request.selects(&change.object));
    let lines = changes.map(|change| {
        let mut object = change.object.clone();
        object["metadata"]["resourceVersion"] = json!(change.revision.to_string());
        format!("{}\n", json!({"type": change.kind, "object": object}))
    });
    (lines.collect(), objects.revision())
}

fn refusal(refused: &Refusal) -> Response {
    let Refusal { code, reason, message } = refused;
    let status = json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "code": code, "reason": reason, "message": message});
    json_response(StatusCode::from_u16(*code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &status)
}

fn json_response(status: StatusCode, value: &Value) -> Response {
    (status, [("content-type", "application/json")], value.to_string()).into_response()
}
