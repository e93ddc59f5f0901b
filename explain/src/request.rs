// SPDX-License-Identifier: Apache-2.0
//! Requests to the API server: lists page by page, and single objects. An answer that RBAC refuses names the right that is missing.

use std::borrow::Cow;
use std::ops::Deref;

use dra_allocation::classes::ClassesError;
use dra_allocation::pod::NodesError;
use dra_allocation::slices::SlicesError;
use dra_allocation::taint_rules::TaintRulesError;
use dra_allocation::usage::ClaimsError;
use dra_model::Advice;
use http::Request;
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde::Deserialize;

/// Objects in one page: a page of slices of large GPU nodes has some 20 MB.
const PAGE: usize = 250;

/// Something that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("{0} is missing")]
    Forbidden(Right),
    #[error("the API server does not accept the credentials of the kubeconfig")]
    Unauthorized,
    #[error("the API server does not serve {what}")]
    NotServed { what: String },
    #[error("failed to {verb} {what} at the API server")]
    Request { verb: &'static str, what: String, source: Box<kube::Error> },
    #[error("the API server refused to {verb} {what} with status {code}: {message}")]
    Refused { verb: &'static str, what: String, code: u16, message: String },
    #[error("failed to read {what}")]
    Slices { what: String, source: SlicesError },
    #[error("failed to read {what}")]
    Claims { what: String, source: ClaimsError },
    #[error("failed to read {what}")]
    Nodes { what: String, source: NodesError },
    #[error("failed to read {what}")]
    Classes { what: String, source: ClassesError },
    #[error("failed to read {what}")]
    TaintRules { what: String, source: TaintRulesError },
    #[error("failed to parse {what}")]
    Json { what: String, source: serde_json::Error },
}

impl Advice for ReadError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Forbidden(right) => Some(right.advice().into()),
            Self::Unauthorized => Some("log in to the cluster again, and test it with `kubectl get pods`".into()),
            Self::NotServed { .. } => Some("ask a cluster with Kubernetes 1.34 or newer".into()),
            Self::Request { .. } => Some("test the connection with `kubectl get --raw /readyz`".into()),
            Self::Refused { .. }
            | Self::Slices { .. }
            | Self::Claims { .. }
            | Self::Nodes { .. }
            | Self::Classes { .. }
            | Self::TaintRules { .. }
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
    pub fn advice(&self) -> String {
        let scope = self.namespace.as_ref().map_or_else(|| "-A".to_owned(), |namespace| format!("-n {namespace}"));
        format!("ask an administrator for it; `kubectl auth can-i {} {} {scope}` tests it", self.verb, self.resource)
            .replace(" -A`", "`")
    }
}

/// A kind of objects, in a namespace, in all of them or without one.
#[derive(Debug, Clone)]
pub struct Resource {
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    namespace: Option<String>,
}

impl Resource {
    /// Of `resource.k8s.io`.
    pub fn dra(plural: &'static str, namespace: Option<&str>) -> Self {
        Self { group: "resource.k8s.io", version: "v1", plural, namespace: namespace.map(str::to_owned) }
    }

    /// The same kind in an older version of its API.
    pub fn at(self, version: &'static str) -> Self {
        Self { version, ..self }
    }

    /// Of the core group.
    pub fn core(plural: &'static str, namespace: Option<&str>) -> Self {
        Self { group: "", version: "v1", plural, namespace: namespace.map(str::to_owned) }
    }

    /// Of `apps`.
    pub fn apps(plural: &'static str, namespace: Option<&str>) -> Self {
        Self { group: "apps", version: "v1", plural, namespace: namespace.map(str::to_owned) }
    }

    pub fn path(&self) -> String {
        let base = if self.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", self.group) };
        let namespace = self.namespace.as_ref().map(|name| format!("/namespaces/{name}")).unwrap_or_default();
        format!("{base}/{}{namespace}/{}", self.version, self.plural)
    }

    /// The path of one object.
    pub fn path_of(&self, name: &str) -> String {
        format!("{}/{}", self.path(), escaped(name))
    }

    fn right(&self, verb: &'static str) -> Right {
        let resource =
            if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) };
        Right { verb, resource, namespace: self.namespace.clone() }
    }

    /// For texts.
    pub fn what(&self) -> String {
        self.right("list").resource
    }
}

/// Objects of a kind, all or those with values of fields.
#[derive(Debug, Clone)]
pub struct List {
    pub resource: Resource,
    /// A field selector.
    pub fields: Option<String>,
    /// A label selector.
    pub labels: Option<String>,
}

impl List {
    pub fn all(resource: Resource) -> Self {
        Self { resource, fields: None, labels: None }
    }

    /// Objects with labels.
    pub fn labelled(resource: Resource, labels: &str) -> Self {
        Self { labels: Some(labels.to_owned()), ..Self::all(resource) }
    }

    fn path(&self, next: Option<&str>) -> String {
        let fields = self.fields.as_ref().map(|fields| format!("&fieldSelector={}", escaped(fields)));
        let labels = self.labels.as_ref().map(|labels| format!("&labelSelector={}", escaped(labels)));
        let next = next.map(|next| format!("&continue={}", escaped(next)));
        let [fields, labels, next] = [fields, labels, next].map(Option::unwrap_or_default);
        format!("{}?limit={PAGE}{fields}{labels}{next}", self.resource.path())
    }
}

/// One answer of a list.
#[derive(Debug, Deserialize)]
pub struct Page<T> {
    #[serde(default)]
    metadata: PageMetadata,
    pub items: Vec<T>,
}

#[derive(Debug, Default, Deserialize)]
struct PageMetadata {
    #[serde(rename = "continue")]
    next: Option<String>,
}

impl<T> Page<T> {
    /// The token of the next page, if there is one.
    pub fn next(&self) -> Option<String> {
        self.metadata.next.clone().filter(|next| !next.is_empty())
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
        let page = request(client, &list.path(next.as_deref()), &list.resource, "list").await?;
        match add(&page)? {
            Some(token) => next = Some(token),
            None => return Ok(()),
        }
    }
}

/// Reads one object; nothing if it does not exist.
pub async fn object(
    client: &Client,
    resource: &Resource,
    name: &str,
) -> Result<Option<impl Deref<Target = [u8]> + use<>>, ReadError> {
    match request(client, &resource.path_of(name), resource, "get").await {
        Ok(body) => Ok(Some(body)),
        Err(ReadError::NotServed { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn request(
    client: &Client,
    path: &str,
    resource: &Resource,
    verb: &'static str,
) -> Result<impl Deref<Target = [u8]> + use<>, ReadError> {
    answered(client, Request::get(path).body(Body::empty()), resource, verb).await
}

/// Sends a request and returns the body of its answer. The verb is that of the right which it needs.
pub async fn answered(
    client: &Client,
    request: Result<Request<Body>, http::Error>,
    resource: &Resource,
    verb: &'static str,
) -> Result<impl Deref<Target = [u8]> + use<>, ReadError> {
    let failed = |source| ReadError::Request { verb, what: resource.what(), source: Box::new(source) };
    let request = request.map_err(|source| failed(kube::Error::HttpError(source)))?;
    let (head, body) = client.send(request).await.map_err(failed)?.into_parts();
    let body = body.collect().await.map_err(failed)?.to_bytes();
    match head.status.as_u16() {
        200 | 201 => Ok(body),
        401 => Err(ReadError::Unauthorized),
        403 => Err(ReadError::Forbidden(resource.right(verb))),
        404 => Err(ReadError::NotServed { what: resource.what() }),
        code => Err(ReadError::Refused { verb, what: resource.what(), code, message: message(&body) }),
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
