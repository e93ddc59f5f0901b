// SPDX-License-Identifier: Apache-2.0
//! Reads what `migrate` judges: nodes, DaemonSets, pods, claims and slices of the cluster.

use std::collections::BTreeMap;

use dra_allocation::device::Device;
use dra_allocation::node::NodeFacts;
use dra_allocation::{Pool, Pools};
use dra_explain::reading::{self, Read};
use dra_explain::request::{List, Page, ReadError, Resource, Right, pages};
use dra_model::device::is_name_of_nvidia;
use kube::Client;
use serde::de::DeserializeOwned;

use crate::holders::Holder;
use crate::migrate::parse::{DaemonSet, Pod, RawNode, RawPod, RawSet};
use crate::migrate::{Claim, Cluster, DRIVER_OF_NVIDIA, Node};
use crate::service_reading::{self, if_permitted};

/// The cluster, as far as the rights of the user reach.
pub(super) async fn cluster(client: &Client, driver: &str) -> Result<Cluster, ReadError> {
    read(client, driver).await.map(|Read { found, missing: _ }| found)
}

/// The cluster as a whole: a move that does not see all owners and users could give a GPU two owners.
pub(super) async fn whole(client: &Client, driver: &str) -> Result<Cluster, ReadError> {
    let Read { found, missing } = read(client, driver).await?;
    match missing.into_iter().next() {
        Some(right) => Err(ReadError::Forbidden(right)),
        None => Ok(found),
    }
}

async fn read(client: &Client, driver: &str) -> Result<Read<Cluster>, ReadError> {
    let (nodes, sets, pods, claims, pools) = futures::join!(
        items::<RawNode>(client, Resource::core("nodes", None)),
        items::<RawSet>(client, Resource::apps("daemonsets", None)),
        items::<RawPod>(client, Resource::core("pods", None)),
        claims(client, driver),
        reading::published(client, None),
    );
    let (sets, pods, claims) = (if_permitted(sets)?, if_permitted(pods)?, if_permitted(claims)?);
    let pools = pools?;
    let mut nodes: BTreeMap<String, Node> = nodes?.into_iter().map(|raw| node(raw, driver, &pools)).collect();
    let mut cluster = Cluster { driver: driver.to_owned(), ..Cluster::default() };
    for set in sets.found.into_iter().filter_map(|raw| raw.set(driver)) {
        match set {
            DaemonSet::Theirs(component) => cluster.components.push(component),
            DaemonSet::Ours(own) => cluster.own = Some(own),
        }
    }
    for pod in pods.found.into_iter().filter_map(RawPod::pod) {
        match pod {
            Pod::OfSet(pod) => cluster.set_pods.push(pod),
            Pod::User(name, user) => {
                if let Some(node) = nodes.get_mut(&name) {
                    node.plugin_users.push(user);
                }
            }
        }
    }
    for (pool, claim) in claims.found {
        if let Some(node) = nodes.get_mut(&pool) {
            node.claims.push(claim);
        }
    }
    cluster.nodes = nodes.into_values().collect();
    let missing = [
        (sets.missing, "NVIDIA's components are not found"),
        (pods.missing, "pods with GPUs of the device plugin are not counted"),
        (claims.missing, "pods with claims are not counted"),
    ];
    cluster.notes = missing.iter().flat_map(|(rights, hidden)| notes(rights, hidden)).collect();
    Ok(Read { found: cluster, missing: missing.into_iter().flat_map(|(rights, _)| rights).collect() })
}

fn notes(rights: &[Right], hidden: &str) -> Vec<String> {
    rights.iter().map(|right| format!("{right} is missing: {hidden}")).collect()
}

/// All objects of a kind.
pub(super) async fn items<T: DeserializeOwned>(client: &Client, resource: Resource) -> Result<Vec<T>, ReadError> {
    let (list, mut found) = (List::all(resource), Vec::new());
    let add = |page: &[u8]| {
        let parsed: Result<Page<T>, _> = serde_json::from_slice(page);
        let page = parsed.map_err(|source| ReadError::Json { what: list.resource.what(), source })?;
        let next = page.next();
        found.extend(page.items);
        Ok(next)
    };
    pages(client, &list, add).await?;
    Ok(found)
}

/// The claims with devices of either driver, by the pool of the device.
async fn claims(client: &Client, driver: &str) -> Result<Vec<(String, Claim)>, ReadError> {
    let ours = service_reading::holders(client, None, driver).await?;
    let theirs = if driver == DRIVER_OF_NVIDIA {
        Vec::new()
    } else {
        service_reading::holders(client, None, DRIVER_OF_NVIDIA).await?
    };
    let ours = ours.into_iter().map(|holder| {
        let is_of_nvidia = driver == DRIVER_OF_NVIDIA && is_name_of_nvidia(&holder.device);
        claim(holder, is_of_nvidia)
    });
    Ok(ours.chain(theirs.into_iter().map(|holder| claim(holder, true))).collect())
}

fn claim(holder: Holder, is_of_nvidia: bool) -> (String, Claim) {
    let Holder { namespace, claim: name, pods, pool, device, .. } = holder;
    (pool, Claim { namespace, name, device, pods, is_of_nvidia })
}

fn node(raw: RawNode, driver: &str, pools: &Pools) -> (String, Node) {
    let (name, labels, offered) = raw.node();
    let labels = labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
    let facts = NodeFacts { name: name.as_str().into(), labels, taints: Vec::new(), is_read: true };
    let of_driver = |driver: &str| -> Vec<&Device> {
        let pools = pools.iter().filter(|pool| *pool.driver == *driver && *pool.name == *name);
        pools.flat_map(Pool::devices).collect()
    };
    let is_shared_name = driver == DRIVER_OF_NVIDIA;
    let node = Node {
        facts,
        offered,
        plugin_users: Vec::new(),
        claims: Vec::new(),
        has_own_devices: of_driver(driver).iter().any(|device| !(is_shared_name && is_name_of_nvidia(&device.name))),
        nvidia_devices: of_driver(DRIVER_OF_NVIDIA)
            .iter()
            .filter(|device| !is_shared_name || is_name_of_nvidia(&device.name))
            .count(),
    };
    (name, node)
}
