// SPDX-License-Identifier: Apache-2.0
//! What a claim asks for: requests, their alternatives and constraints, from the `spec.devices` of a ResourceClaim.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::amount::{Amount, AmountError};
use crate::node::Toleration;

/// The devices of a claim that is not allocated yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimSpec {
    /// `namespace/name`, for texts.
    pub label: String,
    pub requests: Vec<Request>,
    pub constraints: Vec<Constraint>,
}

/// A request of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub name: String,
    /// One `exactly`, or the entries of `firstAvailable` in the order of preference.
    pub asks: Vec<Ask>,
}

/// One way to satisfy a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Name of an entry of `firstAvailable`.
    pub name: Option<String>,
    pub class: String,
    /// CEL expressions that must all be true.
    pub selectors: Vec<String>,
    pub count: Count,
    pub is_admin: bool,
    pub tolerations: Vec<Toleration>,
    /// By name of the capacity, with or without a domain.
    pub capacity: BTreeMap<String, Amount>,
}

/// How many devices an [`Ask`] needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    Exactly(usize),
    /// All that match, at least one.
    All,
}

/// A condition on the devices of several requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    /// Names of requests, or of one of their alternatives as `request/alternative`; all requests if empty.
    pub requests: Vec<String>,
    pub rule: ConstraintRule,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConstraintRule {
    /// All devices have one value of the attribute.
    Match(String),
    /// No two devices have the same value of the attribute.
    Distinct(String),
}

impl Constraint {
    /// Whether the constraint is about a request or its alternative.
    pub fn concerns(&self, request: &Request, ask: &Ask) -> bool {
        let is_named = |name: &String| match (name.split_once('/'), &ask.name) {
            (Some((outer, inner)), Some(alternative)) => *outer == *request.name && *inner == **alternative,
            (None, _) => *name == request.name,
            (Some(_), None) => false,
        };
        self.requests.is_empty() || self.requests.iter().any(is_named)
    }
}

/// A claim that this program cannot read.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    #[error("failed to parse spec.devices of claim {claim}")]
    Json { claim: String, source: serde_json::Error },
    #[error("claim {claim}: request {request} has neither `exactly` nor `firstAvailable`")]
    Empty { claim: String, request: String },
    #[error("claim {claim}: request {request} has a selector without a CEL expression")]
    Selector { claim: String, request: String },
    #[error("claim {claim}: request {request} has the unknown allocation mode {mode}")]
    Mode { claim: String, request: String, mode: String },
    #[error("claim {claim}: request {request} has an invalid amount of the capacity {capacity}")]
    Amount { claim: String, request: String, capacity: String, source: AmountError },
    #[error("claim {claim}: a constraint has neither `matchAttribute` nor `distinctAttribute`")]
    Constraint { claim: String },
}

impl ClaimSpec {
    /// Reads `spec.devices` of a claim or of the claims that a template makes.
    pub fn read(label: &str, devices: serde_json::Value) -> Result<Self, SpecError> {
        let claim = || label.to_owned();
        let read: Devices =
            serde_json::from_value(devices).map_err(|source| SpecError::Json { claim: claim(), source })?;
        let requests = read.requests.into_iter().map(|request| request.read(label)).collect::<Result<_, _>>()?;
        let constraints = read.constraints.into_iter().map(|constraint| {
            let rule = match (constraint.match_attribute, constraint.distinct_attribute) {
                (Some(attribute), _) => ConstraintRule::Match(attribute),
                (None, Some(attribute)) => ConstraintRule::Distinct(attribute),
                (None, None) => return Err(SpecError::Constraint { claim: claim() }),
            };
            Ok(Constraint { requests: constraint.requests, rule })
        });
        Ok(Self { label: claim(), requests, constraints: constraints.collect::<Result<_, _>>()? })
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Devices {
    requests: Vec<RawRequest>,
    constraints: Vec<RawConstraint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRequest {
    name: String,
    exactly: Option<RawAsk>,
    #[serde(default)]
    first_available: Vec<RawAsk>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawAsk {
    name: Option<String>,
    device_class_name: String,
    selectors: Vec<RawSelector>,
    allocation_mode: String,
    count: Option<u32>,
    admin_access: bool,
    tolerations: Vec<Toleration>,
    capacity: RawCapacity,
}

/// A selector of a claim or a DeviceClass.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct RawSelector {
    pub(crate) cel: Option<RawCel>,
}

#[derive(Deserialize)]
pub(crate) struct RawCel {
    pub(crate) expression: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawCapacity {
    requests: BTreeMap<String, serde_json::Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawConstraint {
    requests: Vec<String>,
    match_attribute: Option<String>,
    distinct_attribute: Option<String>,
}

impl RawRequest {
    fn read(self, claim: &str) -> Result<Request, SpecError> {
        let Self { name, exactly, first_available } = self;
        let asks = exactly.map(|ask| RawAsk { name: None, ..ask }).into_iter().chain(first_available);
        let asks = asks.map(|ask| ask.read(claim, &name)).collect::<Result<Vec<Ask>, _>>()?;
        if asks.is_empty() {
            return Err(SpecError::Empty { claim: claim.to_owned(), request: name });
        }
        Ok(Request { name, asks })
    }
}

impl RawAsk {
    fn read(self, claim: &str, request: &str) -> Result<Ask, SpecError> {
        let at = || (claim.to_owned(), request.to_owned());
        let selectors = self.selectors.into_iter().map(|selector| {
            let (claim, request) = at();
            selector.cel.map(|cel| cel.expression).ok_or(SpecError::Selector { claim, request })
        });
        let count = match self.allocation_mode.as_str() {
            "" | "ExactCount" => Count::Exactly(usize::try_from(self.count.unwrap_or(1)).unwrap_or(usize::MAX)),
            "All" => Count::All,
            mode => {
                let (claim, request) = at();
                return Err(SpecError::Mode { claim, request, mode: mode.to_owned() });
            }
        };
        let capacity = self.capacity.requests.into_iter().map(|(name, amount)| {
            // A quantity in a manifest may be a plain number.
            let text = amount.as_str().map_or_else(|| amount.to_string(), str::to_owned);
            let (claim, request) = at();
            match text.parse() {
                Ok(amount) => Ok((name, amount)),
                Err(source) => Err(SpecError::Amount { claim, request, capacity: name, source }),
            }
        });
        Ok(Ask {
            name: self.name,
            class: self.device_class_name,
            selectors: selectors.collect::<Result<_, _>>()?,
            count,
            is_admin: self.admin_access,
            tolerations: self.tolerations,
            capacity: capacity.collect::<Result<_, _>>()?,
        })
    }
}
