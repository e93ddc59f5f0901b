// SPDX-License-Identifier: Apache-2.0
//! The measured values of the driver: its pods are asked through the API server, so that a user needs no way to the nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use http::Request;
use kube::Client;
use kube::client::Body;
use serde::Deserialize;

use crate::metrics_text::{Sample, samples};
use crate::top::PREFIX;
use dra_explain::request::{List, Page, ReadError, Resource, answered, pages};

/// Nodes that are asked at a time.
const MAX_REQUESTS: usize = 16;

/// How long a node may take.
const NODE_TIMEOUT: Duration = Duration::from_secs(10);

/// The series by node, and why nodes have none.
#[derive(Debug, Default)]
pub struct Measured {
    pub by_node: BTreeMap<String, Vec<Sample>>,
    pub incomplete: Vec<String>,
}

/// Asks the plugin of every node, or of one. Without the right to ask any there is no answer.
pub async fn measured(client: &Client, namespace: &str, node: Option<&str>) -> Result<Measured, ReadError> {
    let plugins = plugins(client, namespace, node).await?;
    if plugins.is_empty() {
        let missing =
            format!("no pod of the driver runs in namespace {namespace}: --driver-namespace names another one");
        return Ok(Measured { by_node: BTreeMap::new(), incomplete: vec![missing] });
    }
    let asked = plugins.iter().map(|plugin| async move { (plugin, series(client, namespace, plugin).await) });
    let mut answers = futures::stream::iter(asked).buffer_unordered(MAX_REQUESTS);
    let mut found = Measured::default();
    while let Some((plugin, answer)) = answers.next().await {
        match answer {
            Ok(series) => {
                found.by_node.insert(plugin.node.clone(), series);
            }
            Err(Unread::Refused(error @ ReadError::Forbidden(_))) => return Err(error),
            Err(unread) => found.incomplete.push(unread.note(plugin)),
        }
    }
    found.incomplete.sort();
    Ok(found)
}

/// A pod of the plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plugin {
    node: String,
    pod: String,
    port: u16,
}

/// A plugin that gives no series.
enum Unread {
    Refused(ReadError),
    Malformed(String),
    TooSlow,
}

impl Unread {
    fn note(&self, plugin: &Plugin) -> String {
        let Plugin { node, pod, .. } = plugin;
        match self {
            Self::Refused(error) => format!(
                "node {node}: the API server does not reach the metrics of pod {pod} ({error}): `networkPolicy.from` of the chart must admit it"
            ),
            Self::Malformed(error) => format!("node {node}: pod {pod}: {error}"),
            Self::TooSlow => format!("node {node}: pod {pod} did not answer within {} s", NODE_TIMEOUT.as_secs()),
        }
    }
}

async fn series(client: &Client, namespace: &str, plugin: &Plugin) -> Result<Vec<Sample>, Unread> {
    let pod = Resource::core("pods", Some(namespace)).path_of(&plugin.pod);
    let request = Request::get(format!("{pod}:{}/proxy/metrics", plugin.port)).body(Body::empty());
    let resource = Resource::core("pods/proxy", Some(namespace));
    let asked = tokio::time::timeout(NODE_TIMEOUT, answered(client, request, &resource, "get")).await;
    let body = asked.map_err(|_elapsed| Unread::TooSlow)?.map_err(Unread::Refused)?;
    samples(&String::from_utf8_lossy(&body), PREFIX).map_err(|error| Unread::Malformed(error.to_string()))
}

/// The ready pods of the plugin, one for each node: during an upgrade there may be two.
async fn plugins(client: &Client, namespace: &str, node: Option<&str>) -> Result<Vec<Plugin>, ReadError> {
    let fields = node.map(|node| format!("spec.nodeName={node}"));
    let list = List { fields, ..List::all(Resource::core("pods", Some(namespace))) };
    let what = list.resource.what();
    let mut found = BTreeMap::new();
    let add = |page: &[u8]| {
        let page: Page<Pod> =
            serde_json::from_slice(page).map_err(|source| ReadError::Json { what: what.clone(), source })?;
        let next = page.next();
        let plugins = page.items.into_iter().filter_map(Pod::plugin);
        found.extend(plugins.map(|plugin| (plugin.node.clone(), plugin)));
        Ok(next)
    };
    pages(client, &list, add).await?;
    Ok(found.into_values().collect())
}

#[derive(Deserialize)]
struct Pod {
    metadata: Metadata,
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: String,
    labels: BTreeMap<String, String>,
    deletion_timestamp: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: String,
    containers: Vec<Container>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Container {
    ports: Vec<Port>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Port {
    name: String,
    container_port: u16,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: String,
}

impl Pod {
    /// By the labels and the name of the port that the chart gives.
    fn plugin(self) -> Option<Plugin> {
        let Self { metadata, spec, status } = self;
        let component = metadata.labels.get("app.kubernetes.io/component");
        let runs = status.phase == "Running" && metadata.deletion_timestamp.is_none();
        let mut ports = spec.containers.iter().flat_map(|container| &container.ports);
        let port = ports.find(|port| port.name == "plugin-http").map(|port| port.container_port)?;
        let is_plugin = runs && component.is_some_and(|component| component == "kubelet-plugin");
        is_plugin.then_some(Plugin { node: spec.node_name, pod: metadata.name, port })
    }
}
