// SPDX-License-Identifier: Apache-2.0
//! What a real API server checks of how claims take from the capacities of a device (`CapacityRequestPolicy` in
//! `types.go` and its validation, Kubernetes 1.37).

use serde_json::Value;

use super::super::refusal::{Refusal, invalid};

/// Checks one device.
pub(super) fn check(device: &Value) -> Result<(), Refusal> {
    let capacities = device["capacity"].as_object().into_iter().flatten();
    for (name, capacity) in capacities.filter(|(_, capacity)| !capacity["requestPolicy"].is_null()) {
        let wrong = match device["allowMultipleAllocations"].as_bool() {
            Some(true) => violation(&capacity["value"], &capacity["requestPolicy"]),
            Some(false) | None => Some("only for devices that allow multiple allocations"),
        };
        if let Some(wrong) = wrong {
            return Err(invalid(format!("spec.devices[].capacity[{name}].requestPolicy: Invalid value: {wrong}")));
        }
    }
    Ok(())
}

/// The first rule that a policy breaks.
fn violation(value: &Value, policy: &Value) -> Option<&'static str> {
    let (value, default) = (amount(value), amount(&policy["default"]));
    let (range, values) = (&policy["validRange"], policy["validValues"].as_array());
    let from_range = || {
        let [min, max, step] = ["min", "max", "step"].map(|name| amount(&range[name]));
        let is_multiple = |amount: Option<u64>| step.is_none_or(|step| amount.is_none_or(|amount| amount % step == 0));
        [
            (min.is_none(), "min is required"),
            (min > max.or(value) || max.is_some() && max > value, "min, max and value must ascend"),
            (default < min || default > max.or(value), "default must be within the range"),
            (!is_multiple(max) || !is_multiple(default), "max and default must be multiples of step"),
            (min.zip(step).map(|(min, step)| min + step) > value, "min and step must be at most value"),
        ]
    };
    let from_values = |values: &Vec<Value>| {
        let amounts: Vec<_> = values.iter().map(amount).collect();
        [
            (!amounts.is_sorted() || amounts.len() > 10, "validValues must ascend and be at most 10"),
            (!amounts.contains(&default), "default must be one of validValues"),
            (amounts.iter().any(|amount| *amount > value), "validValues must be at most value"),
        ]
    };
    let of_range = (!range.is_null()).then(from_range).into_iter().flatten();
    let of_values = values.map(from_values).into_iter().flatten();
    let general = [
        (!range.is_null() && values.is_some(), "only one of validRange and validValues is allowed"),
        ((!range.is_null() || values.is_some()) && default.is_none(), "default is required"),
    ];
    general.into_iter().chain(of_range).chain(of_values).find_map(|(broken, rule)| broken.then_some(rule))
}

/// Of whole numbers with the suffixes of memory, read by other code than the driver's.
fn amount(quantity: &Value) -> Option<u64> {
    let text = quantity.as_str()?;
    let digits = text.trim_end_matches(|last: char| !last.is_ascii_digit());
    let power = ["", "Ki", "Mi", "Gi", "Ti"].into_iter().position(|suffix| suffix == &text[digits.len()..])?;
    Some(digits.parse::<u64>().ok()? << (10 * power))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn policies_are_held_to_their_rules() {
        let range = |min, max, step| json!({"min": min, "max": max, "step": step});
        for (value, policy, expect) in [
            ("100", json!({"default": "10", "validRange": range("1", "100", "1")}), None),
            ("1", json!({"default": "1", "validValues": ["1"]}), None),
            ("15Gi", json!({"default": "1536Mi", "validRange": range("1Mi", "15Gi", "1Mi")}), None),
            ("100", json!({"validRange": range("1", "100", "1")}), Some("default is required")),
            (
                "100",
                json!({"default": "0", "validRange": range("1", "100", "1")}),
                Some("default must be within the range"),
            ),
            (
                "100",
                json!({"default": "10", "validRange": range("1", "101", "1")}),
                Some("min, max and value must ascend"),
            ),
            (
                "100",
                json!({"default": "11", "validRange": range("2", "100", "2")}),
                Some("max and default must be multiples of step"),
            ),
            (
                "1",
                json!({"default": "1", "validRange": range("1", "1", "1")}),
                Some("min and step must be at most value"),
            ),
            ("3", json!({"default": "2", "validValues": ["1", "3"]}), Some("default must be one of validValues")),
        ] {
            assert_eq!(violation(&json!(value), &policy), expect, "{policy}");
        }
    }

    #[test]
    fn devices_for_one_claim_have_none() {
        let capacity = json!({"memory": {"value": "2", "requestPolicy": {"default": "1", "validValues": ["1"]}}});
        assert_eq!(check(&json!({"capacity": capacity, "allowMultipleAllocations": true})), Ok(()));
        assert!(check(&json!({"capacity": capacity})).is_err());
    }
}
