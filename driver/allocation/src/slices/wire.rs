// SPDX-License-Identifier: Apache-2.0
//! ResourceSlices as JSON: the fields that decide on an allocation, borrowed from the text (resource.k8s.io/v1).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::Error as _;
use serde_json::value::RawValue;

use crate::amount::Amount;
use crate::device::{Attributes, Capacity, Counters, QualifiedName, RequestPolicy, Valid, Value};
use crate::node::{Effect, NodeSelector, Scope};

#[derive(Deserialize)]
pub(super) struct Page<'a> {
    #[serde(borrow, default)]
    pub(super) metadata: ListMeta<'a>,
    #[serde(borrow)]
    pub(super) items: Vec<Slice<'a>>,
}

#[derive(Default, Deserialize)]
pub(super) struct ListMeta<'a> {
    #[serde(borrow, rename = "continue")]
    pub(super) next: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
pub(super) struct Slice<'a> {
    #[serde(borrow)]
    pub(super) metadata: Metadata<'a>,
    #[serde(borrow)]
    pub(super) spec: Spec<'a>,
}

#[derive(Deserialize)]
pub(super) struct Metadata<'a> {
    #[serde(borrow, default)]
    pub(super) name: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec<'a> {
    #[serde(borrow)]
    pub(super) driver: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) pool: Pool<'a>,
    #[serde(borrow)]
    pub(super) node_name: Option<Cow<'a, str>>,
    pub(super) all_nodes: Option<bool>,
    pub(super) node_selector: Option<NodeSelector>,
    #[serde(borrow)]
    pub(super) devices: Option<Vec<Device<'a>>>,
    #[serde(borrow)]
    pub(super) shared_counters: Option<Vec<CounterSet<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pool<'a> {
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    pub(super) generation: i64,
    pub(super) resource_slice_count: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Device<'a> {
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) attributes: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) capacity: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) consumes_counters: Option<Vec<Consumption<'a>>>,
    #[serde(borrow)]
    pub(super) taints: Option<Vec<Taint<'a>>>,
    pub(super) allow_multiple_allocations: Option<bool>,
    #[serde(borrow)]
    pub(super) node_name: Option<Cow<'a, str>>,
    pub(super) all_nodes: Option<bool>,
    pub(super) node_selector: Option<NodeSelector>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Consumption<'a> {
    #[serde(borrow)]
    pub(super) counter_set: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) counters: &'a RawValue,
}

#[derive(Deserialize)]
pub(super) struct CounterSet<'a> {
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) counters: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Taint<'a> {
    #[serde(borrow)]
    pub(super) key: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) value: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) effect: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) time_added: Cow<'a, str>,
}

impl Taint<'_> {
    pub(super) fn effect(&self) -> Effect {
        match self.effect.as_ref() {
            "NoSchedule" => Effect::NoSchedule,
            "NoExecute" => Effect::NoExecute,
            _ => Effect::None,
        }
    }
}

/// Nothing where each device has nodes of its own.
pub(super) fn scope(
    node: Option<&str>,
    all: Option<bool>,
    selector: Option<&NodeSelector>,
    text: &mut dyn FnMut(&str) -> Arc<str>,
) -> Option<Scope> {
    match (node, all, selector) {
        (Some(node), _, _) if !node.is_empty() => Some(Scope::Node(text(node))),
        (_, Some(true), _) => Some(Scope::All),
        (_, _, Some(selector)) => Some(Scope::Selected(selector.clone())),
        _ => None,
    }
}

#[derive(Deserialize)]
struct Attribute<'a> {
    int: Option<i64>,
    bool: Option<bool>,
    #[serde(borrow)]
    string: Option<Cow<'a, str>>,
    #[serde(borrow)]
    version: Option<Cow<'a, str>>,
}

/// A value with a key of the same domain published with and without it is that with the domain.
pub(super) fn attributes(
    json: &str,
    driver: &str,
    text: &mut dyn FnMut(&str) -> Arc<str>,
) -> Result<Attributes, serde_json::Error> {
    let read: BTreeMap<Cow<'_, str>, Attribute<'_>> = serde_json::from_str(json)?;
    let mut named: BTreeMap<QualifiedName, Value> = BTreeMap::new();
    for (key, value) in &read {
        let value = match value {
            Attribute { int: Some(number), .. } => Value::Int(*number),
            Attribute { bool: Some(value), .. } => Value::Bool(*value),
            Attribute { string: Some(found), .. } => Value::Text(text(found)),
            Attribute { version: Some(found), .. } => Value::Version(text(found)),
            Attribute { int: None, bool: None, string: None, version: None } => Value::Unknown,
        };
        insert(&mut named, key, driver, value, text);
    }
    Ok(named.into_iter().collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CapacityValue<'a> {
    #[serde(borrow)]
    value: Cow<'a, str>,
    #[serde(borrow)]
    request_policy: Option<Policy<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Policy<'a> {
    #[serde(borrow)]
    default: Option<Cow<'a, str>>,
    #[serde(borrow)]
    valid_values: Option<Vec<Cow<'a, str>>>,
    #[serde(borrow)]
    valid_range: Option<Range<'a>>,
}

#[derive(Deserialize)]
struct Range<'a> {
    #[serde(borrow)]
    min: Option<Cow<'a, str>>,
    #[serde(borrow)]
    max: Option<Cow<'a, str>>,
    #[serde(borrow)]
    step: Option<Cow<'a, str>>,
}

pub(super) fn capacity(
    json: &str,
    driver: &str,
    text: &mut dyn FnMut(&str) -> Arc<str>,
) -> Result<Vec<Capacity>, serde_json::Error> {
    let read: BTreeMap<Cow<'_, str>, CapacityValue<'_>> = serde_json::from_str(json)?;
    let mut named: BTreeMap<QualifiedName, (Amount, Option<RequestPolicy>)> = BTreeMap::new();
    for (key, found) in &read {
        let policy = found.request_policy.as_ref().map(policy).transpose()?;
        insert(&mut named, key, driver, (amount(&found.value)?, policy), text);
    }
    Ok(named.into_iter().map(|(name, (value, policy))| Capacity { name, value, policy }).collect())
}

fn policy(policy: &Policy<'_>) -> Result<RequestPolicy, serde_json::Error> {
    let optional = |text: &Option<Cow<'_, str>>| text.as_deref().map(amount).transpose();
    let valid = match (&policy.valid_values, &policy.valid_range) {
        (Some(values), _) => Valid::Values(values.iter().map(|value| amount(value)).collect::<Result<_, _>>()?),
        (None, Some(Range { min: Some(min), max, step })) => {
            Valid::Range { min: amount(min)?, max: optional(max)?, step: optional(step)? }
        }
        (None, Some(Range { min: None, .. }) | None) => Valid::Any,
    };
    Ok(RequestPolicy { default: optional(&policy.default)?, valid })
}

#[derive(Deserialize)]
struct Counter<'a> {
    #[serde(borrow)]
    value: Cow<'a, str>,
}

pub(super) fn counters(json: &str, text: &mut dyn FnMut(&str) -> Arc<str>) -> Result<Counters, serde_json::Error> {
    let read: BTreeMap<Cow<'_, str>, Counter<'_>> = serde_json::from_str(json)?;
    read.iter().map(|(name, counter)| Ok((text(name), amount(&counter.value)?))).collect()
}

fn amount(text: &str) -> Result<Amount, serde_json::Error> {
    text.parse().map_err(serde_json::Error::custom)
}

/// Values with the domain of the driver take precedence over those without a domain.
fn insert<T>(
    named: &mut BTreeMap<QualifiedName, T>,
    key: &str,
    driver: &str,
    value: T,
    text: &mut dyn FnMut(&str) -> Arc<str>,
) {
    let (domain, id) = key.split_once('/').unwrap_or((driver, key));
    let name = QualifiedName { domain: text(domain), id: text(id) };
    if key.contains('/') || !named.contains_key(&name) {
        named.insert(name, value);
    }
}
