// SPDX-License-Identifier: Apache-2.0
//! The pods of the driver, one on each node, with what Kubernetes reports about their containers.

use std::borrow::Cow;

use dra_model::Advice;
use serde::Deserialize;

use dra_explain::access::Access;
use dra_explain::request::{List, ReadError, Resource, Right, pages};

/// The label of the pods in the chart.
pub const PLUGIN_PODS: &str = "app.kubernetes.io/component=kubelet-plugin";
/// The container of the plugin.
pub const PLUGIN: &str = "plugin";

/// A pod of the driver.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DriverPod {
    pub namespace: String,
    pub name: String,
    /// Absent while no node is found.
    pub node: Option<String>,
    pub is_ready: bool,
    pub is_ending: bool,
    /// Why Kubernetes does not run it.
    pub message: Option<String>,
    pub containers: Vec<Container>,
    /// The service account.
    pub account: String,
    /// What the objects of its chart have in common: labels as a selector.
    pub release: Option<String>,
}

/// A container of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    pub name: String,
    pub is_ready: bool,
    pub is_running: bool,
    pub restarts: u32,
    /// Why it does not run: reason and message.
    pub waiting: Option<String>,
    /// How it ended last: reason, exit code and message.
    pub ended: Option<String>,
}

impl DriverPod {
    /// The container of the plugin runs, ready or not.
    pub fn has_plugin(&self) -> bool {
        self.containers.iter().any(|container| container.name == PLUGIN && container.is_running)
    }

    /// `namespace/name`.
    pub fn label(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// The pods, and the namespaces that were looked at.
#[derive(Debug, Default)]
pub struct Found {
    pub pods: Vec<DriverPod>,
    /// The right without which only one namespace was looked at.
    pub missing: Option<Right>,
}

/// No pod of the driver can be asked.
#[derive(Debug, thiserror::Error)]
pub enum DriverPodError {
    #[error("failed to find the pod of the driver")]
    Read(#[source] ReadError),
    #[error("node {node} has no pod of the driver {driver}{}", limited(missing.as_ref()))]
    NoPod { node: String, driver: String, missing: Option<Right> },
    #[error("the plugin in pod {pod} on node {node} does not run: {why}")]
    NotRunning { pod: String, node: String, why: String },
}

fn limited(missing: Option<&Right>) -> String {
    missing.map(|right| format!(" that can be seen, since {right} is missing")).unwrap_or_default()
}

impl Advice for DriverPodError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Read(source) => source.advice(),
            Self::NoPod { missing: Some(_), .. } => {
                Some("name its namespace with --driver-namespace, or ask for that right".into())
            }
            Self::NoPod { missing: None, .. } => Some("`kubectl gpu doctor` says why".into()),
            Self::NotRunning { .. } => Some("`kubectl gpu doctor` names the cause".into()),
        }
    }
}

/// The pods of a driver of this name, in all namespaces, or without the right to that in `namespace`.
pub async fn driver_pods(access: &Access, driver: &str, namespace: &str) -> Result<Found, ReadError> {
    let mut missing = None;
    for scope in [None, Some(namespace)] {
        let list = List::labelled(Resource::core("pods", scope), PLUGIN_PODS);
        let mut pods = Vec::new();
        let add = |page: &[u8]| {
            add_page(page, driver, &mut pods)
                .map_err(|source| ReadError::Json { what: "pods of the driver".to_owned(), source })
        };
        match pages(&access.client, &list, add).await {
            Ok(()) => return Ok(Found { pods, missing }),
            Err(ReadError::Forbidden(right)) if scope.is_none() => missing = Some(right),
            Err(error) => return Err(error),
        }
    }
    Ok(Found { pods: Vec::new(), missing })
}

/// The pod of a node whose plugin runs.
pub fn of_node<'a>(found: &'a Found, driver: &str, node: &str) -> Result<&'a DriverPod, DriverPodError> {
    let on_node = found.pods.iter().filter(|pod| pod.node.as_deref() == Some(node));
    let running = on_node.clone().filter(|pod| pod.has_plugin());
    // During an upgrade two run; the older one is about to end.
    if let Some(pod) = running.min_by_key(|pod| (pod.is_ending, !pod.is_ready)) {
        return Ok(pod);
    }
    match on_node.min_by_key(|pod| pod.is_ending) {
        Some(pod) => {
            let plugin = pod.containers.iter().find(|container| container.name == PLUGIN);
            let why = plugin.and_then(|plugin| plugin.waiting.clone().or_else(|| plugin.ended.clone()));
            let why = why.or_else(|| pod.message.clone()).unwrap_or_else(|| "it is starting".to_owned());
            Err(DriverPodError::NotRunning { pod: pod.label(), node: node.to_owned(), why })
        }
        None => Err(DriverPodError::NoPod {
            node: node.to_owned(),
            driver: driver.to_owned(),
            missing: found.missing.clone(),
        }),
    }
}

/// Adds the pods of a driver in a list, and returns the token of the next page, if there is one.
pub fn add_page(json: &[u8], driver: &str, pods: &mut Vec<DriverPod>) -> Result<Option<String>, serde_json::Error> {
    let RawList { metadata, items } = serde_json::from_slice(json)?;
    pods.extend(items.into_iter().filter(|pod| pod.is_of(driver)).map(RawPod::pod));
    Ok(metadata.next.filter(|next| !next.is_empty()))
}

#[derive(Deserialize)]
struct RawList {
    #[serde(default)]
    metadata: RawListMeta,
    items: Vec<RawPod>,
}

#[derive(Default, Deserialize)]
struct RawListMeta {
    #[serde(rename = "continue")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct RawPod {
    metadata: RawMeta,
    spec: RawSpec,
    #[serde(default)]
    status: RawStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMeta {
    #[serde(default)]
    namespace: String,
    name: String,
    deletion_timestamp: Option<String>,
    #[serde(default)]
    labels: std::collections::BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSpec {
    node_name: Option<String>,
    service_account_name: String,
    containers: Vec<RawContainer>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawContainer {
    name: String,
    env: Vec<RawVariable>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawVariable {
    name: String,
    value: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawStatus {
    message: Option<String>,
    conditions: Vec<RawCondition>,
    container_statuses: Vec<RawContainerStatus>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    message: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawContainerStatus {
    name: String,
    ready: bool,
    restart_count: u32,
    state: RawState,
    last_state: RawState,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawState {
    running: Option<serde::de::IgnoredAny>,
    waiting: Option<RawReason>,
    terminated: Option<RawReason>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawReason {
    reason: Option<String>,
    message: Option<String>,
    exit_code: Option<i32>,
}

impl RawPod {
    /// Whether the plugin of the pod is that of a driver; one without a name is of another chart.
    fn is_of(&self, driver: &str) -> bool {
        let plugin = self.spec.containers.iter().find(|container| container.name == PLUGIN);
        let names = plugin.into_iter().flat_map(|plugin| &plugin.env).filter(|variable| variable.name == "DRIVER_NAME");
        names.into_iter().any(|variable| variable.value.as_deref() == Some(driver))
    }

    fn pod(self) -> DriverPod {
        let Self { metadata, spec, status } = self;
        let ready = status.conditions.iter().find(|condition| condition.kind == "Ready");
        let unscheduled =
            status.conditions.iter().find(|condition| condition.kind == "PodScheduled" && condition.status == "False");
        DriverPod {
            namespace: metadata.namespace,
            name: metadata.name,
            node: spec.node_name.filter(|node| !node.is_empty()),
            is_ready: ready.is_some_and(|condition| condition.status == "True"),
            is_ending: metadata.deletion_timestamp.is_some(),
            message: unscheduled.and_then(|condition| condition.message.clone()).or(status.message),
            containers: status.container_statuses.into_iter().map(RawContainerStatus::container).collect(),
            account: spec.service_account_name,
            release: release(&metadata.labels),
        }
    }
}

fn release(labels: &std::collections::BTreeMap<String, String>) -> Option<String> {
    let label = |name| labels.get(name).map(|value| format!("{name}={value}"));
    Some(format!("{},{}", label("app.kubernetes.io/name")?, label("app.kubernetes.io/instance")?))
}

impl RawContainerStatus {
    fn container(self) -> Container {
        let ended = self.state.terminated.or(self.last_state.terminated);
        Container {
            name: self.name,
            is_ready: self.ready,
            is_running: self.state.running.is_some(),
            restarts: self.restart_count,
            waiting: self.state.waiting.map(RawReason::text),
            ended: ended.map(RawReason::text),
        }
    }
}

impl RawReason {
    fn text(self) -> String {
        let Self { reason, message, exit_code } = self;
        let code = exit_code.map(|code| format!("exit code {code}"));
        let message = message.map(|message| message.trim().to_owned()).filter(|message| !message.is_empty());
        let parts: Vec<String> = [reason, code, message].into_iter().flatten().collect();
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, driver: &str, state: &Value) -> Value {
        json!({
            "metadata": {"namespace": "gpu", "name": name, "labels": {"app.kubernetes.io/name": "d", "app.kubernetes.io/instance": "r"}},
            "spec": {"nodeName": "n", "containers": [
                {"name": "plugin", "env": [{"name": "NODE_NAME"}, {"name": "DRIVER_NAME", "value": driver}]}]},
            "status": {"conditions": [{"type": "Ready", "status": "False"}], "containerStatuses": [
                {"name": "plugin", "ready": false, "restartCount": 3, "state": state}]},
        })
    }

    fn found(pods: &[Value]) -> Found {
        let mut found = Found::default();
        let list = json!({"metadata": {}, "items": pods}).to_string();
        assert_eq!(add_page(list.as_bytes(), "a", &mut found.pods).unwrap(), None);
        found
    }

    #[test]
    fn a_pod_with_a_plugin_that_runs_is_found() {
        let running = json!({"running": {"startedAt": "2026-11-30T10:00:00Z"}});
        let mut leaving = pod("old", "a", &running);
        leaving["metadata"]["deletionTimestamp"] = json!("2026-11-30T10:00:00Z");
        let found = found(&[leaving, pod("other", "b", &running), pod("new", "a", &running)]);
        let pod = of_node(&found, "a", "n").unwrap();
        assert_eq!(pod.label(), "gpu/new");
        assert_eq!(pod.release.as_deref(), Some("app.kubernetes.io/name=d,app.kubernetes.io/instance=r"));
        let error = of_node(&found, "a", "m").unwrap_err();
        assert_eq!(error.to_string(), "node m has no pod of the driver a");
    }

    #[test]
    fn a_plugin_that_does_not_run_has_a_reason() {
        let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}});
        let error = of_node(&found(&[pod("p", "a", &waiting)]), "a", "n").unwrap_err();
        let expect = "the plugin in pod gpu/p on node n does not run: ImagePullBackOff, no such image";
        assert_eq!(error.to_string(), expect);
        let ended = json!({"terminated": {"reason": "Error", "exitCode": 2, "message": "failed\n"}});
        let error = of_node(&found(&[pod("p", "a", &ended)]), "a", "n").unwrap_err();
        assert_eq!(error.to_string(), "the plugin in pod gpu/p on node n does not run: Error, exit code 2, failed");
    }
}
