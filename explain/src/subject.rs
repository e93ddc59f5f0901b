// SPDX-License-Identifier: Apache-2.0
//! A pod or a claim that a user asks about: its claims, where they are allocated, and the Events about it. Pure; `subject_reading` reads.

use std::collections::BTreeMap;

use dra_allocation::node::NodeSelector;
use dra_allocation::request::SpecError;
use dra_allocation::{ClaimSpec, PodRules};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What is asked about.
#[derive(Debug, Clone, PartialEq)]
pub struct Subject {
    /// `pod NAMESPACE/NAME` or `claim NAMESPACE/NAME`.
    pub what: String,
    pub pod: Option<Pod>,
    pub claims: Vec<Claim>,
    /// The oldest first.
    pub events: Vec<Event>,
}

/// A pod, as far as scheduling is concerned.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pod {
    /// The node that the pod is bound to.
    pub node: Option<String>,
    pub phase: String,
    /// Gates that keep the scheduler from the pod.
    pub gates: Vec<String>,
    pub rules: PodRules,
    /// Claims by their name in the pod.
    pub claims: Vec<PodClaim>,
    /// Extended resources of all containers.
    pub resources: Vec<(String, usize)>,
}

/// An entry of `spec.resourceClaims` of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodClaim {
    pub name: String,
    /// The claim, once it exists.
    pub claim: Option<String>,
    pub template: Option<String>,
}

/// A claim of the subject.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// `namespace/name`, or the name in the pod while the claim does not exist.
    pub label: String,
    /// Once the claim exists.
    pub uid: Option<String>,
    pub state: ClaimState,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ClaimState {
    /// The claim is not created. `spec` is that of its template, if there is one.
    Missing {
        template: Option<String>,
        spec: Option<ClaimSpec>,
    },
    Unallocated(ClaimSpec),
    Allocated(Allocated),
}

/// What a claim was given.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Allocated {
    /// `pool/device`, or more of them.
    pub devices: Vec<String>,
    /// The nodes that can use them; all if absent.
    pub nodes: Option<NodeSelector>,
    /// Conditions of devices that are not true, as `device: type, message`.
    pub conditions: Vec<String>,
}

/// An Event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Name of what it is about.
    pub object: String,
    pub is_warning: bool,
    pub reason: String,
    pub message: String,
    /// An RFC 3339 time.
    pub time: String,
}

impl Subject {
    /// The newest Event with a reason.
    pub fn event(&self, reason: &str) -> Option<&Event> {
        self.events.iter().rev().find(|event| event.reason == reason)
    }

    /// The claims that must still be allocated.
    pub fn unallocated(&self) -> Vec<ClaimSpec> {
        let specs = self.claims.iter().filter_map(|claim| match &claim.state {
            ClaimState::Unallocated(spec) | ClaimState::Missing { spec: Some(spec), .. } => Some(spec.clone()),
            ClaimState::Missing { spec: None, .. } | ClaimState::Allocated(_) => None,
        });
        specs.collect()
    }
}

#[derive(Deserialize)]
struct RawPod {
    #[serde(default)]
    spec: RawPodSpec,
    #[serde(default)]
    status: RawPodStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawPodSpec {
    node_name: String,
    resource_claims: Vec<RawPodClaim>,
    containers: Vec<RawContainer>,
    init_containers: Vec<RawContainer>,
    scheduling_gates: Vec<RawGate>,
}

#[derive(Deserialize)]
struct RawGate {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPodClaim {
    name: String,
    resource_claim_name: Option<String>,
    resource_claim_template_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawContainer {
    resources: RawResources,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawResources {
    requests: BTreeMap<String, Value>,
    limits: BTreeMap<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawPodStatus {
    phase: String,
    resource_claim_statuses: Vec<RawClaimStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawClaimStatus {
    name: String,
    resource_claim_name: Option<String>,
}

/// A pod from its JSON.
pub fn pod(object: &Value) -> Result<Pod, serde_json::Error> {
    let RawPod { spec, status } = RawPod::deserialize(object)?;
    let made = |name: &str| {
        let mut made = status.resource_claim_statuses.iter().filter(|claim| claim.name == name);
        made.find_map(|claim| claim.resource_claim_name.clone())
    };
    let claims = spec.resource_claims.iter().map(|claim| PodClaim {
        name: claim.name.clone(),
        claim: claim.resource_claim_name.clone().or_else(|| made(&claim.name)),
        template: claim.resource_claim_template_name.clone(),
    });
    let claims = claims.collect();
    let rules = object.get("spec").map(PodRules::read).transpose()?.unwrap_or_default();
    Ok(Pod {
        node: (!spec.node_name.is_empty()).then_some(spec.node_name),
        phase: status.phase,
        gates: spec.scheduling_gates.into_iter().map(|gate| gate.name).collect(),
        rules,
        claims,
        resources: resources(&spec.containers, &spec.init_containers),
    })
}

/// Extended resources have a domain in their name. Init containers run one after the other, so the largest counts.
fn resources(containers: &[RawContainer], init: &[RawContainer]) -> Vec<(String, usize)> {
    let of = |container: &RawContainer| -> BTreeMap<String, usize> {
        let RawResources { requests, limits } = &container.resources;
        let both = limits.iter().chain(requests).filter(|(name, _)| name.contains('/'));
        let count = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned).parse().ok();
        both.filter_map(|(name, value)| Some((name.clone(), count(value)?))).collect()
    };
    let mut sums: BTreeMap<String, usize> = BTreeMap::new();
    for (name, count) in containers.iter().flat_map(of) {
        *sums.entry(name).or_default() += count;
    }
    for (name, count) in init.iter().flat_map(of) {
        let sum = sums.entry(name).or_default();
        *sum = count.max(*sum);
    }
    sums.into_iter().filter(|(_, count)| *count > 0).collect()
}

#[derive(Deserialize)]
struct RawClaim {
    spec: RawClaimSpec,
    #[serde(default)]
    status: RawStatus,
}

#[derive(Deserialize)]
struct RawClaimSpec {
    #[serde(default)]
    devices: Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawStatus {
    allocation: Option<RawAllocation>,
    devices: Vec<RawDevice>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawAllocation {
    devices: RawResults,
    node_selector: Option<NodeSelector>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawResults {
    results: Vec<RawResult>,
}

#[derive(Deserialize)]
struct RawResult {
    pool: String,
    device: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawDevice {
    device: String,
    conditions: Vec<RawCondition>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    message: String,
}

/// A claim that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error("failed to parse claim {label}")]
    Json { label: String, source: serde_json::Error },
    #[error("failed to read claim {label}")]
    Spec { label: String, source: Box<SpecError> },
}

/// A claim from its JSON.
pub fn claim(label: &str, object: &Value) -> Result<Claim, ClaimError> {
    let parsed = RawClaim::deserialize(object);
    let RawClaim { spec, status } = parsed.map_err(|source| ClaimError::Json { label: label.to_owned(), source })?;
    let state = match status.allocation {
        Some(allocation) => ClaimState::Allocated(Allocated {
            devices: allocation
                .devices
                .results
                .iter()
                .map(|found| format!("{}/{}", found.pool, found.device))
                .collect(),
            nodes: allocation.node_selector,
            conditions: status.devices.iter().flat_map(conditions).collect(),
        }),
        None => ClaimState::Unallocated(claim_spec(label, spec.devices)?),
    };
    let uid = object.pointer("/metadata/uid").and_then(Value::as_str).map(str::to_owned);
    Ok(Claim { label: label.to_owned(), uid, state })
}

/// What the claims of a template ask for.
pub fn template_spec(label: &str, object: &Value) -> Result<ClaimSpec, ClaimError> {
    claim_spec(label, object.pointer("/spec/spec/devices").cloned().unwrap_or_default())
}

/// What a claim asks for, whether it is allocated or not.
pub fn claim_spec_of(label: &str, object: &Value) -> Result<ClaimSpec, ClaimError> {
    claim_spec(label, object.pointer("/spec/devices").cloned().unwrap_or_default())
}

fn claim_spec(label: &str, devices: Value) -> Result<ClaimSpec, ClaimError> {
    let devices = if devices.is_null() { Value::Object(serde_json::Map::new()) } else { devices };
    ClaimSpec::read(label, devices)
        .map_err(|source| ClaimError::Spec { label: label.to_owned(), source: Box::new(source) })
}

fn conditions(device: &RawDevice) -> Vec<String> {
    let failing = device.conditions.iter().filter(|condition| condition.status != "True");
    failing.map(|condition| format!("{}: not {}: {}", device.device, condition.kind, condition.message)).collect()
}

#[derive(Deserialize)]
struct RawEvents {
    #[serde(default)]
    metadata: RawListMeta,
    items: Vec<RawEvent>,
}

#[derive(Default, Deserialize)]
struct RawListMeta {
    #[serde(rename = "continue")]
    next: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawEvent {
    reason: Option<String>,
    message: Option<String>,
    last_timestamp: Option<String>,
    event_time: Option<String>,
    series: Option<RawSeries>,
    metadata: RawMeta,
    involved_object: RawObject,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSeries {
    last_observed_time: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawObject {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawMeta {
    creation_timestamp: Option<String>,
}

/// Events from the JSON of a list, and the token of its next page.
pub fn events(page: &[u8]) -> Result<(Vec<Event>, Option<String>), serde_json::Error> {
    let RawEvents { items, metadata } = serde_json::from_slice(page)?;
    let mut events: Vec<Event> = items.into_iter().map(event).collect();
    events.sort_by(|one, other| one.time.cmp(&other.time));
    Ok((events, metadata.next.filter(|next| !next.is_empty())))
}

fn event(raw: RawEvent) -> Event {
    let observed = raw.series.and_then(|series| series.last_observed_time);
    let time = observed.or(raw.last_timestamp).or(raw.event_time).or(raw.metadata.creation_timestamp);
    Event {
        object: raw.involved_object.name,
        is_warning: raw.kind == "Warning",
        reason: raw.reason.unwrap_or_default(),
        message: raw.message.unwrap_or_default(),
        time: time.unwrap_or_default(),
    }
}
