// SPDX-License-Identifier: Apache-2.0
//! What is wrong with GPUs: from taints, DeviceTaintRules, Events of the driver and conditions of claims. Pure.

mod causes;
mod table;

use std::collections::BTreeMap;

use dra_allocation::device::Taint;
use dra_allocation::node::Effect;
use dra_allocation::{Device, Pool, Pools};
use serde::Serialize;

use crate::holders::{Condition, EmptyEffect, Eviction, Holder};
use crate::rules::Rule;
use crate::status::{gpu_name, pool_fault};
use dra_explain::subject::Event;

pub use causes::{By, Explained, Place, explained};
pub use table::table;

/// The answer of `kubectl gpu faults`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// Of the driver, with and without faults.
    pub total: Total,
    /// Only nodes on which something is wrong.
    pub nodes: Vec<Node>,
    /// Rights that would show more, with what is not shown without them.
    pub incomplete: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Total {
    pub nodes: usize,
    pub gpus: usize,
}

/// How many devices of a GPU have a taint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Share {
    pub tainted: usize,
    pub all: usize,
}

/// A node on which something is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Node {
    pub name: String,
    /// Why the scheduler does not use the devices of the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    pub gpus: Vec<Gpu>,
    /// Warnings of the driver that are about none of the GPUs, the newest of each reason.
    pub events: Vec<Event>,
}

/// A GPU with a fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gpu {
    pub name: String,
    pub uuid: Option<String>,
    pub product: Option<String>,
    pub faults: Vec<Fault>,
    /// What the driver recorded about it, the newest Event of each reason.
    pub events: Vec<Event>,
    /// Who holds devices of it.
    pub claims: Vec<Claim>,
}

/// One thing that is wrong, or that an administrator decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// `key=value:effect`.
    pub taint: String,
    /// RFC 3339; absent where it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    pub by: By,
    pub devices: Share,
    #[serde(flatten)]
    pub explained: Explained,
}

/// A claim that holds devices of the GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claim {
    pub namespace: String,
    pub name: String,
    pub pods: Vec<String>,
    pub device: String,
    /// What the taints of the GPU do to its pods.
    pub then: String,
    /// Conditions that are not true.
    pub conditions: Vec<Condition>,
}

/// What was read of the cluster.
#[derive(Debug)]
pub struct Seen<'a> {
    /// With the taints of the slices alone.
    pub pools: &'a Pools,
    pub driver: &'a str,
    pub rules: &'a [Rule],
    pub holders: &'a [Holder],
    /// Of the driver, about nodes, the oldest first.
    pub events: &'a [Event],
    pub empty_effect: EmptyEffect,
    pub incomplete: Vec<String>,
}

/// What is wrong, node by node.
pub fn faults(seen: Seen<'_>) -> Faults {
    let pools: Vec<&Pool> = seen.pools.iter().filter(|pool| *pool.driver == *seen.driver).collect();
    let gpus = pools.iter().map(|pool| by_gpu(pool).len()).sum();
    let nodes = pools.iter().map(|pool| node(pool, &seen));
    let is_wrong = |node: &Node| node.fault.is_some() || !node.gpus.is_empty() || !node.events.is_empty();
    Faults {
        total: Total { nodes: pools.len(), gpus },
        nodes: nodes.filter(is_wrong).collect(),
        incomplete: seen.incomplete,
    }
}

fn by_gpu(pool: &Pool) -> BTreeMap<String, Vec<&Device>> {
    let mut gpus: BTreeMap<String, Vec<&Device>> = BTreeMap::new();
    for device in pool.devices() {
        gpus.entry(gpu_name(device, &pool.driver)).or_default().push(device);
    }
    gpus
}

fn node(pool: &Pool, seen: &Seen<'_>) -> Node {
    let of_node: Vec<&Event> = seen.events.iter().filter(|event| event.object == *pool.name).collect();
    // Each form of a drained GPU has a rule, so a large cluster has many.
    let rules: Vec<&Rule> = seen.rules.iter().filter(|rule| rule.may_match(&pool.name)).collect();
    let gpus = by_gpu(pool);
    let uuids: Vec<&str> = gpus.values().filter_map(|devices| uuid(devices, pool)).collect();
    let about_none = |event: &&Event| event.is_warning && !uuids.iter().any(|uuid| event.message.contains(uuid));
    Node {
        name: pool.name.to_string(),
        fault: pool.fault.as_ref().map(pool_fault),
        gpus: gpus.iter().filter_map(|(name, devices)| gpu(name, devices, (pool, &rules), &of_node, seen)).collect(),
        events: newest(of_node.iter().copied().filter(about_none).filter(|event| !is_over(event, &of_node))),
    }
}

/// Whether a later Event ends what this one reports: `…Available` ends `…Unavailable`.
fn is_over(event: &Event, all: &[&Event]) -> bool {
    let ending = event.reason.replace("Unavailable", "Available");
    ending != event.reason && all.iter().any(|other| other.reason == ending && other.time >= event.time)
}

/// The newest of each reason, the oldest first.
fn newest<'a>(events: impl Iterator<Item = &'a Event>) -> Vec<Event> {
    let newest: BTreeMap<&str, &Event> = events.map(|event| (event.reason.as_str(), event)).collect();
    let mut found: Vec<Event> = newest.into_values().cloned().collect();
    found.sort_by(|one, other| one.time.cmp(&other.time));
    found
}

fn uuid<'a>(devices: &[&'a Device], pool: &Pool) -> Option<&'a str> {
    ["gpuUUID", "parentUUID", "uuid"]
        .iter()
        .find_map(|name| devices.iter().find_map(|device| device.text(name, &pool.driver)))
}

/// Nothing for a GPU without a fault.
fn gpu(
    name: &str,
    devices: &[&Device],
    (pool, rules): (&Pool, &[&Rule]),
    events: &[&Event],
    seen: &Seen<'_>,
) -> Option<Gpu> {
    let uuid = uuid(devices, pool);
    let place = Place { node: &pool.name, gpu: name, uuid: uuid.unwrap_or("UUID"), driver: seen.driver };
    let is_of_gpu =
        |holder: &&Holder| holder.pool == *pool.name && devices.iter().any(|device| *device.name == *holder.device);
    let holders: Vec<&Holder> = seen.holders.iter().filter(is_of_gpu).collect();
    let found = tainted(devices, pool, rules);
    let mut faults: Vec<Fault> = found.iter().map(|(key, tainted)| fault(key, tainted, devices.len(), place)).collect();
    if faults.is_empty() {
        faults.extend(reported(&holders, place));
    }
    let taints: Vec<&Taint> = found.iter().map(|(_, tainted)| &tainted.taint).collect();
    let of_gpu = events.iter().copied().filter(|event| uuid.is_some_and(|uuid| event.message.contains(uuid)));
    (!faults.is_empty()).then(|| Gpu {
        name: name.to_owned(),
        uuid: uuid.map(str::to_owned),
        product: devices.iter().find_map(|device| device.text("productName", &pool.driver)).map(str::to_owned),
        faults,
        events: newest(of_gpu),
        claims: holders.into_iter().map(|holder| claim(holder, &taints, seen.empty_effect)).collect(),
    })
}

/// A taint of some devices of a GPU.
struct Tainted {
    taint: Taint,
    devices: usize,
}

/// Taints with the same source, without regard to their times.
fn tainted(devices: &[&Device], pool: &Pool, rules: &[&Rule]) -> Vec<(By, Tainted)> {
    let mut found: BTreeMap<(By, String), Tainted> = BTreeMap::new();
    let mut add = |by: By, taint: &Taint, devices: usize| {
        let tainted =
            found.entry((by, taint.to_string())).or_insert_with(|| Tainted { taint: taint.clone(), devices: 0 });
        tainted.devices += devices;
        if taint.since < tainted.taint.since {
            tainted.taint.since = taint.since.clone();
        }
    };
    for taint in devices.iter().flat_map(|device| &device.taints) {
        add(By::Driver, taint, 1);
    }
    for (rule, covered) in
        rules.iter().map(|rule| (rule, covered(rule, devices, pool))).filter(|(_, covered)| *covered > 0)
    {
        let by = if rule.is_own {
            By::Drain { rules: Vec::new(), reason: rule.reason.clone() }
        } else {
            By::Rules { rules: Vec::new() }
        };
        add(by, &rule.taint, covered);
    }
    let named = found.into_iter().map(|((by, taint), tainted)| (with_names(by, &taint, devices, pool, rules), tainted));
    named.collect()
}

fn covered(rule: &Rule, devices: &[&Device], pool: &Pool) -> usize {
    devices.iter().filter(|device| rule.matches(&pool.driver, &pool.name, &device.name)).count()
}

/// A GPU has a rule for each of its forms: their names are collected.
fn with_names(by: By, taint: &str, devices: &[&Device], pool: &Pool, rules: &[&Rule]) -> By {
    let names = |is_own: bool, of_reason: Option<&String>| {
        let same = rules.iter().filter(move |rule| rule.is_own == is_own && rule.taint.to_string() == taint);
        let same = same.filter(move |rule| !is_own || rule.reason.as_ref() == of_reason);
        same.filter(|rule| covered(rule, devices, pool) > 0).map(|rule| rule.name.clone()).collect()
    };
    match by {
        By::Drain { reason, .. } => By::Drain { rules: names(true, reason.as_ref()), reason },
        By::Rules { .. } => By::Rules { rules: names(false, None) },
        By::Driver | By::Claims => by,
    }
}

fn fault(by: &By, tainted: &Tainted, devices: usize, place: Place<'_>) -> Fault {
    let Tainted { taint, devices: with_taint } = tainted;
    Fault {
        taint: taint.to_string(),
        since: (!taint.since.is_empty()).then(|| taint.since.to_string()),
        explained: explained(taint, by, place),
        by: by.clone(),
        devices: Share { tainted: (*with_taint).min(devices), all: devices },
    }
}

/// The condition `Healthy` of a claim, where the API server stores no taints or the policy of the driver sets none.
fn reported(holders: &[&Holder], place: Place<'_>) -> Option<Fault> {
    let mut conditions = holders.iter().flat_map(|holder| &holder.conditions);
    let found = conditions.find(|condition| condition.kind == "Healthy" && condition.status != "True")?;
    Some(Fault {
        taint: String::new(),
        since: (!found.last_transition_time.is_empty()).then(|| found.last_transition_time.clone()),
        by: By::Claims,
        devices: Share { tainted: 0, all: 0 },
        explained: Explained::reported(&found.message, place),
    })
}

fn claim(holder: &Holder, taints: &[&Taint], empty: EmptyEffect) -> Claim {
    let evicting = taints.iter().filter(|taint| taint.effect == Effect::NoExecute);
    let then = evicting.map(|taint| holder.eviction(taint, empty)).min();
    let then = then.map_or_else(|| "stays".to_owned(), |eviction: Eviction| eviction.to_string());
    Claim {
        namespace: holder.namespace.clone(),
        name: holder.claim.clone(),
        pods: holder.pods.clone(),
        device: holder.device.clone(),
        then,
        conditions: holder.conditions.iter().filter(|found| found.status != "True").cloned().collect(),
    }
}
