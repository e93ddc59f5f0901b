// SPDX-License-Identifier: Apache-2.0
//! An API server on loopback that speaks the real protocol for ResourceSlices, Nodes and Events: resource versions,
//! preconditions, field selectors, streaming watches, dry runs. It counts writes can be stopped, and can refuse
//! requests and drop fields.
#![allow(unreachable_pub, dead_code, reason = "a module of several tests, of which none uses all")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// An API server that can be stopped and started again.
pub struct ApiServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: Option<tokio::task::JoinHandle<()>>,
}

struct Shared {
    world: Mutex<World>,
    version: watch::Sender<u64>,
}

/// The stored objects and the behaviour of the server.
#[derive(Default)]
pub struct World {
    /// Slices by name.
    pub slices: BTreeMap<String, Value>,
    /// DaemonSets by name; a deleted one remains until the test removes it.
    pub daemon_sets: BTreeMap<String, Value>,
    /// Whether DaemonSets are forbidden.
    pub refuses_daemon_sets: bool,
    /// Number of GET requests for DaemonSets.
    pub daemon_set_reads: usize,
    pub events: Vec<Value>,
    /// Successful writes, such as `create 00000-gpu.nvidia.com-n`.
    pub writes: Vec<String>,
    /// Number of list requests.
    pub lists: usize,
    /// Number of dry runs.
    pub dry_runs: usize,
    /// Minor version of Kubernetes.
    pub minor: u32,
    /// UID of every Node.
    pub node_uid: String,
    /// Fields of slices that the server drops.
    pub dropped: &'static [&'static str],
    /// A field that an admission policy forbids.
    pub forbidden: Option<&'static str>,
    /// Whether requests for the version fail.
    pub hides_version: bool,
    /// Whether watches are forbidden; lists are not.
    pub refuses_watches: bool,
    /// Number of next writes that fail with a conflict.
    pub conflicts: usize,
    history: Vec<(u64, &'static str, Value)>,
    version: u64,
}

impl World {
    fn record(&mut self, kind: &'static str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.history.push((self.version, kind, object.clone()));
        object
    }

    fn store(&mut self, kind: &'static str, object: Value) -> Value {
        let stored = self.record(kind, object);
        self.slices.insert(name(&stored), stored.clone());
        stored
    }

    /// Creates a slice as another client.
    pub fn add(&mut self, name: &str, spec: &Value) {
        let metadata = json!({"name": name, "uid": format!("uid-{}", self.version + 1)});
        self.store(
            "ADDED",
            json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": metadata, "spec": spec}),
        );
    }

    /// Deletes a slice as another client.
    pub fn remove(&mut self, name: &str) {
        let object = self.slices.remove(name).expect("the slice exists");
        self.record("DELETED", object);
    }

    /// Changes a slice as another client.
    pub fn edit(&mut self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.slices[name].clone();
        change(&mut object);
        self.store("MODIFIED", object);
    }

    pub fn names(&self) -> Vec<String> {
        self.slices.keys().cloned().collect()
    }
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

impl ApiServer {
    /// A server of Kubernetes 1.37 without slices.
    pub async fn start() -> Self {
        let world = World { minor: 37, node_uid: "node-uid".to_owned(), ..World::default() };
        let shared = Arc::new(Shared { world: Mutex::new(world), version: watch::channel(0).0 });
        let mut server = Self { address: "127.0.0.1:0".parse().unwrap(), shared, serving: None };
        server.come_up().await;
        server
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A client without credentials.
    pub fn client(&self) -> kube::Client {
        let mut config = kube::Config::new(format!("http://{}", self.address).parse().unwrap());
        config.connect_timeout = Some(std::time::Duration::from_secs(1));
        kube::Client::try_from(config).unwrap()
    }

    /// Reads or changes the world and notifies the watches.
    pub fn with<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        self.shared.with(act)
    }

    /// Waits until a condition holds.
    pub async fn until(&self, description: &str, holds: impl Fn(&World) -> bool) {
        let mut changes = self.shared.version.subscribe();
        let wait = async {
            while !holds(&self.shared.world.lock().unwrap()) {
                changes.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(std::time::Duration::from_secs(20), wait).await;
        assert!(waited.is_ok(), "timed out waiting until {description}: {:?}", self.with(|world| world.writes.clone()));
    }

    /// Closes all connections and refuses new ones.
    pub async fn go_down(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            assert!(serving.await.unwrap_err().is_cancelled());
        }
    }

    /// Listens again at the same address.
    pub async fn come_up(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        self.serving = Some(tokio::spawn(accept(listener, routes(Arc::clone(&self.shared)))));
    }
}

impl Shared {
    fn with<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        let answer = act(&mut self.world.lock().unwrap());
        self.version.send_modify(|version| *version += 1);
        answer
    }
}

/// Connections are closed with the task, so that clients with open watches detect it.
async fn accept(listener: TcpListener, routes: Router) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let service = TowerToHyperService::new(routes.clone());
        connections.spawn(async move {
            let builder = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
            builder.http1_only().serve_connection(TokioIo::new(stream), service).await.ok();
        });
    }
}

fn routes(shared: Arc<Shared>) -> Router {
    let slices = "/apis/resource.k8s.io/v1/resourceslices";
    Router::new()
        .route("/version", get(version))
        .route("/api/v1/nodes/{name}", get(node))
        .route(slices, get(list_or_watch).post(create))
        .route(&format!("{slices}/{{name}}"), get(slice).put(update).delete(delete))
        .route("/apis/apps/v1/namespaces/ns/daemonsets/{name}", get(daemon_set).delete(delete_daemon_set))
        .route("/apis/events.k8s.io/v1/namespaces/default/events", axum::routing::post(event))
        .with_state(shared)
}

async fn version(State(shared): State<Arc<Shared>>) -> Response {
    let (minor, hidden) = shared.with(|world| (world.minor, world.hides_version));
    if hidden {
        return failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
    }
    ok(&json!({
        "major": "1", "minor": minor.to_string(), "gitVersion": format!("v1.{minor}.0"), "gitCommit": "", "buildDate": "",
        "gitTreeState": "", "goVersion": "", "compiler": "", "platform": "",
    }))
}

async fn node(State(shared): State<Arc<Shared>>, Path(node): Path<String>) -> Response {
    let uid = shared.with(|world| world.node_uid.clone());
    ok(
        &json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {"name": node, "uid": uid}}),
    )
}

async fn daemon_set(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Response {
    shared.with(|world| {
        world.daemon_set_reads += 1;
        match world.daemon_sets.get(&name) {
            Some(_) if world.refuses_daemon_sets => failure(StatusCode::FORBIDDEN, "Forbidden"),
            Some(found) => ok(found),
            None => failure(StatusCode::NOT_FOUND, "NotFound"),
        }
    })
}

async fn delete_daemon_set(State(shared): State<Arc<Shared>>, Path(name): Path<String>, body: Bytes) -> Response {
    let options: Value = serde_json::from_slice(&body).unwrap_or_default();
    shared.with(|world| {
        let Some(found) = world.daemon_sets.get_mut(&name) else {
            return failure(StatusCode::NOT_FOUND, "NotFound");
        };
        found["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let how = options["propagationPolicy"].as_str().unwrap_or_default();
        world.writes.push(format!("delete {name} {how}"));
        ok(found)
    })
}

async fn event(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let mut event: Value = serde_json::from_slice(&body).unwrap();
    let base = event["metadata"]["generateName"].as_str().unwrap_or_default().trim_end_matches('-');
    if !base.ends_with(|last: char| last.is_ascii_alphanumeric()) {
        return failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid");
    }
    shared.with(|world| {
        event["metadata"]["name"] = json!(format!("event-{}", world.events.len()));
        event["metadata"]["namespace"] = json!("default");
        world.events.push(event.clone());
    });
    ok(&event)
}

async fn list_or_watch(State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery) -> Response {
    let query = parameters(query.as_deref().unwrap_or_default());
    let selector = query.get("fieldSelector").cloned().unwrap_or_default();
    if query.get("watch").map(String::as_str) == Some("true") {
        if shared.with(|world| world.refuses_watches) {
            return failure(StatusCode::FORBIDDEN, "Forbidden");
        }
        let since = query.get("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
        return watch_from(shared, selector, since);
    }
    let (items, version) = shared.with(|world| {
        world.lists += 1;
        let items: Vec<Value> = world.slices.values().filter(|slice| selected(slice, &selector)).cloned().collect();
        (items, world.version)
    });
    ok(&json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSliceList",
        "metadata": {"resourceVersion": version.to_string()}, "items": items,
    }))
}

fn watch_from(shared: Arc<Shared>, selector: String, since: u64) -> Response {
    let changes = shared.version.subscribe();
    let lines = futures::stream::unfold((since, changes), move |(mut since, mut changes)| {
        let (shared, selector) = (Arc::clone(&shared), selector.clone());
        async move {
            loop {
                changes.borrow_and_update();
                let next = shared.world.lock().unwrap().history.iter().find(|(version, ..)| *version > since).cloned();
                match next {
                    Some((version, kind, object)) => {
                        since = version;
                        if selected(&object, &selector) {
                            let line = format!("{}\n", json!({"type": kind, "object": object}));
                            return Some((Ok::<_, Infallible>(line), (since, changes)));
                        }
                    }
                    None => changes.changed().await.ok()?,
                }
            }
        }
    });
    Response::builder().header("content-type", "application/json").body(Body::from_stream(lines)).unwrap()
}

async fn create(State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery, body: Bytes) -> Response {
    let dry_run = parameters(query.as_deref().unwrap_or_default()).contains_key("dryRun");
    let mut slice: Value = serde_json::from_slice(&body).unwrap();
    shared.with(|world| {
        if !dry_run && refuses(world) || world.slices.contains_key(&name(&slice)) {
            return failure(StatusCode::CONFLICT, "AlreadyExists");
        }
        if !slice["spec"]["devices"].is_null() && !slice["spec"]["sharedCounters"].is_null() {
            return failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid");
        }
        world.dry_runs += usize::from(dry_run);
        if world.forbidden.is_some_and(|field| slice.to_string().contains(field)) {
            return failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid");
        }
        drop_fields(world.dropped, &mut slice);
        if dry_run {
            return ok(&slice);
        }
        slice["metadata"]["uid"] = json!(format!("uid-{}", world.version + 1));
        world.writes.push(format!("create {}", name(&slice)));
        ok(&world.store("ADDED", slice))
    })
}

async fn slice(State(shared): State<Arc<Shared>>, Path(slice_name): Path<String>) -> Response {
    let found = shared.with(|world| world.slices.get(&slice_name).cloned());
    found.map_or_else(|| failure(StatusCode::NOT_FOUND, "NotFound"), |slice| ok(&slice))
}

async fn update(State(shared): State<Arc<Shared>>, Path(slice_name): Path<String>, body: Bytes) -> Response {
    let mut slice: Value = serde_json::from_slice(&body).unwrap();
    shared.with(|world| {
        let Some(old) = world.slices.get(&slice_name).cloned() else {
            return failure(StatusCode::NOT_FOUND, "NotFound");
        };
        if refuses(world) || old["metadata"]["resourceVersion"] != slice["metadata"]["resourceVersion"] {
            return failure(StatusCode::CONFLICT, "Conflict");
        }
        drop_fields(world.dropped, &mut slice);
        world.writes.push(format!("update {slice_name}"));
        if slice == old { ok(&old) } else { ok(&world.store("MODIFIED", slice)) }
    })
}

async fn delete(State(shared): State<Arc<Shared>>, Path(slice_name): Path<String>, body: Bytes) -> Response {
    let options: Value = serde_json::from_slice(&body).unwrap_or_default();
    shared.with(|world| {
        let Some(old) = world.slices.get(&slice_name).cloned() else {
            return failure(StatusCode::NOT_FOUND, "NotFound");
        };
        for field in ["uid", "resourceVersion"] {
            let expected = &options["preconditions"][field];
            if !expected.is_null() && *expected != old["metadata"][field] {
                return failure(StatusCode::CONFLICT, "Conflict");
            }
        }
        world.writes.push(format!("delete {slice_name}"));
        world.remove(&slice_name);
        ok(&old)
    })
}

/// Whether this write must fail with a conflict.
fn refuses(world: &mut World) -> bool {
    let refuses = world.conflicts > 0;
    world.conflicts = world.conflicts.saturating_sub(1);
    refuses
}

fn drop_fields(names: &[&str], value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !names.contains(&name.as_str()));
            fields.values_mut().for_each(|value| drop_fields(names, value));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| drop_fields(names, value)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Whether an object has the fields of a selector such as `spec.driver=a,spec.nodeName=b`.
fn selected(object: &Value, selector: &str) -> bool {
    selector.split(',').filter(|term| !term.is_empty()).all(|term| {
        let (path, value) = term.split_once('=').unwrap();
        path.split('.').fold(object, |object, field| &object[field]).as_str() == Some(value)
    })
}

/// The parameters of a query; decodes only the escapes of selectors.
fn parameters(query: &str) -> BTreeMap<String, String> {
    let plain = |text: &str| text.replace("%3D", "=").replace("%2C", ",").replace("%2F", "/");
    query.split('&').filter_map(|pair| pair.split_once('=')).map(|(key, value)| (plain(key), plain(value))).collect()
}

fn ok(object: &Value) -> Response {
    ([("content-type", "application/json")], object.to_string()).into_response()
}

fn failure(code: StatusCode, reason: &str) -> Response {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code.as_u16(), "reason": reason,
        "message": format!("simulated: {reason}"),
    });
    (code, [("content-type", "application/json")], status.to_string()).into_response()
}
