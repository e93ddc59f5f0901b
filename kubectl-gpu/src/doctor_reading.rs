// SPDX-License-Identifier: Apache-2.0
//! Reads what `doctor` judges. A part that cannot be read becomes a note, never the end.

pub mod parse;

use std::collections::BTreeMap;

use dra_model::explain;
use futures::future::{join, join_all};
use http::Request;
use kube::Client;
use serde_json::{Value, json};

use crate::age::Clock;
use crate::doctor::{DaemonSet, NodeAnswer, Part, SeenNode};
use crate::driver_pods::{self, DriverPod, Found, PLUGIN};
use crate::exec;
use dra_explain::access::Access;
use dra_explain::reading;
use dra_explain::request::{List, ReadError, Resource, pages};

/// Lines of a log from which the last is taken.
const LOG_LINES: usize = 20;

/// Reads text or JSON at a path of the API server.
pub async fn text(client: &Client, path: &str, right: &str) -> Part<String> {
    let request = Request::get(path).body(Vec::new()).map_err(|error| format!("failed to read {path}: {error}"))?;
    client.request_text(request).await.map_err(|error| unread(right, &error))
}

async fn value(client: &Client, path: &str, right: &str) -> Part<Value> {
    let text = text(client, path, right).await?;
    serde_json::from_str(&text).map_err(|error| format!("failed to parse the answer of {path}: {error}"))
}

/// The note about something that was not read.
fn unread(right: &str, error: &kube::Error) -> String {
    if let kube::Error::Api(answer) = error {
        return if answer.code == 403 {
            format!("the right to {right} is missing: that is not checked")
        } else {
            format!("failed to {right}: {}", answer.message)
        };
    }
    format!("failed to {right}: {}", dra_model::chain(error))
}

fn note(error: &ReadError, without: &str) -> String {
    if let ReadError::Forbidden(right) = error {
        return format!("{right} is missing: {without}");
    }
    explain(error)
}

pub async fn server_version(client: &Client) -> Part<String> {
    let version = client.apiserver_version().await;
    version.map(|info| info.git_version).map_err(|error| unread("get /version", &error))
}

/// The versions of `resource.k8s.io`; none if it is not served.
pub async fn api_versions(client: &Client) -> Part<Vec<String>> {
    let groups = value(client, "/apis", "get /apis").await?;
    Ok(parse::versions(&groups, "resource.k8s.io"))
}

/// From the metrics of the API server.
pub async fn gates(client: &Client) -> Part<BTreeMap<String, bool>> {
    let metrics = text(client, "/metrics", "get /metrics of the API server, for its feature gates,").await?;
    Ok(parse::gates(&metrics))
}

pub async fn classes(client: &Client) -> Part<dra_allocation::Classes> {
    reading::classes(client).await.map_err(|error| note(&error, "DeviceClasses are not checked"))
}

pub async fn pools(client: &Client) -> Part<dra_allocation::Pools> {
    reading::published(client, None).await.map_err(|error| note(&error, "ResourceSlices are not checked"))
}

pub async fn pods(access: &Access, driver: &str, namespace: &str) -> Part<Found> {
    let found = driver_pods::driver_pods(access, driver, namespace).await;
    found.map_err(|error| note(&error, "the pods of the driver are not checked"))
}

pub async fn nodes(client: &Client) -> Part<BTreeMap<String, SeenNode>> {
    let list = List::all(Resource::core("nodes", None));
    let mut found = BTreeMap::new();
    let add = |page: &[u8]| {
        parse::add_nodes(page, &mut found).map_err(|source| ReadError::Json { what: list.resource.what(), source })
    };
    let read = pages(client, &list, add).await;
    read.map_err(|error| note(&error, "container runtimes, kubelets and device plugins are not checked"))?;
    Ok(found)
}

/// The DaemonSets in the namespaces of the pods, or in the one where they are expected.
pub async fn daemon_sets(client: &Client, pods: &Part<Found>, namespace: &str) -> Part<Vec<DaemonSet>> {
    let mut namespaces: Vec<&str> =
        pods.iter().flat_map(|found| &found.pods).map(|pod| pod.namespace.as_str()).collect();
    namespaces.push(namespace);
    namespaces.sort_unstable();
    namespaces.dedup();
    let mut sets = Vec::new();
    for namespace in namespaces {
        let path =
            format!("/apis/apps/v1/namespaces/{namespace}/daemonsets?labelSelector={}", driver_pods::PLUGIN_PODS);
        let list = value(client, &path, &format!("list daemonsets.apps in namespace {namespace}")).await?;
        sets.extend(parse::daemon_sets(&list));
    }
    Ok(sets)
}

/// The bound policies of the chart of a pod.
pub async fn policies(client: &Client, pod: Option<&DriverPod>) -> Part<usize> {
    let Some(release) = pod.and_then(|pod| pod.release.as_deref()) else {
        return Err("without a pod of the driver its admission policies are not checked".to_owned());
    };
    let kind = "validatingadmissionpolicybindings";
    let path = format!("/apis/admissionregistration.k8s.io/v1/{kind}?labelSelector={}", release.replace(',', "%2C"));
    let list = value(client, &path, &format!("list {kind}.admissionregistration.k8s.io")).await?;
    Ok(list.get("items").and_then(Value::as_array).map_or(0, Vec::len))
}

/// A right of the ClusterRole of the chart: group, resource, subresource and verbs.
type ChartRight = (&'static str, &'static str, &'static str, &'static [&'static str]);

const CHART_RIGHTS: [ChartRight; 5] = [
    ("resource.k8s.io", "resourceslices", "", &["get", "list", "watch", "create", "update", "patch", "delete"]),
    ("resource.k8s.io", "resourceclaims", "", &["get"]),
    ("resource.k8s.io", "resourceclaims", "status", &["update", "patch"]),
    ("", "nodes", "", &["get"]),
    ("events.k8s.io", "events", "", &["create"]),
];

/// Asks for each right of the chart whether the account of the driver has it.
pub async fn denied(client: &Client, pod: Option<&DriverPod>) -> Part<Vec<String>> {
    let Some(pod) = pod else {
        return Err("without a pod of the driver the rights of its account are not checked".to_owned());
    };
    let asked = CHART_RIGHTS.iter().flat_map(|(group, resource, subresource, verbs)| {
        verbs.iter().map(move |verb| (*group, *resource, *subresource, *verb))
    });
    let reviews = asked.map(|(group, resource, subresource, verb)| async move {
        let what = if subresource.is_empty() { resource.to_owned() } else { format!("{resource}/{subresource}") };
        let attributes = json!({"group": group, "resource": resource, "subresource": subresource, "verb": verb});
        let is_allowed = review(client, pod, &attributes).await?;
        let name = if group.is_empty() { what } else { format!("{what} of {group}") };
        Ok::<_, String>((!is_allowed).then(|| format!("{verb} {name}")))
    });
    let answers: Result<Vec<Option<String>>, String> = join_all(reviews).await.into_iter().collect();
    Ok(answers?.into_iter().flatten().collect())
}

/// A question to the authorizer, which stores nothing.
async fn review(client: &Client, pod: &DriverPod, attributes: &Value) -> Part<bool> {
    let DriverPod { namespace, account, .. } = pod;
    let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}"), "system:authenticated"];
    let spec = json!({
        "user": format!("system:serviceaccount:{namespace}:{account}"), "groups": groups, "resourceAttributes": attributes,
    });
    let body = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
    let request = Request::post("/apis/authorization.k8s.io/v1/subjectaccessreviews")
        .header("content-type", "application/json")
        .body(body.to_string().into_bytes());
    let request = request.map_err(|error| error.to_string())?;
    let answer = client.request::<Value>(request).await;
    let answer = answer.map_err(|error| unread("create subjectaccessreviews.authorization.k8s.io", &error))?;
    Ok(answer.pointer("/status/allowed").and_then(Value::as_bool).unwrap_or(false))
}

/// How far the clock of this machine is ahead of that of the API server, in milliseconds.
pub async fn clock_offset(client: &Client) -> i64 {
    let request = Request::get("/version").body(kube::client::Body::empty());
    let Ok(request) = request else { return 0 };
    let Ok(answer) = client.send(request).await else { return 0 };
    let date = answer.headers().get(http::header::DATE).and_then(|date| date.to_str().ok());
    date.and_then(parse::http_date).map_or(0, |server_ms| Clock::now_ms() - server_ms)
}

/// What the plugins of the nodes answer, all at once.
pub async fn answers(
    client: &Client,
    pods: &Found,
    driver: &str,
    only: Option<&str>,
    offset_ms: i64,
) -> BTreeMap<String, Part<NodeAnswer>> {
    let nodes = pods.pods.iter().filter_map(|pod| pod.node.as_deref());
    let mut nodes: Vec<&str> = nodes.filter(|node| only.is_none_or(|only| only == *node)).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let asked = nodes.into_iter().filter_map(|node| {
        // A pod that does not run is a finding of its own.
        let pod = driver_pods::of_node(pods, driver, node).ok()?;
        Some(async move { (node.to_owned(), answer(client, pod, offset_ms).await) })
    });
    join_all(asked).await.into_iter().collect()
}

async fn answer(client: &Client, pod: &DriverPod, offset_ms: i64) -> Part<NodeAnswer> {
    let before = Clock::now_ms() - offset_ms;
    let printed = exec::run(client, pod, &["gpu-kubelet-plugin", "doctor"]).await;
    let after = Clock::now_ms() - offset_ms;
    let printed = printed.map_err(|error| explain(&error))?;
    let checks: dra_model::node_check::NodeChecks =
        serde_json::from_slice(&printed).map_err(|error| format!("its answer cannot be parsed: {error}"))?;
    let clock = i64::try_from(checks.clock_ms).unwrap_or(i64::MAX);
    // The header of the API server has whole seconds.
    let clock_error_ms = if clock < before { clock.saturating_sub(before) } else { clock.saturating_sub(after).max(0) };
    Ok(NodeAnswer { checks, clock_error_ms })
}

/// The last line of the log of each plugin that is not ready, by node.
pub async fn logs(client: &Client, pods: &Found) -> BTreeMap<String, String> {
    let failing = pods.pods.iter().filter(|pod| !pod.is_ready && !pod.is_ending);
    let lines = failing.filter_map(|pod| {
        let node = pod.node.clone()?;
        let failing = pod.containers.iter().find(|container| !container.is_ready);
        let container = failing.map_or(PLUGIN, |container| container.name.as_str());
        Some(async move { (node, last_line(client, pod, container).await) })
    });
    join_all(lines).await.into_iter().filter_map(|(node, line)| Some((node, line?))).collect()
}

/// Of the container that runs, or of its last run.
async fn last_line(client: &Client, pod: &DriverPod, container: &str) -> Option<String> {
    let (now, before) =
        join(log(client, pod, container, LOG_LINES, false), log(client, pod, container, LOG_LINES, true)).await;
    let last = |text: &String| text.lines().rfind(|line| !line.trim().is_empty()).map(str::to_owned);
    now.ok().as_ref().and_then(last).or_else(|| before.ok().as_ref().and_then(last))
}

/// The last lines of a log.
pub async fn log(client: &Client, pod: &DriverPod, container: &str, lines: usize, is_previous: bool) -> Part<String> {
    let DriverPod { namespace, name, .. } = pod;
    let path = format!(
        "/api/v1/namespaces/{namespace}/pods/{name}/log?container={container}&tailLines={lines}&previous={is_previous}"
    );
    text(client, &path, &format!("get pods/log in namespace {namespace}")).await
}
