// SPDX-License-Identifier: Apache-2.0
//! The constraints of a claim while its devices are chosen one by one.
//!
//! A constraint is monotonic: a device that it refuses is refused with more devices, too.

use crate::device::{Device, Value};
use crate::request::{Ask, Constraint, ConstraintRule, Request};

/// A constraint with the values of the devices that were added.
#[derive(Debug, Clone)]
pub struct Tracker<'a> {
    constraint: &'a Constraint,
    values: Vec<Value>,
}

impl<'a> Tracker<'a> {
    pub fn new(constraint: &'a Constraint) -> Self {
        Self { constraint, values: Vec::new() }
    }

    pub fn concerns(&self, request: &Request, ask: &Ask) -> bool {
        self.constraint.concerns(request, ask)
    }

    /// Adds a device unless the constraint refuses it. A device without the attribute is refused.
    pub fn add(&mut self, device: &Device, driver: &str) -> bool {
        let (name, must_differ) = match &self.constraint.rule {
            ConstraintRule::Match(name) => (name, false),
            ConstraintRule::Distinct(name) => (name, true),
        };
        let Some(value) = device.attribute(name, driver).filter(|value| **value != Value::Unknown) else {
            return false;
        };
        let is_allowed =
            if must_differ { !self.values.contains(value) } else { self.values.iter().all(|v| v == value) };
        if is_allowed {
            self.values.push(value.clone());
        }
        is_allowed
    }

    /// Removes the device that was added last.
    pub fn remove(&mut self) {
        self.values.pop();
    }
}
