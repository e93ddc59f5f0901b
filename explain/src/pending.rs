// SPDX-License-Identifier: Apache-2.0
//! The pods that the scheduler found no node for and that want devices, in the whole cluster.

use kube::Client;
use serde_json::Value;

use crate::request::{List, Page, ReadError, Resource, pages};
use crate::subject::{self, Pod};

/// Pods that are looked at in one list; a queue may be longer.
const MAX_PODS: usize = 1000;

/// A pod that waits for devices.
#[derive(Debug, Clone)]
pub struct PendingPod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// The time of the scheduler's first refusal since its last change, in RFC 3339.
    pub since: String,
    /// As the API server has it.
    pub object: Value,
}

/// At most [`MAX_PODS`] of them.
pub async fn pending_pods(client: &Client) -> Result<Vec<PendingPod>, ReadError> {
    let fields = Some("status.phase=Pending,spec.nodeName=".to_owned());
    let (list, mut found) = (List { fields, ..List::all(Resource::core("pods", None)) }, Vec::new());
    let failed = |source| ReadError::Json { what: "pods".to_owned(), source };
    let add = |page: &[u8]| {
        let page: Page<Value> = serde_json::from_slice(page).map_err(failed)?;
        let next = page.next();
        found.extend(page.items.into_iter().filter_map(pending));
        found.truncate(MAX_PODS);
        Ok(next.filter(|_| found.len() < MAX_PODS))
    };
    pages(client, &list, add).await?;
    Ok(found)
}

/// A pod that this program cannot parse is left to the scheduler.
fn pending(object: Value) -> Option<PendingPod> {
    let Pod { node, gates, claims, resources, .. } = subject::pod(&object).ok()?;
    let wants = !claims.is_empty() || !resources.is_empty();
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let since = unschedulable_since(&object)?;
    let (namespace, name, uid) = (text("/metadata/namespace")?, text("/metadata/name")?, text("/metadata/uid")?);
    let is_deleted = object.pointer("/metadata/deletionTimestamp").is_some();
    (wants && node.is_none() && gates.is_empty() && !is_deleted).then_some(PendingPod {
        namespace,
        name,
        uid,
        since,
        object,
    })
}

fn unschedulable_since(object: &Value) -> Option<String> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    let of = |condition: &Value, field: &str| condition.get(field).and_then(Value::as_str).map(str::to_owned);
    let is_refused = |condition: &&Value| {
        of(condition, "type").as_deref() == Some("PodScheduled") && of(condition, "status").as_deref() == Some("False")
    };
    conditions.iter().find(is_refused).and_then(|condition| of(condition, "lastTransitionTime"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(change: impl FnOnce(&mut Value)) -> Value {
        let refused = json!({"type": "PodScheduled", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let mut pod = json!({
            "metadata": {"namespace": "ml", "name": "train", "uid": "u"},
            "spec": {"containers": [{"name": "c"}], "resourceClaims": [{"name": "gpu", "resourceClaimName": "a"}]},
            "status": {"phase": "Pending", "conditions": [refused]},
        });
        change(&mut pod);
        pod
    }

    #[test]
    fn a_pod_waits_for_devices_once_the_scheduler_has_refused_it() {
        let found = pending(pod(|_| {})).unwrap();
        assert_eq!((found.name.as_str(), found.since.as_str()), ("train", "2026-01-01T00:00:00Z"));
        let extended = pod(|pod| {
            pod["spec"]["resourceClaims"] = json!([]);
            pod["spec"]["containers"][0]["resources"] = json!({"limits": {"nvidia.com/gpu": "1"}});
        });
        assert!(pending(extended).is_some());
        for other in [
            pod(|pod| pod["spec"]["resourceClaims"] = json!([])),
            pod(|pod| pod["spec"]["nodeName"] = json!("a")),
            pod(|pod| pod["spec"]["schedulingGates"] = json!([{"name": "quota"}])),
            pod(|pod| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z")),
            pod(|pod| pod["status"]["conditions"] = json!([])),
        ] {
            assert!(pending(other.clone()).is_none(), "{other}");
        }
    }
}
