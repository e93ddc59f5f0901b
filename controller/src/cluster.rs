// SPDX-License-Identifier: Apache-2.0
//! The requests of this process to the API server. Each has a timeout.

use std::error::Error;
use std::time::Duration;

use dra_model::NodeName;
use dra_resource::{DriverName, Write};
use futures::{Stream, TryStreamExt as _};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::resource::v1::ResourceSlice;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::core::{PartialObjectMeta, Status};
use kube::runtime::watcher;
use kube::{Api, Client};

use crate::workload::{DaemonSet, Pod, daemon_set_resource, pod_resource};

/// Timeout of a request; watches have none.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Namespace of Events about cluster-scoped objects.
const EVENT_NAMESPACE: &str = "default";

/// A failed request.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("the API server refused the request: {message} ({reason})")]
    Refused {
        /// HTTP status code.
        code: u16,
        /// `reason` of the API's Status, such as `Conflict`.
        reason: String,
        message: String,
    },
    #[error("the API server did not answer within {} s", REQUEST_TIMEOUT.as_secs())]
    TimedOut,
    #[error("failed to reach the API server")]
    Unreachable(#[source] Cause),
    #[error("failed to read the answer of the API server")]
    InvalidResponse(#[source] Cause),
}

type Cause = Box<dyn Error + Send + Sync>;

impl RequestError {
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// Whether another client changed or created the object.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// Whether validation or an admission policy refused the object.
    pub fn is_invalid(&self) -> bool {
        self.code() == Some(422)
    }

    /// Whether a repeated request would fail in the same way.
    pub fn is_final(&self) -> bool {
        self.code().is_some_and(|code| (400..500).contains(&code) && code != 429 && code != 409)
    }

    fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::TimedOut | Self::Unreachable(_) | Self::InvalidResponse(_) => None,
        }
    }
}

/// A client for the slices of one driver, on one node or on all nodes.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    slices: Api<ResourceSlice>,
    selector: String,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("selector", &self.selector).finish_non_exhaustive()
    }
}

impl Cluster {
    /// A client for all nodes if `node` is absent.
    pub fn new(client: Client, driver: &DriverName, node: Option<&NodeName>) -> Self {
        let selector = match node {
            Some(node) => format!("spec.driver={driver},spec.nodeName={node}"),
            None => format!("spec.driver={driver}"),
        };
        Self { slices: Api::all(client.clone()), client, selector }
    }

    /// Lists the slices in the storage, not in a cache of the API server.
    pub async fn slices(&self) -> Result<Vec<ResourceSlice>, RequestError> {
        let query = ListParams::default().fields(&self.selector);
        Ok(with_timeout(self.slices.list(&query)).await?.items)
    }

    /// Reads a slice by name, of any driver and node.
    pub async fn slice(&self, name: &str) -> Result<Option<ResourceSlice>, RequestError> {
        with_timeout(self.slices.get_opt(name)).await
    }

    /// Sends a write and returns the stored slice, or nothing after a delete.
    pub async fn write(&self, write: &Write) -> Result<Option<ResourceSlice>, RequestError> {
        match write {
            Write::Delete { name, precondition } => {
                let expected = Preconditions {
                    uid: precondition.uid.clone(),
                    resource_version: precondition.resource_version.clone(),
                };
                self.delete(name, &DeleteParams::default().preconditions(expected)).await.map(|()| None)
            }
            Write::Update(slice) => {
                let query = PostParams::default();
                with_timeout(self.slices.replace(write.slice_name(), &query, slice)).await.map(Some)
            }
            Write::Create(slice) => with_timeout(self.slices.create(&PostParams::default(), slice)).await.map(Some),
        }
    }

    /// Deletes a slice by name; succeeds if it does not exist.
    pub async fn delete(&self, name: &str, how: &DeleteParams) -> Result<(), RequestError> {
        allow_not_found(with_timeout(self.slices.delete(name, how)).await)
    }

    /// The slice that the API server would store, by a dry run.
    pub async fn dry_run(&self, slice: &ResourceSlice) -> Result<ResourceSlice, RequestError> {
        let query = PostParams { dry_run: true, ..PostParams::default() };
        with_timeout(self.slices.create(&query, slice)).await
    }

    pub async fn version(&self) -> Result<ServerVersion, RequestError> {
        let info = with_timeout(self.client.apiserver_version()).await?;
        Ok(ServerVersion {
            major: leading_number(&info.major),
            minor: leading_number(&info.minor),
            full: info.git_version,
        })
    }

    /// Lists the pods that match a label selector.
    pub(crate) async fn pods(&self, namespace: &str, selector: &str) -> Result<Vec<Pod>, RequestError> {
        let pods: Api<Pod> = Api::namespaced_with(self.client.clone(), namespace, &pod_resource());
        Ok(with_timeout(pods.list(&ListParams::default().labels(selector))).await?.items)
    }

    /// Reads a DaemonSet; nothing if it does not exist.
    pub(crate) async fn daemon_set(&self, namespace: &str, name: &str) -> Result<Option<DaemonSet>, RequestError> {
        with_timeout(self.daemon_sets(namespace).get_opt(name)).await
    }

    /// Deletes a DaemonSet in the foreground: it exists until its pods are deleted. Succeeds if it does not exist.
    pub async fn delete_daemon_set(&self, namespace: &str, name: &str) -> Result<(), RequestError> {
        allow_not_found(with_timeout(self.daemon_sets(namespace).delete(name, &DeleteParams::foreground())).await)
    }

    fn daemon_sets(&self, namespace: &str) -> Api<DaemonSet> {
        Api::namespaced_with(self.client.clone(), namespace, &daemon_set_resource())
    }

    pub async fn node_uid(&self, node: &NodeName) -> Result<String, RequestError> {
        let nodes: Api<PartialObjectMeta<Node>> = Api::all(self.client.clone());
        Ok(with_timeout(nodes.get_metadata(node.as_str())).await?.metadata.uid.unwrap_or_default())
    }

    /// Creates an Event about a cluster-scoped object.
    pub async fn post_event(&self, event: &Event) -> Result<(), RequestError> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), EVENT_NAMESPACE);
        with_timeout(events.create(&PostParams::default(), event)).await.map(drop)
    }

    /// Watches the slices, metadata only. The stream begins with a list and ends with a failure, after which a new watch must be
    /// opened.
    pub fn watch(
        &self,
    ) -> impl Stream<Item = Result<watcher::Event<PartialObjectMeta<ResourceSlice>>, RequestError>> + use<> {
        let slices: Api<PartialObjectMeta<ResourceSlice>> = Api::all(self.client.clone());
        watcher(slices, watcher::Config::default().fields(&self.selector)).map_err(watch_failed)
    }
}

/// The version of the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerVersion {
    pub major: u32,
    pub minor: u32,
    /// `gitVersion`, such as `v1.37.0`.
    pub full: String,
}

/// Some distributions append a plus sign to the minor version.
fn leading_number(text: &str) -> u32 {
    text.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// A deleted object may be deleted again.
fn allow_not_found<T>(answer: Result<T, RequestError>) -> Result<(), RequestError> {
    match answer {
        Err(error) if !error.is_not_found() => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

async fn with_timeout<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, RequestError> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(request_failed(error)),
        Err(_elapsed) => Err(RequestError::TimedOut),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the error type of a library with further variants")]
fn request_failed(error: kube::Error) -> RequestError {
    match error {
        kube::Error::Api(status) => refused(*status),
        // Without the layers of the HTTP client, which all have the text that the client failed to connect.
        kube::Error::Service(cause) => RequestError::Unreachable(innermost(cause.as_ref())),
        error => RequestError::InvalidResponse(Box::new(error)),
    }
}

fn watch_failed(error: watcher::Error) -> RequestError {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => request_failed(error),
        watcher::Error::WatchError(status) => refused(*status),
        watcher::Error::NoResourceVersion => RequestError::InvalidResponse(Box::new(error)),
    }
}

fn refused(status: Status) -> RequestError {
    RequestError::Refused { code: status.code, reason: status.reason, message: status.message }
}

/// The text of the innermost cause.
fn innermost(error: &(dyn Error + 'static)) -> Cause {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.last().map(ToString::to_string).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minor_versions_may_have_a_suffix() {
        assert_eq!([leading_number("37"), leading_number("36+"), leading_number("")], [37, 36, 0]);
    }
}
