// SPDX-License-Identifier: Apache-2.0
//! Reads lists of the API server page by page, and says which right is missing.

use std::borrow::Cow;
use std::ops::Deref;

use dra_allocation::pod::NodesError;
use dra_allocation::slices::SlicesError;
use dra_allocation::usage::ClaimsError;
use dra_allocation::{Pools, SliceReader, Usage};
use dra_model::Advice;
use http::Request;
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde::Deserialize;

use crate::access::Access;

/// Objects in one page: a page of slices of large GPU nodes has some 20 MB.
const PAGE: usize = 250;

/// A list that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("{0} is missing")]
    Forbidden(Right),
    #[error("the API server does not serve {what}")]
    NotServed { what: String },
    #[error("failed to read {what} from the API server")]
    Request { what: String, source: Box<kube::Error> },
    #[error("the API server refused to list {what} with status {code}: {message}")]
    Refused { what: String, code: u16, message: String },
    #[error("failed to read {what}")]
    Slices { what: String, source: SlicesError },
    #[error("failed to read {what}")]
    Claims { what: String, source: ClaimsError },
    #[error("failed to read {what}")]
    Nodes { what: String, source: NodesError },
    #[error("failed to parse {what}")]
    Json { what: String, source: serde_json::Error },
}

impl Advice for ReadError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Forbidden(right) => Some(right.advice().into()),
            Self::NotServed { .. } => Some("ask a cluster with Kubernetes 1.34 or newer".into()),
            Self::Request { .. } => Some("test the connection with `kubectl get --raw /readyz`".into()),
            Self::Refused { .. }
            | Self::Slices { .. }
            | Self::Claims { .. }
            | Self::Nodes { .. }
            | Self::Json { .. } => None,
        }
    }
}

/// A right that RBAC grants.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    pub verb: &'static str,
    /// Plural name of the resource with its group.
    pub resource: String,
    /// All namespaces if absent.
    pub namespace: Option<String>,
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the right to {} {}", self.verb, self.resource)?;
        match &self.namespace {
            Some(namespace) => write!(f, " in namespace {namespace}"),
            None => f.write_str(" in the cluster"),
        }
    }
}

impl Right {
    fn advice(&self) -> String {
        let scope = self.namespace.as_ref().map_or_else(|| "-A".to_owned(), |namespace| format!("-n {namespace}"));
        format!("ask an administrator for it; `kubectl auth can-i {} {} {scope}` tests it", self.verb, self.resource)
            .replace(" -A`", "`")
    }
}

/// What is listed: a path of the API, without the parameters of pages.
#[derive(Debug, Clone)]
pub struct List {
    group: &'static str,
    resource: &'static str,
    namespace: Option<String>,
    fields: Option<String>,
}

impl List {
    /// All ResourceSlices, or those of one node.
    pub fn slices(node: Option<&str>) -> Self {
        let fields = node.map(|node| format!("spec.nodeName={node}"));
        Self { group: "resource.k8s.io", resource: "resourceslices", namespace: None, fields }
    }

    pub fn claims(namespace: Option<&str>) -> Self {
        let namespace = namespace.map(str::to_owned);
        Self { group: "resource.k8s.io", resource: "resourceclaims", namespace, fields: None }
    }

    pub fn pending_pods(namespace: Option<&str>) -> Self {
        let fields = Some("status.phase=Pending".to_owned());
        Self { group: "", resource: "pods", namespace: namespace.map(str::to_owned), fields }
    }

    fn path(&self, next: Option<&str>) -> String {
        let base = if self.group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{}/v1", self.group) };
        let namespace = self.namespace.as_ref().map(|name| format!("/namespaces/{name}")).unwrap_or_default();
        let fields = self.fields.as_ref().map(|fields| format!("&fieldSelector={}", escaped(fields)));
        let next = next.map(|next| format!("&continue={}", escaped(next)));
        let (fields, next) = (fields.unwrap_or_default(), next.unwrap_or_default());
        format!("{base}{namespace}/{}?limit={PAGE}{fields}{next}", self.resource)
    }

    fn right(&self) -> Right {
        let resource =
            if self.group.is_empty() { self.resource.to_owned() } else { format!("{}.{}", self.resource, self.group) };
        Right { verb: "list", resource, namespace: self.namespace.clone() }
    }

    /// For texts.
    fn what(&self) -> String {
        self.right().resource
    }
}

/// The characters that are not literal in the value of a query.
fn escaped(text: &str) -> String {
    let literal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.bytes()
        .map(|byte| if literal(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// Reads the pages of a list; `add` takes each and returns the token of the next one.
pub async fn pages(
    client: &Client,
    list: &List,
    mut add: impl FnMut(&[u8]) -> Result<Option<String>, ReadError>,
) -> Result<(), ReadError> {
    let mut next = None;
    loop {
        let page = request(client, &list.path(next.as_deref()), list).await?;
        match add(&page)? {
            Some(token) => next = Some(token),
            None => return Ok(()),
        }
    }
}

async fn request(client: &Client, path: &str, list: &List) -> Result<impl Deref<Target = [u8]> + use<>, ReadError> {
    let failed = |source| ReadError::Request { what: list.what(), source: Box::new(source) };
    let request = Request::get(path).body(Body::empty()).map_err(|source| failed(kube::Error::HttpError(source)))?;
    let (head, body) = client.send(request).await.map_err(failed)?.into_parts();
    let body = body.collect().await.map_err(failed)?.to_bytes();
    match head.status.as_u16() {
        200 => Ok(body),
        403 => Err(ReadError::Forbidden(list.right())),
        404 => Err(ReadError::NotServed { what: list.what() }),
        code => Err(ReadError::Refused { what: list.what(), code, message: message(&body) }),
    }
}

/// The message of a Status of the API.
fn message(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Status {
        message: String,
    }
    serde_json::from_slice(body).map(|Status { message }| message).unwrap_or_default()
}

/// What was read, and the rights that would have shown more.
#[derive(Debug, Default)]
pub struct Read<T> {
    pub found: T,
    pub missing: Vec<Right>,
}

/// All pools, or those of a node.
pub async fn pools(client: &Client, node: Option<&str>) -> Result<Pools, ReadError> {
    let (list, mut reader) = (List::slices(node), SliceReader::default());
    let add = |page: &[u8]| reader.add_page(page).map_err(|source| ReadError::Slices { what: list.what(), source });
    pages(client, &list, add).await?;
    Ok(reader.pools())
}

/// The claims of the cluster; where they are not readable, those of the namespace.
pub async fn usage(access: &Access) -> Result<Read<Usage>, ReadError> {
    let mut missing = Vec::new();
    for namespace in [None, Some(access.namespace.as_str())] {
        let (list, mut usage) = (List::claims(namespace), Usage::default());
        let add = |page: &[u8]| usage.add_page(page).map_err(|source| ReadError::Claims { what: list.what(), source });
        match pages(&access.client, &list, add).await {
            Ok(()) => return Ok(Read { found: usage, missing }),
            Err(ReadError::Forbidden(right)) => missing.push(right),
            Err(error) => return Err(error),
        }
    }
    Ok(Read { found: Usage::default(), missing })
}

/// A pod that waits for its claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingPod {
    pub namespace: String,
    pub name: String,
}

/// Pods with claims that no node was found for, of the cluster or of the namespace.
pub async fn waiting_pods(access: &Access, everywhere: bool) -> Result<Read<Vec<WaitingPod>>, ReadError> {
    let list = List::pending_pods((!everywhere).then_some(access.namespace.as_str()));
    let mut found = Vec::new();
    let add = |page: &[u8]| {
        let page: PodList =
            serde_json::from_slice(page).map_err(|source| ReadError::Json { what: list.what(), source })?;
        found.extend(page.items.into_iter().filter_map(Pod::waiting));
        Ok(page.metadata.next.filter(|next| !next.is_empty()))
    };
    match pages(&access.client, &list, add).await {
        Ok(()) => Ok(Read { found, missing: Vec::new() }),
        Err(ReadError::Forbidden(right)) => Ok(Read { found: Vec::new(), missing: vec![right] }),
        Err(error) => Err(error),
    }
}

#[derive(Deserialize)]
struct PodList {
    #[serde(default)]
    metadata: ListMeta,
    items: Vec<Pod>,
}

#[derive(Default, Deserialize)]
struct ListMeta {
    #[serde(rename = "continue")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Pod {
    metadata: Metadata,
    spec: PodSpec,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    node_name: Option<String>,
    #[serde(default)]
    resource_claims: Vec<serde::de::IgnoredAny>,
}

impl Pod {
    fn waiting(self) -> Option<WaitingPod> {
        let Self { metadata, spec } = self;
        let waits = spec.node_name.is_none_or(|node| node.is_empty()) && !spec.resource_claims.is_empty();
        waits.then_some(WaitingPod { namespace: metadata.namespace, name: metadata.name })
    }
}
