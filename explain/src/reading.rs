// SPDX-License-Identifier: Apache-2.0
//! What is read of a cluster: slices, claims, classes, nodes and pods that wait. A list that is not readable leaves a note.

use dra_allocation::{Classes, NodeFacts, Pools, SliceReader, TaintRules, Usage, pod};
use kube::Client;
use serde::Deserialize;

use crate::access::Access;
use crate::request::{List, Page, ReadError, Resource, Right, object, pages};

/// What was read, and the rights that would have shown more.
#[derive(Debug, Default)]
pub struct Read<T> {
    pub found: T,
    pub missing: Vec<Right>,
}

/// All pools, or those of a node, with the taints that administrators gave to their devices.
pub async fn pools(client: &Client, node: Option<&str>) -> Result<Read<Pools>, ReadError> {
    let (pools, rules) = futures::join!(published(client, node), taint_rules(client));
    let (mut pools, Read { found: rules, missing }) = (pools?, rules?);
    rules.apply(&mut pools);
    Ok(Read { found: pools, missing })
}

/// All pools, or those of a node, with the taints of their slices alone.
pub async fn published(client: &Client, node: Option<&str>) -> Result<Pools, ReadError> {
    let fields = node.map(|node| format!("spec.nodeName={node}"));
    let list = List { fields, ..List::all(Resource::dra("resourceslices", None)) };
    let mut reader = SliceReader::default();
    let what = list.resource.what();
    let add = |page: &[u8]| reader.add_page(page).map_err(|source| ReadError::Slices { what: what.clone(), source });
    pages(client, &list, add).await?;
    Ok(reader.pools())
}

/// DeviceTaintRules are in `v1` since Kubernetes 1.37 and in `v1beta2` in 1.36; older clusters need not have them.
async fn taint_rules(client: &Client) -> Result<Read<TaintRules>, ReadError> {
    for version in ["v1", "v1beta2"] {
        let (list, mut rules) = (List::all(Resource::dra("devicetaintrules", None).at(version)), TaintRules::default());
        let what = list.resource.what();
        let add =
            |page: &[u8]| rules.add_page(page).map_err(|source| ReadError::TaintRules { what: what.clone(), source });
        match pages(client, &list, add).await {
            Ok(()) => return Ok(Read { found: rules, missing: Vec::new() }),
            Err(ReadError::Forbidden(right)) => return Ok(Read { found: rules, missing: vec![right] }),
            Err(ReadError::NotServed { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Read { found: TaintRules::default(), missing: Vec::new() })
}

/// The claims of the cluster; where they are not readable, those of the namespace.
pub async fn usage(access: &Access) -> Result<Read<Usage>, ReadError> {
    let mut missing = Vec::new();
    for namespace in [None, Some(access.namespace.as_str())] {
        let (list, mut usage) = (List::all(Resource::dra("resourceclaims", namespace)), Usage::default());
        let what = list.resource.what();
        let add = |page: &[u8]| usage.add_page(page).map_err(|source| ReadError::Claims { what: what.clone(), source });
        match pages(&access.client, &list, add).await {
            Ok(()) => return Ok(Read { found: usage, missing }),
            Err(ReadError::Forbidden(right)) => missing.push(right),
            Err(error) => return Err(error),
        }
    }
    Ok(Read { found: Usage::default(), missing })
}

/// The classes of the cluster.
pub async fn classes(client: &Client) -> Result<Classes, ReadError> {
    let (list, mut classes) = (List::all(Resource::dra("deviceclasses", None)), Classes::default());
    let what = list.resource.what();
    let add = |page: &[u8]| classes.add_page(page).map_err(|source| ReadError::Classes { what: what.clone(), source });
    pages(client, &list, add).await?;
    Ok(classes)
}

/// The nodes with labels and taints; where they are not readable, none.
pub async fn nodes(client: &Client) -> Result<Read<Vec<NodeFacts>>, ReadError> {
    let (list, mut found) = (List::all(Resource::core("nodes", None)), Vec::new());
    let what = list.resource.what();
    let add = |page: &[u8]| {
        pod::add_nodes(page, &mut found).map_err(|source| ReadError::Nodes { what: what.clone(), source })
    };
    match pages(client, &list, add).await {
        Ok(()) => Ok(Read { found, missing: Vec::new() }),
        Err(ReadError::Forbidden(right)) => Ok(Read { found: Vec::new(), missing: vec![right] }),
        Err(error) => Err(error),
    }
}

/// One object as JSON; nothing if it does not exist.
pub async fn json(client: &Client, resource: &Resource, name: &str) -> Result<Option<serde_json::Value>, ReadError> {
    let Some(body) = object(client, resource, name).await? else { return Ok(None) };
    let parsed = serde_json::from_slice(&body);
    parsed.map(Some).map_err(|source| ReadError::Json { what: format!("{} {name}", resource.what()), source })
}

/// A pod that waits for its claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingPod {
    pub namespace: String,
    pub name: String,
}

/// Pods with claims that no node was found for, of the cluster or of the namespace.
pub async fn waiting_pods(access: &Access, everywhere: bool) -> Result<Read<Vec<WaitingPod>>, ReadError> {
    let resource = Resource::core("pods", (!everywhere).then_some(access.namespace.as_str()));
    let list = List { fields: Some("status.phase=Pending".to_owned()), ..List::all(resource) };
    let mut found = Vec::new();
    let add = |page: &[u8]| {
        let page: Page<Pod> =
            serde_json::from_slice(page).map_err(|source| ReadError::Json { what: list.resource.what(), source })?;
        let next = page.next();
        found.extend(page.items.into_iter().filter_map(Pod::waiting));
        Ok(next)
    };
    match pages(&access.client, &list, add).await {
        Ok(()) => Ok(Read { found, missing: Vec::new() }),
        Err(ReadError::Forbidden(right)) => Ok(Read { found: Vec::new(), missing: vec![right] }),
        Err(error) => Err(error),
    }
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
