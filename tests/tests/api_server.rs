// SPDX-License-Identifier: Apache-2.0
//! The fake API server keeps the promises of a real one that the driver relies on.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use dra_tests::ApiServer;
use dra_tests::api_server::{Key, Resource, Verb};
use futures::TryStreamExt as _;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSlice};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, WatchEvent, WatchParams};
use serde_json::{Value, json};

fn slice(name: &str, node: &str) -> ResourceSlice {
    let pool = json!({"name": node, "generation": 1, "resourceSliceCount": 1});
    let counters = json!([{"counterSet": "c", "counters": {"memory": {"value": "1"}}}]);
    let devices = json!([{"name": "gpu-1", "consumesCounters": counters}]);
    let spec = json!({"driver": "d", "nodeName": node, "pool": pool, "devices": devices});
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
}

fn code<T>(result: Result<T, kube::Error>) -> u16 {
    match result {
        Err(kube::Error::Api(status)) => status.code,
        Ok(_) => panic!("the server should have refused"),
        Err(other) => panic!("not an answer of the server: {other}"),
    }
}

#[tokio::test]
async fn slices_have_conflicts_selectors_and_preconditions() {
    let server = ApiServer::start();
    let slices: Api<ResourceSlice> = Api::all(server.client());
    let first = slices.create(&PostParams::default(), &slice("a", "n1")).await.unwrap();
    slices.create(&PostParams::default(), &slice("b", "n2")).await.unwrap();
    assert_eq!(code(slices.create(&PostParams::default(), &slice("a", "n1")).await), 409);

    let on_n1 = ListParams::default().fields("spec.nodeName=n1,spec.driver=d");
    assert_eq!(slices.list(&on_n1).await.unwrap().items, std::slice::from_ref(&first));

    let mut edited = first.clone();
    edited.spec.pool.generation = 2;
    let second = slices.replace("a", &PostParams::default(), &edited).await.unwrap();
    assert_ne!(second.metadata.resource_version, first.metadata.resource_version);
    assert_eq!(code(slices.replace("a", &PostParams::default(), &edited).await), 409);
    let same = slices.replace("a", &PostParams::default(), &second).await.unwrap();
    assert_eq!(same.metadata.resource_version, second.metadata.resource_version);

    let mut moved = second.clone();
    moved.spec.node_name = Some("n3".to_owned());
    assert_eq!(code(slices.replace("a", &PostParams::default(), &moved).await), 422);

    let stale = Preconditions { uid: None, resource_version: first.metadata.resource_version };
    assert_eq!(code(slices.delete("a", &DeleteParams::default().preconditions(stale)).await), 409);
    slices.delete_collection(&DeleteParams::default(), &on_n1).await.unwrap();
    assert_eq!(server.list(Resource::ResourceSlices).len(), 1);
    assert_eq!(server.requests(Verb::Create, Resource::ResourceSlices), 3);
}

#[tokio::test]
async fn watches_begin_where_the_list_ended() {
    let server = ApiServer::start();
    let slices: Api<ResourceSlice> = Api::all(server.client());
    slices.create(&PostParams::default(), &slice("a", "n1")).await.unwrap();
    let revision = slices.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    slices.create(&PostParams::default(), &slice("other", "n2")).await.unwrap();
    let params = WatchParams::default().fields("spec.nodeName=n1");
    let mut events = Box::pin(slices.watch(&params, &revision).await.unwrap());
    slices.delete("a", &DeleteParams::default()).await.unwrap();
    let event = events.try_next().await.unwrap().unwrap();
    assert!(matches!(event, WatchEvent::Deleted(slice) if slice.metadata.name.as_deref() == Some("a")));
}

#[tokio::test]
async fn a_dry_run_is_checked_and_changes_nothing() {
    let server = ApiServer::start();
    let slices: Api<ResourceSlice> = Api::all(server.client());
    let trial = PostParams { dry_run: true, ..PostParams::default() };
    assert_eq!(slices.create(&trial, &slice("a", "n1")).await.unwrap().spec, slice("a", "n1").spec);
    let mut wrong = slice("a", "n1");
    let policy = json!({"memory": {"value": "2", "requestPolicy": {"default": "3", "validValues": ["3"]}}});
    wrong.spec.devices.as_mut().unwrap()[0].capacity = serde_json::from_value(policy).unwrap();
    wrong.spec.devices.as_mut().unwrap()[0].allow_multiple_allocations = Some(true);
    assert_eq!(code(slices.create(&trial, &wrong).await), 422);
    assert_eq!((server.list(Resource::ResourceSlices).len(), server.writes(Resource::ResourceSlices)), (0, 0));
}

#[tokio::test]
async fn fields_it_does_not_know_are_lost() {
    let server = ApiServer::start();
    server.drop_fields(&["consumesCounters"]);
    let slices: Api<ResourceSlice> = Api::all(server.client());
    let allocated = slices.create(&PostParams::default(), &slice("a", "n1")).await.unwrap();
    assert_eq!(allocated.spec.devices.unwrap()[0].consumes_counters, None);
}

#[tokio::test]
async fn device_statuses_are_owned_entry_by_entry() {
    let server = ApiServer::start();
    let result = |device| json!({"request": "r", "driver": "d", "pool": "n", "device": device});
    let allocation = json!({"devices": {"results": [result("one"), result("two"), result("three")]}});
    let spec = json!({"devices": {}});
    let claim = json!({"metadata": {"name": "c"}, "spec": spec, "status": {"allocation": allocation}});
    server.put(Resource::ResourceClaims, "ns", claim);
    let claims: Api<ResourceClaim> = Api::namespaced(server.client(), "ns");
    let apply = async |manager: &str, devices: &[&str]| {
        let entries: Vec<Value> = devices.iter().map(|d| json!({"driver": "d", "pool": "n", "device": d})).collect();
        let patch =
            json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "status": {"devices": entries}});
        let claim = claims.patch_status("c", &PatchParams::apply(manager), &Patch::Apply(patch)).await?;
        let devices = claim.status.and_then(|status| status.devices).unwrap_or_default();
        Ok::<_, kube::Error>(devices.into_iter().map(|entry| entry.device).collect::<Vec<_>>())
    };
    assert_eq!(apply("a", &["one", "two"]).await.unwrap(), ["one", "two"]);
    assert_eq!(apply("b", &["three"]).await.unwrap(), ["one", "two", "three"]);
    assert_eq!(apply("a", &["two"]).await.unwrap(), ["two", "three"]);
    assert_eq!(code(apply("a", &["four"]).await), 422);
}

#[tokio::test]
async fn device_statuses_go_with_the_allocation() {
    let server = ApiServer::start();
    let result = |device: &str| json!({"request": "r", "driver": "d", "pool": "n", "device": device});
    let allocation = |devices: &[&str]| {
        let results: Vec<Value> = devices.iter().map(|device| result(device)).collect();
        json!({"devices": {"results": results}})
    };
    let entry = |device| json!({"driver": "d", "pool": "n", "device": device});
    let status = json!({"allocation": allocation(&["one", "two"]), "devices": [entry("one"), entry("two")]});
    let claim = json!({"metadata": {"name": "c"}, "spec": {"devices": {}}, "status": status});
    server.put(Resource::ResourceClaims, "ns", claim);
    let key = Key { resource: Resource::ResourceClaims, namespace: "ns".to_owned(), name: "c".to_owned() };
    let change = |allocation: Value| {
        let claim = server.edit(&key, |claim| claim["status"]["allocation"] = allocation);
        claim["status"]["devices"]
            .as_array()
            .map(|entries| entries.iter().map(|entry| entry["device"].as_str().unwrap().to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(change(allocation(&["two", "three"])).unwrap(), ["two"]);
    assert_eq!(change(Value::Null), None);
    assert_eq!(change(allocation(&["one", "two"])), None, "what is allocated again begins without a status");
}

#[tokio::test]
async fn device_statuses_are_of_one_share() {
    let server = ApiServer::start();
    let entry = |share| json!({"driver": "d", "pool": "n", "device": "one", "shareID": share});
    let mut result = entry("0b5f3a1e-7d52-4c53-9a3c-2f1f5f0f9a01");
    result["request"] = json!("r");
    let status = json!({"allocation": {"devices": {"results": [result]}}});
    let claim = json!({"metadata": {"name": "c"}, "spec": {"devices": {}}, "status": status});
    server.put(Resource::ResourceClaims, "ns", claim);
    let claims: Api<ResourceClaim> = Api::namespaced(server.client(), "ns");
    let apply = async |entry: Value| {
        let status =
            json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "status": {"devices": [entry]}});
        claims.patch_status("c", &PatchParams::apply("a"), &Patch::Apply(status)).await
    };
    assert_eq!(code(apply(entry("0b5f3a1e-7d52-4c53-9a3c-2f1f5f0f9a02")).await), 422);
    apply(entry("0b5f3a1e-7d52-4c53-9a3c-2f1f5f0f9a01")).await.unwrap();
}

#[tokio::test]
async fn the_server_can_be_unreachable_and_hang() {
    let mut server = ApiServer::start();
    let claim = json!({"metadata": {"name": "c"}, "spec": {"devices": {}}});
    server.put(Resource::ResourceClaims, "ns", claim);
    let claims: Api<ResourceClaim> = Api::namespaced(server.client(), "ns");
    claims.get("c").await.unwrap();
    server.go_down().await;
    assert!(!matches!(claims.get("c").await, Ok(_) | Err(kube::Error::Api(_))));
    server.come_up();
    claims.get("c").await.unwrap();

    server.hang();
    let waiting = tokio::spawn({
        let claims = claims.clone();
        async move { claims.get("c").await }
    });
    server.until_requested(Verb::Get, Resource::ResourceClaims, 3).await;
    assert!(!waiting.is_finished());
    server.answer_again();
    waiting.await.unwrap().unwrap();
    let key = Key { resource: Resource::ResourceClaims, namespace: "ns".to_owned(), name: "c".to_owned() };
    server.remove(&key);
    assert_eq!(code(claims.get("c").await), 404);
}
