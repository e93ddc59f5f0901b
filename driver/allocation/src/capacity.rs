// SPDX-License-Identifier: Apache-2.0
//! Capacities of devices that claims share: what a request consumes by the policy of the driver, and whether it is free (KEP-5075).

use std::collections::BTreeMap;

use crate::amount::Amount;
use crate::device::{Capacity, Device, QualifiedName, RequestPolicy, Valid};

/// What is consumed, by capacity.
pub type Consumed = BTreeMap<QualifiedName, Amount>;

/// Why a device cannot give what is requested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CapacityRefusal {
    /// The device has no such capacity.
    Missing { name: String },
    /// The policy of the driver allows no such amount.
    Invalid { name: QualifiedName, requested: Amount, policy: Valid },
    /// The device never has that much.
    TooLarge { name: QualifiedName, requested: Amount, total: Amount },
    /// Other claims have the rest.
    Taken { name: QualifiedName, requested: Amount, free: Amount },
}

/// What a claim would consume of a device beside `consumed`, or why it cannot.
///
/// `requests` has the names of the claim, with or without a domain. A device that is not shared is given whole; the amounts then only
/// select devices that have as much.
pub fn consumption(
    device: &Device,
    driver: &str,
    requests: &BTreeMap<String, Amount>,
    consumed: &Consumed,
) -> Result<Consumed, Box<CapacityRefusal>> {
    let is_published = |name: &&String| device.capacity.iter().any(|capacity| capacity.name.is(name, driver));
    if let Some(missing) = requests.keys().find(|name| !is_published(name)) {
        return Err(Box::new(CapacityRefusal::Missing { name: missing.clone() }));
    }
    let mut taken = Consumed::new();
    for capacity in device.capacity.iter() {
        let requested = requests.iter().find(|(name, _)| capacity.name.is(name, driver)).map(|(_, amount)| *amount);
        let amount = amount(capacity, requested);
        if let Some(policy) = capacity.policy.as_ref().filter(|policy| !policy.allows(amount)) {
            let name = capacity.name.clone();
            let policy = policy.valid.clone();
            return Err(Box::new(CapacityRefusal::Invalid { name, requested: amount, policy }));
        }
        fits(capacity, amount, consumed)?;
        taken.insert(capacity.name.clone(), amount);
    }
    Ok(if device.is_shareable { taken } else { Consumed::new() })
}

fn fits(capacity: &Capacity, requested: Amount, consumed: &Consumed) -> Result<(), Box<CapacityRefusal>> {
    let (name, total) = (capacity.name.clone(), capacity.value);
    let free = total.minus(consumed.get(&name).copied().unwrap_or_default());
    if requested > total {
        Err(Box::new(CapacityRefusal::TooLarge { name, requested, total }))
    } else if requested > free {
        Err(Box::new(CapacityRefusal::Taken { name, requested, free }))
    } else {
        Ok(())
    }
}

/// The amount that a request takes: without a policy what it names or the whole capacity, with one what the policy makes of it.
fn amount(capacity: &Capacity, requested: Option<Amount>) -> Amount {
    let default = || capacity.policy.as_ref().and_then(|policy| policy.default).unwrap_or(capacity.value);
    let Some(requested) = requested else { return default() };
    capacity.policy.as_ref().map_or(requested, |policy| policy.rounded(requested))
}

impl RequestPolicy {
    /// Rounded up to the next valid amount, if there is one.
    fn rounded(&self, requested: Amount) -> Amount {
        match &self.valid {
            Valid::Values(values) => values.iter().copied().find(|value| *value >= requested).unwrap_or(requested),
            Valid::Range { min, .. } if requested < *min => *min,
            Valid::Range { min, step: Some(step), .. } => {
                let steps = requested.minus(*min).steps(*step);
                steps.map_or(requested, |steps| min.plus(step.times(steps)))
            }
            Valid::Any | Valid::Range { step: None, .. } => requested,
        }
    }

    fn allows(&self, amount: Amount) -> bool {
        let is_valid = match &self.valid {
            Valid::Any => true,
            Valid::Values(values) => values.contains(&amount),
            Valid::Range { min, max, .. } => amount >= *min && max.is_none_or(|max| amount <= max),
        };
        is_valid || self.default == Some(amount)
    }
}

/// Adds what an allocation consumes.
pub fn add(consumed: &mut Consumed, more: &Consumed) {
    for (name, amount) in more {
        let sum = consumed.entry(name.clone()).or_default();
        *sum = sum.plus(*amount);
    }
}

/// Takes away what [`add`] added.
pub fn subtract(consumed: &mut Consumed, less: &Consumed) {
    for (name, amount) in less {
        let rest = consumed.entry(name.clone()).or_default();
        *rest = rest.minus(*amount);
    }
}
