// SPDX-License-Identifier: Apache-2.0
//! All checks, and what could not be checked. Pure.

use super::{Diagnosis, Node, Seen, cluster, nodes};
use crate::driver_pods::Found;

/// The checks of the cluster, then those of each node.
pub fn diagnose(seen: &Seen<'_>) -> Diagnosis {
    let cluster = cluster::checks(seen);
    let nodes = nodes::names(seen).into_iter().map(|name| Node { checks: nodes::checks(seen, &name), name });
    Diagnosis { cluster, nodes: nodes.collect(), notes: notes(seen) }
}

/// The checks that were left out.
fn notes(seen: &Seen<'_>) -> Vec<String> {
    let Seen { server_version, api_versions, gates, classes, pools, pods, .. } = seen;
    let Seen { daemon_sets, denied, policies, nodes, .. } = seen;
    let limited = match pods {
        Ok(Found { missing: Some(right), .. }) => {
            Some(format!("{right} is missing: pods of the driver are looked for in one namespace only"))
        }
        Ok(Found { missing: None, .. }) | Err(_) => None,
    };
    let unread = [
        server_version.as_ref().err(),
        api_versions.as_ref().err(),
        gates.as_ref().err(),
        classes.as_ref().err(),
        pools.as_ref().err(),
        pods.as_ref().err(),
        daemon_sets.as_ref().err(),
        denied.as_ref().err(),
        policies.as_ref().err(),
        nodes.as_ref().err(),
    ];
    let mut notes: Vec<String> = unread.into_iter().flatten().cloned().chain(limited).collect();
    notes.dedup();
    notes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dra_allocation::{Classes, Pools, SliceReader};
    use dra_model::node_check::NodeChecks;
    use serde_json::json;

    use super::*;
    use crate::doctor::{DaemonSet, NodeAnswer};
    use crate::driver_pods::DriverPod;

    /// One GPU that two drivers publish on one node.
    fn pools() -> Pools {
        let slice = |driver: &str| {
            let pool = json!({"name": "n", "generation": 1, "resourceSliceCount": 1});
            let device =
                json!({"name": "gpu-1", "attributes": {"uuid": {"string": "GPU-1"}, "type": {"string": "gpu"}}});
            json!({"metadata": {"name": driver}, "spec": {"driver": driver, "pool": pool, "nodeName": "n", "devices": [device]}})
        };
        let mut reader = SliceReader::default();
        reader.add_page(json!({"items": [slice("a"), slice("b")]}).to_string().as_bytes()).unwrap();
        reader.pools()
    }

    fn seen() -> Seen<'static> {
        let pod = DriverPod {
            namespace: "gpu".to_owned(),
            name: "p".to_owned(),
            node: Some("n".to_owned()),
            is_ready: true,
            ..DriverPod::default()
        };
        let checks = NodeChecks {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            clock_ms: 0,
            nvidia_driver: Some("580".to_owned()),
            checks: Vec::new(),
        };
        Seen {
            driver: "a",
            server_version: Ok("v1.37.2".to_owned()),
            api_versions: Ok(vec!["v1".to_owned()]),
            gates: Ok(BTreeMap::from([("DRAConsumableCapacity".to_owned(), false)])),
            classes: Ok(Classes::default()),
            pools: Ok(pools()),
            pods: Ok(Found { pods: vec![pod], missing: None }),
            daemon_sets: Ok(vec![DaemonSet {
                namespace: "gpu".to_owned(),
                name: "d".to_owned(),
                desired: 2,
                current: 1,
            }]),
            denied: Ok(vec!["create events of events.k8s.io".to_owned()]),
            policies: Ok(0),
            nodes: Err("the right to list nodes in the cluster is missing".to_owned()),
            answers: BTreeMap::from([("n".to_owned(), Ok(NodeAnswer { checks, clock_error_ms: -61_000 }))]),
            logs: BTreeMap::new(),
            only: None,
        }
    }

    #[test]
    fn every_finding_has_a_cause() {
        let found = diagnose(&seen());
        let checks = found.cluster.iter().chain(found.nodes.iter().flat_map(|node| &node.checks));
        let causes: Vec<&str> = checks
            .flat_map(|check| &check.problems)
            .map(|problem| problem.cause.split([':', ',']).next().unwrap())
            .collect();
        let expect = [
            "DRAConsumableCapacity is off",
            "DaemonSet gpu/d has pods on 1 of 2 nodes",
            "no DeviceClass selects whole GPUs",
            "the account of the driver may not create events of events.k8s.io",
            "none of the chart is bound",
            "the DRA driver b publishes GPUs of this node",
            "the node is 61 s behind the API server",
        ];
        assert_eq!(causes, expect);
        assert_eq!(found.notes, ["the right to list nodes in the cluster is missing"]);
    }

    #[test]
    fn a_gate_matters_from_the_version_on_that_uses_it() {
        let older = Seen { server_version: Ok("v1.36.0".to_owned()), ..seen() };
        let found = diagnose(&older);
        assert!(!found.cluster.iter().flat_map(|check| &check.problems).any(|one| one.cause.contains("DRAConsumable")));
    }
}
