// SPDX-License-Identifier: Apache-2.0
//! Published devices in the compact form in which a whole cluster fits into memory.
//!
//! A cluster of a thousand nodes publishes hundreds of thousands of devices, most of which differ only in their name. What is equal is
//! stored once: attributes, capacities and counters are shared between devices.

use std::fmt;
use std::sync::Arc;

use crate::amount::Amount;
use crate::node::{Effect, NodeFacts, Scope};

/// A name with its domain. One that is published without a domain has that of the driver (KEP-4381).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct QualifiedName {
    pub domain: Arc<str>,
    pub id: Arc<str>,
}

impl QualifiedName {
    /// `text` with the domain of the driver if it has none.
    pub fn new(text: &str, driver: &str) -> Self {
        let (domain, id) = text.split_once('/').unwrap_or((driver, text));
        Self { domain: domain.into(), id: id.into() }
    }

    /// Whether `text`, with or without a domain, means this name.
    pub fn is(&self, text: &str, driver: &str) -> bool {
        let (domain, id) = text.split_once('/').unwrap_or((driver, text));
        *self.domain == *domain && *self.id == *id
    }
}

impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.id)
    }
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    Int(i64),
    Bool(bool),
    Text(Arc<str>),
    Version(Arc<str>),
    /// A type that this program does not know, such as a list.
    Unknown,
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => number.fmt(f),
            Self::Bool(value) => value.fmt(f),
            Self::Text(text) | Self::Version(text) => f.write_str(text),
            Self::Unknown => f.write_str("a value of another type"),
        }
    }
}

/// The attributes of a device, in the order of their names.
pub type Attributes = Vec<(QualifiedName, Value)>;

/// A capacity of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    pub name: QualifiedName,
    pub value: Amount,
    pub policy: Option<RequestPolicy>,
}

/// How requests for a part of a capacity are completed (KEP-5075).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestPolicy {
    /// What a claim consumes that requests no amount.
    pub default: Option<Amount>,
    pub valid: Valid,
}

/// The amounts that can be requested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Valid {
    Any,
    /// In ascending order.
    Values(Vec<Amount>),
    /// `min`, or `min` and a number of steps, up to `max`.
    Range {
        min: Amount,
        max: Option<Amount>,
        step: Option<Amount>,
    },
}

/// Amounts by counter, in the order of their names.
pub type Counters = Vec<(Arc<str>, Amount)>;

/// What a device takes of one counter set of its pool while it is allocated (KEP-4815).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumption {
    pub set: Arc<str>,
    pub counters: Arc<Counters>,
}

/// A mark of a device that keeps claims away which do not tolerate it (KEP-5055).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Taint {
    pub key: Arc<str>,
    pub value: Arc<str>,
    pub effect: Effect,
    /// An RFC 3339 time; empty if unknown.
    pub since: Arc<str>,
}

impl fmt::Display for Taint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if !self.value.is_empty() {
            write!(f, "={}", self.value)?;
        }
        let effect = match self.effect {
            Effect::None => "None",
            Effect::NoSchedule => "NoSchedule",
            Effect::NoExecute => "NoExecute",
        };
        write!(f, ":{effect}")
    }
}

/// A published device.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    pub name: Arc<str>,
    pub attributes: Arc<Attributes>,
    pub capacity: Arc<Vec<Capacity>>,
    pub consumes: Vec<Consumption>,
    pub taints: Vec<Taint>,
    /// Whether many claims may be allocated parts of the device.
    pub is_shareable: bool,
    /// The nodes of this device, where the slice has devices of several nodes.
    pub scope: Option<Scope>,
}

impl Device {
    /// The value of an attribute; a name without a domain has that of `driver`.
    pub fn attribute(&self, name: &str, driver: &str) -> Option<&Value> {
        self.attributes.iter().find(|(found, _)| found.is(name, driver)).map(|(_, value)| value)
    }

    /// A text attribute of `driver`.
    pub fn text(&self, name: &str, driver: &str) -> Option<&str> {
        match self.attribute(name, driver)? {
            Value::Text(text) | Value::Version(text) => Some(text),
            Value::Int(_) | Value::Bool(_) | Value::Unknown => None,
        }
    }

    /// A capacity; a name without a domain has that of `driver`.
    pub fn capacity(&self, name: &str, driver: &str) -> Option<&Capacity> {
        self.capacity.iter().find(|capacity| capacity.name.is(name, driver))
    }

    /// Whether the device is on a node, as far as the device itself restricts it.
    pub fn is_on(&self, node: &NodeFacts) -> bool {
        self.scope.as_ref().is_none_or(|scope| scope.includes(node))
    }
}

/// Where a device is published. The names are those of the driver and its pool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceId {
    pub driver: Arc<str>,
    pub pool: Arc<str>,
    pub device: Arc<str>,
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.pool, self.device)
    }
}
