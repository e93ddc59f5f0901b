// SPDX-License-Identifier: Apache-2.0
//! The claims that hold devices of a driver, with what they tolerate and what the driver reports about them. Pure.

use std::fmt;

use dra_allocation::device::Taint;
use serde::{Deserialize, Serialize};

/// One device that a claim holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub namespace: String,
    pub claim: String,
    /// Pods by name; other consumers as `resource/name`.
    pub pods: Vec<String>,
    pub pool: String,
    pub device: String,
    tolerations: Vec<Toleration>,
    /// What the driver reports about the device.
    pub conditions: Vec<Condition>,
}

/// A condition of a device in the status of a claim.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub message: String,
    pub last_transition_time: String,
}

/// What an eviction by a taint does to the pods of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Eviction {
    AtOnce,
    /// After so many seconds.
    After(u64),
    /// The claim tolerates the taint for ever.
    Never,
}

impl fmt::Display for Eviction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtOnce => f.write_str("evicted at once"),
            Self::After(seconds) => write!(f, "evicted after {seconds} s"),
            Self::Never => f.write_str("stays: tolerates the taint"),
        }
    }
}

/// Whether tolerations without an effect protect from eviction: since Kubernetes 1.38.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmptyEffect {
    Protects,
    DoesNotProtect,
}

impl EmptyEffect {
    /// By the minor version of the API server, such as `37` or `37+`.
    pub fn in_version(minor: &str) -> Self {
        let number = minor.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u32>();
        if number.is_ok_and(|minor| minor >= 38) { Self::Protects } else { Self::DoesNotProtect }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Toleration {
    key: String,
    operator: String,
    value: String,
    effect: String,
    #[serde(rename = "tolerationSeconds")]
    seconds: Option<i64>,
}

impl Toleration {
    /// As `claimEvictionTime` of the device taint eviction controller of Kubernetes 1.37 and 1.38.
    fn protects_from(&self, taint: &Taint, empty: EmptyEffect) -> bool {
        let is_of_key = self.key.is_empty() || *self.key == *taint.key;
        let is_of_value = match self.operator.as_str() {
            "Exists" => true,
            "" | "Equal" => !self.key.is_empty() && *self.value == *taint.value,
            _ => false,
        };
        let is_of_effect = self.effect == "NoExecute" || (self.effect.is_empty() && empty == EmptyEffect::Protects);
        is_of_key && is_of_value && is_of_effect
    }
}

impl Holder {
    /// What this taint does to the pods, if it has the effect `NoExecute`.
    pub fn eviction(&self, taint: &Taint, empty: EmptyEffect) -> Eviction {
        let protecting = self.tolerations.iter().filter(|toleration| toleration.protects_from(taint, empty));
        let mut seconds = None;
        for toleration in protecting {
            let Some(found) = toleration.seconds else { return Eviction::Never };
            let found = u64::try_from(found).unwrap_or_default();
            seconds = Some(seconds.map_or(found, |least: u64| least.min(found)));
        }
        seconds.filter(|seconds| *seconds > 0).map_or(Eviction::AtOnce, Eviction::After)
    }

    /// `namespace/name`.
    pub fn label(&self) -> String {
        format!("{}/{}", self.namespace, self.claim)
    }
}

/// Adds the holders of a list of claims, and returns the token of the next page, if there is one.
pub fn add_page(json: &[u8], driver: &str, holders: &mut Vec<Holder>) -> Result<Option<String>, serde_json::Error> {
    let List { metadata, items } = serde_json::from_slice(json)?;
    holders.extend(items.into_iter().flat_map(|claim| of_claim(claim, driver)));
    Ok(metadata.next.filter(|next| !next.is_empty()))
}

/// The holders of one claim.
pub fn read_claim(json: &[u8], driver: &str) -> Result<Vec<Holder>, serde_json::Error> {
    serde_json::from_slice(json).map(|claim| of_claim(claim, driver))
}

fn of_claim(claim: RawClaim, driver: &str) -> Vec<Holder> {
    let RawClaim { metadata, status } = claim;
    let Some(allocation) = status.allocation else { return Vec::new() };
    let pods: Vec<String> = status.reserved_for.into_iter().map(Consumer::name).collect();
    let of_driver = allocation.devices.results.into_iter().filter(|result| result.driver == driver);
    let holder = |result: Allocated| {
        let reported = status.devices.iter().filter(|device| device.is(&result));
        Holder {
            namespace: metadata.namespace.clone(),
            claim: metadata.name.clone(),
            pods: pods.clone(),
            conditions: reported.flat_map(|device| device.conditions.clone()).collect(),
            pool: result.pool,
            device: result.device,
            tolerations: result.tolerations,
        }
    };
    of_driver.map(holder).collect()
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    metadata: ListMeta,
    items: Vec<RawClaim>,
}

#[derive(Default, Deserialize)]
struct ListMeta {
    #[serde(rename = "continue")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct RawClaim {
    metadata: Metadata,
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    allocation: Option<Allocation>,
    reserved_for: Vec<Consumer>,
    devices: Vec<Reported>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Allocation {
    devices: Results,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Results {
    results: Vec<Allocated>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Allocated {
    driver: String,
    pool: String,
    device: String,
    tolerations: Vec<Toleration>,
    #[serde(rename = "shareID")]
    share_id: Option<String>,
}

/// An entry of `status.devices`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Reported {
    driver: String,
    pool: String,
    device: String,
    #[serde(rename = "shareID")]
    share_id: Option<String>,
    conditions: Vec<Condition>,
}

impl Reported {
    fn is(&self, result: &Allocated) -> bool {
        let Self { driver, pool, device, share_id, conditions: _ } = self;
        (driver, pool, device, share_id) == (&result.driver, &result.pool, &result.device, &result.share_id)
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Consumer {
    resource: String,
    name: String,
}

impl Consumer {
    fn name(self) -> String {
        let Self { resource, name } = self;
        if resource == "pods" { name } else { format!("{resource}/{name}") }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::rules::drained;

    fn held(tolerations: &Value) -> Holder {
        let result = json!({"driver": "a", "pool": "n", "device": "d", "tolerations": tolerations});
        let claim = json!({
            "metadata": {"namespace": "ml", "name": "c"},
            "status": {
                "allocation": {"devices": {"results": [result, {"driver": "b", "pool": "n", "device": "e"}]}},
                "reservedFor": [{"resource": "pods", "name": "p"}, {"resource": "podgroups", "name": "g"}],
                "devices": [{"driver": "a", "pool": "n", "device": "d", "conditions": [{"type": "Healthy", "status": "False"}]}],
            },
        });
        let mut found = Vec::new();
        let list = json!({"metadata": {"continue": "more"}, "items": [claim, {"metadata": {}}]}).to_string();
        assert_eq!(add_page(list.as_bytes(), "a", &mut found).unwrap().as_deref(), Some("more"));
        assert_eq!(found.len(), 1, "devices of other drivers and claims without allocation are left out");
        found.remove(0)
    }

    #[test]
    fn a_claim_has_its_pods_and_conditions() {
        let found = held(&json!([]));
        assert_eq!((found.label().as_str(), found.pods.join(" ").as_str()), ("ml/c", "p podgroups/g"));
        assert_eq!(found.conditions.first().map(|found| found.kind.as_str()), Some("Healthy"));
    }

    #[test]
    fn tolerations_protect_as_the_eviction_controller_reads_them() {
        let taint = drained("a", dra_allocation::node::Effect::NoExecute);
        let key = "a/drained";
        for (tolerations, expect) in [
            (json!([]), Eviction::AtOnce),
            (json!([{"operator": "Exists", "effect": "NoExecute"}]), Eviction::Never),
            (json!([{"operator": "Exists", "effect": "NoSchedule"}]), Eviction::AtOnce),
            (json!([{"operator": "Exists"}]), Eviction::AtOnce),
            (json!([{"key": key, "effect": "NoExecute"}]), Eviction::Never),
            (json!([{"key": key, "value": "x", "effect": "NoExecute"}]), Eviction::AtOnce),
            (json!([{"key": "a/other", "operator": "Exists", "effect": "NoExecute"}]), Eviction::AtOnce),
            (json!([{"key": key, "effect": "NoExecute", "tolerationSeconds": 0}]), Eviction::AtOnce),
            (
                json!([
                    {"key": key, "effect": "NoExecute", "tolerationSeconds": 60},
                    {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30},
                ]),
                Eviction::After(30),
            ),
        ] {
            assert_eq!(held(&tolerations).eviction(&taint, EmptyEffect::DoesNotProtect), expect, "{tolerations}");
        }
        let any = held(&json!([{"operator": "Exists"}]));
        for (minor, expect) in [("37", Eviction::AtOnce), ("37+", Eviction::AtOnce), ("38", Eviction::Never)] {
            assert_eq!(any.eviction(&taint, EmptyEffect::in_version(minor)), expect, "{minor}");
        }
    }
}
