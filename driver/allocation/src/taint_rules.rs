// SPDX-License-Identifier: Apache-2.0
//! DeviceTaintRules: taints that an administrator gives to devices, beside those that their driver publishes (KEP-5055).

use std::sync::Arc;

use serde::Deserialize;

use crate::device::Taint;
use crate::node::Effect;
use crate::pool::Pools;

/// The rules of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaintRules(Vec<Rule>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    selector: Selector,
    taint: Taint,
}

/// A list of rules that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("failed to parse a list of DeviceTaintRules")]
pub struct TaintRulesError(#[source] serde_json::Error);

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    metadata: ListMeta,
    items: Vec<RawRule>,
}

#[derive(Default, Deserialize)]
struct ListMeta {
    #[serde(rename = "continue")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct RawRule {
    spec: RawSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSpec {
    device_selector: Option<Selector>,
    taint: RawTaint,
}

/// Names that must all match. An empty selector matches all devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Selector {
    driver: Option<String>,
    pool: Option<String>,
    device: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawTaint {
    key: String,
    value: String,
    effect: String,
    time_added: String,
}

impl TaintRules {
    /// Adds the rules of a list and returns the token of the next page, if there is one. A rule without a selector matches nothing.
    pub fn add_page(&mut self, json: &[u8]) -> Result<Option<String>, TaintRulesError> {
        let list: List = serde_json::from_slice(json).map_err(TaintRulesError)?;
        let rules = list.items.into_iter().filter_map(|RawRule { spec: RawSpec { device_selector, taint } }| {
            let effect = match taint.effect.as_str() {
                "NoSchedule" => Effect::NoSchedule,
                "NoExecute" => Effect::NoExecute,
                _ => Effect::None,
            };
            let RawTaint { key, value, time_added, .. } = taint;
            let taint = Taint { key: key.into(), value: value.into(), effect, since: time_added.into() };
            Some(Rule { selector: device_selector?, taint })
        });
        self.0.extend(rules);
        Ok(list.metadata.next.filter(|next| !next.is_empty()))
    }

    /// Adds the taints to the devices that the rules match.
    pub fn apply(&self, pools: &mut Pools) {
        let is = |wanted: &Option<String>, found: &Arc<str>| wanted.as_ref().is_none_or(|wanted| **wanted == **found);
        for Rule { selector, taint } in &self.0 {
            for pool in
                pools.iter_mut().filter(|pool| is(&selector.driver, &pool.driver) && is(&selector.pool, &pool.name))
            {
                let devices = pool.slices.iter_mut().flat_map(|slice| &mut slice.devices);
                devices
                    .filter(|device| is(&selector.device, &device.name))
                    .for_each(|device| device.taints.push(taint.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::slices::SliceReader;

    /// The devices that a rule taints, of two pools with two devices each.
    fn tainted(selector: &Value) -> Vec<String> {
        let slice = |name: &str| {
            let pool = json!({"name": name, "generation": 1, "resourceSliceCount": 1});
            let devices = json!([{"name": "d1"}, {"name": "d2"}]);
            json!({"metadata": {"name": name}, "spec": {"driver": "a", "pool": pool, "allNodes": true, "devices": devices}})
        };
        let mut reader = SliceReader::default();
        reader.add_page(json!({"items": [slice("p1"), slice("p2")]}).to_string().as_bytes()).unwrap();
        let mut pools = reader.pools();
        let taint =
            json!({"key": "service", "value": "out", "effect": "NoExecute", "timeAdded": "2026-11-30T10:00:00Z"});
        let mut rules = TaintRules::default();
        let list =
            json!({"metadata": {"continue": ""}, "items": [{"spec": {"deviceSelector": selector, "taint": taint}}]});
        assert_eq!(rules.add_page(list.to_string().as_bytes()).unwrap(), None);
        rules.apply(&mut pools);
        let devices = pools.iter().flat_map(|pool| pool.devices().map(move |device| (pool, device)));
        let devices = devices
            .filter(|(_, device)| device.taints.iter().any(|taint| taint.to_string() == "service=out:NoExecute"));
        devices.map(|(pool, device)| format!("{}/{}", pool.name, device.name)).collect()
    }

    #[test]
    fn rules_match_by_all_names_that_they_have() {
        assert_eq!(tainted(&json!({"driver": "a", "pool": "p1", "device": "d2"})), ["p1/d2"]);
        assert_eq!(tainted(&json!({"device": "d1"})), ["p1/d1", "p2/d1"]);
        assert_eq!(tainted(&json!({"driver": "b"})), Vec::<String>::new());
        assert_eq!(tainted(&json!({})).len(), 4);
        assert_eq!(tainted(&Value::Null), Vec::<String>::new());
    }
}
