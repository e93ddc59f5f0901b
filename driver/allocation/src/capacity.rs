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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const DRIVER: &str = "gpu.nvidia.com";

    fn amount(text: &str) -> Amount {
        text.parse().unwrap()
    }

    fn device(is_shareable: bool, valid: Valid) -> Device {
        let name = QualifiedName::new("memory", DRIVER);
        let policy = RequestPolicy { default: Some(amount("1Gi")), valid };
        let memory = Capacity { name, value: amount("10Gi"), policy: is_shareable.then_some(policy) };
        Device {
            name: "d".into(),
            attributes: Arc::default(),
            capacity: Arc::new(vec![memory]),
            consumes: Vec::new(),
            taints: Vec::new(),
            is_shareable,
            scope: None,
        }
    }

    fn range() -> Valid {
        Valid::Range { min: amount("2Gi"), max: Some(amount("8Gi")), step: Some(amount("3Gi")) }
    }

    /// What is taken beside `used`, or which refusal there is.
    fn taken(device: &Device, requested: Option<&str>, used: &str) -> Result<Option<Amount>, Box<CapacityRefusal>> {
        let requests = requested.map(|text| ("memory".to_owned(), amount(text))).into_iter().collect();
        let used = Consumed::from([(QualifiedName::new("memory", DRIVER), amount(used))]);
        let consumed = consumption(device, DRIVER, &requests, &used)?;
        Ok(consumed.into_values().next())
    }

    #[test]
    fn requests_are_rounded_up_by_the_policy() {
        let values = Valid::Values(vec![amount("2Gi"), amount("4Gi")]);
        for (valid, requested, expect) in [
            (range(), None, "1Gi"),
            (range(), Some("1"), "2Gi"),
            (range(), Some("2Gi"), "2Gi"),
            (range(), Some("2049Mi"), "5Gi"),
            (range(), Some("8Gi"), "8Gi"),
            (values, Some("3Gi"), "4Gi"),
            (Valid::Any, Some("3Gi"), "3Gi"),
        ] {
            assert_eq!(taken(&device(true, valid), requested, "0"), Ok(Some(amount(expect))), "{requested:?}");
        }
    }

    #[test]
    fn refusals_have_the_reason() {
        let shared = device(true, range());
        assert!(matches!(*taken(&shared, Some("9Gi"), "0").unwrap_err(), CapacityRefusal::Invalid { .. }));
        assert!(matches!(*taken(&shared, Some("8Gi"), "3Gi").unwrap_err(), CapacityRefusal::Taken { .. }));
        assert!(matches!(
            *taken(&device(true, Valid::Any), Some("11Gi"), "0").unwrap_err(),
            CapacityRefusal::TooLarge { .. }
        ));
        let requests = [("net.example.com/memory".to_owned(), amount("1"))].into();
        let missing = consumption(&shared, DRIVER, &requests, &Consumed::new()).unwrap_err();
        assert!(matches!(*missing, CapacityRefusal::Missing { .. }));
    }

    #[test]
    fn a_device_that_is_not_shared_is_given_whole() {
        assert_eq!(taken(&device(false, Valid::Any), Some("4Gi"), "0"), Ok(None));
        assert!(matches!(
            *taken(&device(false, Valid::Any), Some("11Gi"), "0").unwrap_err(),
            CapacityRefusal::TooLarge { .. }
        ));
    }
}
