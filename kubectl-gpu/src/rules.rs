// SPDX-License-Identifier: Apache-2.0
//! DeviceTaintRules with their names: those that `kubectl gpu drain` made, and those of administrators. Pure.

use dra_allocation::device::Taint;
use dra_allocation::node::Effect;
use dra_explain::request::Page;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
const THIS_PROGRAM: &str = "kubectl-gpu";
/// The annotation with the reason that an administrator gave.
const REASON: &str = "gpu.nvidia.com/reason";

/// The condition in which Kubernetes counts the pods that a rule evicts.
const COUNTED: &str = "EvictionInProgress";

/// A rule of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub name: String,
    /// Whether this program made it.
    pub is_own: bool,
    pub reason: Option<String>,
    /// A rule without a selector matches no device.
    pub selector: Option<Selector>,
    pub taint: Taint,
    /// What Kubernetes counts for the present rule.
    pub counted: Option<String>,
}

/// Names that must all match.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Selector {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

impl Selector {
    /// All devices of a driver on a node, or one of them.
    pub fn of(driver: &str, pool: &str, device: Option<&str>) -> Self {
        Self { driver: Some(driver.to_owned()), pool: Some(pool.to_owned()), device: device.map(str::to_owned) }
    }

    pub fn matches(&self, driver: &str, pool: &str, device: &str) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        is(&self.driver, driver) && is(&self.pool, pool) && is(&self.device, device)
    }
}

impl Rule {
    pub fn matches(&self, driver: &str, pool: &str, device: &str) -> bool {
        self.selector.as_ref().is_some_and(|selector| selector.matches(driver, pool, device))
    }

    /// Whether it is about a device of the pool, or of any pool.
    pub fn may_match(&self, pool: &str) -> bool {
        let selector = self.selector.as_ref();
        selector.is_some_and(|selector| selector.pool.as_ref().is_none_or(|wanted| wanted == pool))
    }

    /// Whether it is about all devices of the node.
    pub fn is_of_node(&self) -> bool {
        self.selector.as_ref().is_some_and(|selector| selector.device.is_none())
    }
}

/// The taint of a device that is taken out of service by hand.
pub fn drained(driver: &str, effect: Effect) -> Taint {
    Taint { key: format!("{driver}/drained").into(), value: "".into(), effect, since: "".into() }
}

pub const fn effect_name(effect: Effect) -> &'static str {
    match effect {
        Effect::None => "None",
        Effect::NoSchedule => "NoSchedule",
        Effect::NoExecute => "NoExecute",
    }
}

/// A rule for the API server, which completes its name.
pub fn manifest(version: &str, selector: &Selector, taint: &Taint, reason: Option<&str>) -> Value {
    let subject = selector.device.as_ref().or(selector.pool.as_ref()).map_or("gpu", String::as_str);
    let annotations = reason.map(|reason| json!({REASON: reason}));
    json!({
        "apiVersion": format!("resource.k8s.io/{version}"),
        "kind": "DeviceTaintRule",
        "metadata": {
            "generateName": format!("drained-{}-", subject.replace('/', "-")),
            "labels": {MANAGED_BY: THIS_PROGRAM},
            "annotations": annotations.unwrap_or_else(|| json!({})),
        },
        "spec": {"deviceSelector": selector, "taint": {"key": *taint.key, "effect": effect_name(taint.effect)}},
    })
}

/// The change of a rule that gives it another effect and a reason.
pub fn patch(effect: Effect, reason: Option<&str>) -> Value {
    json!({
        "metadata": {"annotations": {REASON: reason}},
        "spec": {"taint": {"effect": effect_name(effect), "timeAdded": null}},
    })
}

/// Adds the rules of a list, and returns the token of the next page, if there is one.
pub fn add_page(json: &[u8], rules: &mut Vec<Rule>) -> Result<Option<String>, serde_json::Error> {
    let page: Page<RawRule> = serde_json::from_slice(json)?;
    let next = page.next();
    rules.extend(page.items.into_iter().map(RawRule::rule));
    Ok(next)
}

/// One rule.
pub fn read(json: &[u8]) -> Result<Rule, serde_json::Error> {
    serde_json::from_slice(json).map(RawRule::rule)
}

#[derive(Deserialize)]
struct RawRule {
    #[serde(default)]
    metadata: Metadata,
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: String,
    generation: i64,
    creation_timestamp: String,
    labels: std::collections::BTreeMap<String, String>,
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    device_selector: Option<Selector>,
    taint: RawTaint,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawTaint {
    key: String,
    value: String,
    effect: String,
    time_added: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Vec<Condition>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    message: String,
    observed_generation: i64,
}

impl RawRule {
    fn rule(self) -> Rule {
        let Self { metadata, spec: Spec { device_selector, taint }, status } = self;
        let RawTaint { key, value, effect, time_added } = taint;
        let effect = match effect.as_str() {
            "NoSchedule" => Effect::NoSchedule,
            "NoExecute" => Effect::NoExecute,
            _ => Effect::None,
        };
        let since = if time_added.is_empty() { metadata.creation_timestamp } else { time_added };
        let is_present =
            |condition: &Condition| condition.kind == COUNTED && condition.observed_generation == metadata.generation;
        Rule {
            name: metadata.name,
            is_own: metadata.labels.get(MANAGED_BY).is_some_and(|by| by == THIS_PROGRAM),
            reason: metadata.annotations.get(REASON).cloned(),
            selector: device_selector,
            taint: Taint { key: key.into(), value: value.into(), effect, since: since.into() },
            counted: status.conditions.into_iter().find(is_present).map(|condition| condition.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_that_is_written_is_read_as_its_own() {
        let taint = drained("gpu.nvidia.com", Effect::NoExecute);
        let selector = Selector::of("gpu.nvidia.com", "node-1", Some("gpu-1"));
        let mut written = manifest("v1", &selector, &taint, Some("fan"));
        assert_eq!(written["metadata"]["generateName"], "drained-gpu-1-");
        written["metadata"]["name"] = json!("drained-gpu-1-x");
        written["metadata"]["generation"] = json!(2);
        let condition = |generation| json!({"conditions": [{"type": COUNTED, "message": "1 pod", "observedGeneration": generation}]});
        for (generation, counted) in [(1, None), (2, Some("1 pod"))] {
            written["status"] = condition(generation);
            let rule = read(written.to_string().as_bytes()).unwrap();
            assert_eq!((rule.is_own, rule.reason.as_deref(), rule.is_of_node()), (true, Some("fan"), false));
            assert_eq!((rule.taint, rule.counted.as_deref()), (taint.clone(), counted), "generation {generation}");
        }
    }

    #[test]
    fn rules_match_by_all_names_that_they_have() {
        let rule = |selector: Value| {
            let list =
                json!({"items": [{"metadata": {"name": "r"}, "spec": {"deviceSelector": selector, "taint": {}}}]});
            let mut rules = Vec::new();
            assert_eq!(add_page(list.to_string().as_bytes(), &mut rules).unwrap(), None);
            rules.remove(0)
        };
        for (selector, expect) in [
            (json!({}), true),
            (json!({"driver": "a", "pool": "n", "device": "d"}), true),
            (json!({"driver": "b"}), false),
            (json!({"pool": "m"}), false),
            (json!({"device": "e"}), false),
            (Value::Null, false),
        ] {
            assert_eq!(rule(selector.clone()).matches("a", "n", "d"), expect, "{selector}");
            assert!(!rule(selector).is_own);
        }
    }
}
