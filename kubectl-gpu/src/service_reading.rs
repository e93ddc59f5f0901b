// SPDX-License-Identifier: Apache-2.0
//! What is read about the service of GPUs: DeviceTaintRules with their names, and the claims that hold devices.

use kube::Client;

use crate::holders::{self, Holder};
use crate::rules::{self, Rule};
use dra_explain::reading::Read;
use dra_explain::request::{List, ReadError, Resource, object, pages};
use dra_explain::subject::{self, Event};

/// The version of DeviceTaintRules that the API server serves, and the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    pub version: &'static str,
    pub found: Vec<Rule>,
}

/// `v1` since Kubernetes 1.37, `v1beta2` in 1.36. Nothing if neither is served.
pub async fn rules(client: &Client) -> Result<Option<Rules>, ReadError> {
    for version in ["v1", "v1beta2"] {
        let (list, mut found) = (List::all(resource(version)), Vec::new());
        let what = list.resource.what();
        let add = |page: &[u8]| {
            rules::add_page(page, &mut found).map_err(|source| ReadError::Json { what: what.clone(), source })
        };
        match pages(client, &list, add).await {
            Ok(()) => return Ok(Some(Rules { version, found })),
            Err(ReadError::NotServed { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

const PLURAL: &str = "devicetaintrules";

/// DeviceTaintRules of a version.
pub fn resource(version: &'static str) -> Resource {
    Resource::dra(PLURAL, None).at(version)
}

/// The claims of the cluster, or of a namespace, that hold devices of a driver.
pub async fn holders(client: &Client, namespace: Option<&str>, driver: &str) -> Result<Vec<Holder>, ReadError> {
    let (list, mut found) = (List::all(Resource::dra("resourceclaims", namespace)), Vec::new());
    let what = list.resource.what();
    let add = |page: &[u8]| {
        holders::add_page(page, driver, &mut found).map_err(|source| ReadError::Json { what: what.clone(), source })
    };
    pages(client, &list, add).await?;
    Ok(found)
}

/// The devices that one claim holds; none if the claim is gone.
pub async fn devices_of(client: &Client, holder: &Holder, driver: &str) -> Result<Vec<Holder>, ReadError> {
    let resource = Resource::dra("resourceclaims", Some(&holder.namespace));
    let Some(body) = object(client, &resource, &holder.claim).await? else { return Ok(Vec::new()) };
    holders::read_claim(&body, driver).map_err(|source| ReadError::Json { what: holder.label(), source })
}

/// The Events of the kubelet plugin about nodes, the oldest first.
pub async fn node_events(client: &Client, driver: &str, node: Option<&str>) -> Result<Vec<Event>, ReadError> {
    let name = node.map(|node| format!(",involvedObject.name={node}")).unwrap_or_default();
    let fields = Some(format!("involvedObject.kind=Node,reportingComponent={driver}/kubelet-plugin{name}"));
    let (list, mut found) = (List { fields, ..List::all(Resource::core("events", None)) }, Vec::new());
    let what = list.resource.what();
    let add = |page: &[u8]| {
        let page = subject::events(page);
        let (events, next) = page.map_err(|source| ReadError::Json { what: what.clone(), source })?;
        found.extend(events);
        Ok(next)
    };
    pages(client, &list, add).await?;
    found.sort_by(|one: &Event, other| one.time.cmp(&other.time));
    Ok(found)
}

/// What a list has; where it is not readable, nothing and the right that is missing.
pub fn if_permitted<T: Default>(read: Result<T, ReadError>) -> Result<Read<T>, ReadError> {
    match read {
        Ok(found) => Ok(Read { found, missing: Vec::new() }),
        Err(ReadError::Forbidden(right)) => Ok(Read { found: T::default(), missing: vec![right] }),
        Err(error) => Err(error),
    }
}
