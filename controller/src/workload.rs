// SPDX-License-Identifier: Apache-2.0
//! The fields of pods and DaemonSets that this process reads. The complete types would be a tenth of its code, and all of its
//! code is resident.

use k8s_openapi::api::apps::v1 as apps;
use k8s_openapi::api::core::v1 as core;
use kube::core::{ApiResource, NotUsed, Object};
use serde::{Deserialize, Serialize};

pub(crate) type Pod = Object<PodSpec, PodStatus>;
pub(crate) type DaemonSet = Object<NotUsed, DaemonSetStatus>;

pub(crate) fn pod_resource() -> ApiResource {
    ApiResource::erase::<core::Pod>(&())
}

pub(crate) fn daemon_set_resource() -> ApiResource {
    ApiResource::erase::<apps::DaemonSet>(&())
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodSpec {
    pub node_name: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodStatus {
    pub conditions: Vec<Condition>,
    pub init_container_statuses: Vec<ContainerStatus>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerStatus {
    pub state: ContainerState,
    pub last_state: ContainerState,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ContainerState {
    pub terminated: Option<Termination>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Termination {
    pub exit_code: i32,
    pub message: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DaemonSetStatus {
    pub observed_generation: Option<i64>,
    pub number_ready: i32,
    pub desired_number_scheduled: i32,
}

pub(crate) fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.node_name.as_deref()
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    conditions.iter().any(|condition| condition.kind == "Ready" && condition.status == "True")
}
